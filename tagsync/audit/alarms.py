"""Query the newest alarms: what needs a look, of which repository or tag, and since when."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from tagsync.audit.immutable_names import promises_never_to_move
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode
from tagsync.models import Repository, Watch
from tagsync.schedule import stale

MOST_CHANGES: Final = 10_000
"""Number of the newest changes among which moves are searched."""

NEWEST: Final = 20
"""Default maximum number of alarms of each kind."""

_POLLED_SQL: Final = """
    SELECT r.registry, r.name, r.last_complete_at, o.outcome,
           iif(o.reasons = 'damaged', o.detail, r.last_error)
    FROM repositories AS r LEFT JOIN observations AS o
         ON o.id = (SELECT id FROM observations WHERE repository_id = r.id
                    ORDER BY id DESC LIMIT 1)
"""
_MOVES_SQL: Final = """
    SELECT id, repository, tag, not_before, observed_at, previous_digest, new_digest
    FROM tag_moves AS m
    WHERE id > ? AND NOT EXISTS (
        SELECT 1 FROM events
        WHERE kind IN ('immutable_moved', 'immutable_deleted') AND change_id = m.id)
    ORDER BY id DESC
"""

AlarmKind = Literal["failing", "held", "stale", "moved"]
"""The kind of an alarm.

``failing``: the last poll failed. ``held``: the last listing was held. ``stale``: there was no
complete listing for three intervals, and neither of the first two. ``moved``: a tag moved whose
name promises that it never does. Moves of tags that the configuration calls immutable are not
among these; `tagsync.audit.immutable_changes` has them.
"""

_BY_OUTCOME: Final[Mapping[str, AlarmKind]] = {"failed": "failing", "held": "held"}


class Alarm(msgspec.Struct, frozen=True):
    """Something that needs a look.

    Attributes:
        kind: The kind.
        repository: The full name of the repository.
        tag: The tag that moved. None for the other kinds.
        since: The last complete listing of the repository, or when the move was observed. None if
            the repository was never listed.
        change_id: The id of the move. None for the other kinds.
        old_digest: The digest before the move. None for the other kinds.
        new_digest: The digest after the move. None for the other kinds.
        not_before: The move happened after this time. None for the other kinds.
        detail: Why the last poll failed or was held. None for the other kinds.
    """

    kind: AlarmKind
    repository: str
    tag: str | None = None
    since: str | None = None
    change_id: int | None = None
    old_digest: str | None = None
    new_digest: str | None = None
    not_before: str | None = None
    detail: str | None = None


class Alarms(msgspec.Struct, frozen=True):
    """The newest alarms.

    Attributes:
        alarms: The newest ones of each kind, the newest first.
        counts: The number of all alarms of each kind that has any.
        searched_from: The moves since this time were searched. None without any change.
        complete: Whether all changes were searched.
    """

    alarms: tuple[Alarm, ...]
    counts: dict[AlarmKind, int]
    searched_from: str | None
    complete: bool


class _Move(msgspec.Struct, frozen=True, array_like=True):
    """A row of `_MOVES_SQL`."""

    id: int
    repository: str
    tag: str
    not_before: Timestamp
    observed_at: Timestamp
    previous_digest: str
    new_digest: str


def newest_alarms(
    db: Connection,
    watches: Mapping[Repository, Watch | None],
    now: datetime,
    *,
    newest: int = NEWEST,
    most: int = MOST_CHANGES,
) -> Alarms:
    """Return the newest alarms.

    Args:
        db: A connection to the database.
        watches: The watched repositories, each with its watch. A repository whose watch is None or
            missing raises no alarm about polls.
        now: The current time.
        newest: Maximum number of alarms of each kind.
        most: Number of the newest changes among which moves are searched.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM changes").fetchone()
    after = max(last - most, 0)
    found = [*_polls(db, watches, now), *_moves(db, after)]
    found.sort(key=lambda alarm: alarm.since or "", reverse=True)
    by_kind: dict[AlarmKind, list[Alarm]] = {}
    for alarm in found:
        by_kind.setdefault(alarm.kind, []).append(alarm)
    shown = [alarm for alarms in by_kind.values() for alarm in alarms[:newest]]
    shown.sort(key=lambda alarm: alarm.since or "", reverse=True)
    row = db.execute("SELECT observed_at FROM changes WHERE id = ?", (after + 1,)).fetchone()
    return Alarms(
        tuple(shown),
        {kind: len(alarms) for kind, alarms in by_kind.items()},
        row[0] if row else None,
        complete=after == 0,
    )


def _polls(
    db: Connection, watches: Mapping[Repository, Watch | None], now: datetime
) -> Iterator[Alarm]:
    rows = decode(
        db.execute(_POLLED_SQL).fetchall(),
        list[tuple[str, str, Timestamp | None, str | None, str | None]],
        "repositories",
    )
    polled = {Repository(registry, name): row for registry, name, *row in rows}
    for repository, watch in watches.items():
        if watch is None:
            continue
        last, outcome, detail = polled.get(repository, (None, None, None))
        kind = _BY_OUTCOME.get(outcome or "")
        if kind:
            yield Alarm(kind, repository.full_name, since=last, detail=detail)
        elif stale(watch, last, now):
            yield Alarm("stale", repository.full_name, since=last)


def _moves(db: Connection, after: int) -> Iterator[Alarm]:
    for row in db.execute(_MOVES_SQL, (after,)):
        move: _Move = decode(row, _Move, "a move")
        if promises_never_to_move(move.tag):
            yield Alarm(
                "moved",
                move.repository,
                move.tag,
                move.observed_at,
                move.id,
                move.previous_digest,
                move.new_digest,
                move.not_before,
            )
