"""Write an event for each repository that has become stale."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from tagsync.clock import timestamp
from tagsync.database.connection import Connection
from tagsync.database.decoding import check_timestamp
from tagsync.database.events import NewEvent, append_events
from tagsync.errors import DamagedRecord
from tagsync.models import Repository, Watch
from tagsync.schedule import stale

_REPOSITORY: Final = """
    SELECT id, last_complete_at, coalesce(last_complete_at, (
               SELECT first_at FROM observations WHERE repository_id = r.id ORDER BY id LIMIT 1
           ))
    FROM repositories AS r WHERE registry = ? AND name = ?
"""
_IS_REPORTED: Final = """
    SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'stale' AND repository_id = ? AND at >= ?)
"""


class _Stale(NamedTuple):
    """A repository that is stale.

    Attributes:
        id: The value of ``repositories.id``.
        last_complete_at: The last complete listing. None if there was none.
        since: The last complete listing, or else the first poll.
    """

    id: int
    last_complete_at: str | None
    since: str


def has_unreported(db: Connection, watches: Mapping[Repository, Watch], now: datetime) -> bool:
    """Return whether `report_stale` would write an event."""
    return bool(_unreported(db, watches, now))


def report_stale(db: Connection, watches: Mapping[Repository, Watch], now: datetime) -> None:
    """Write an event for each of these repositories that is stale, once until it is listed again.

    A repository that was never listed completely becomes stale three intervals after its first
    poll. One that was never polled, or whose row is damaged, has no event.

    Args:
        db: Within a write transaction, so that no other process writes the same event.
        watches: The watch of each repository.
        now: The current time.
    """
    append_events(db, [_event(found, now) for found in _unreported(db, watches, now)])


def _unreported(db: Connection, watches: Mapping[Repository, Watch], now: datetime) -> list[_Stale]:
    """Return the stale repositories without an event since their last complete listing."""
    unreported = []
    for repository, watch in watches.items():
        found = _read(db, repository)
        if found is None or not stale(watch, found.since, now):
            continue
        (is_reported,) = db.execute(_IS_REPORTED, (found.id, found.since)).fetchone()
        if not is_reported:
            unreported.append(found)
    return unreported


def _read(db: Connection, repository: Repository) -> _Stale | None:
    row = db.execute(_REPOSITORY, (repository.registry, repository.name)).fetchone()
    if row is None or row[2] is None:
        return None
    try:
        check_timestamp(row[2], f"repository {repository.full_name}")
    except DamagedRecord:
        # The next poll of the repository reports the damage, with an event of its own.
        return None
    return _Stale(*row)


def _event(found: _Stale, now: datetime) -> NewEvent:
    # If the clock was set back, an earlier time would not show that the event was written.
    at = max(timestamp(now), found.since)
    detail = msgspec.json.encode({"last_complete_at": found.last_complete_at}).decode()
    return NewEvent(at, "stale", found.id, detail=detail)
