"""Query the whole record as it was at a moment: how many repositories and tags, how fresh."""

from datetime import timedelta
from typing import Final

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode

MOST_CHANGES: Final = 50_000
"""Maximum number of changes that are read to count the tags at a moment within a day."""

_POSITION_SQL: Final = "SELECT id, first_at FROM observations WHERE id >= ? ORDER BY id LIMIT 1"

_LISTED_SQL: Final = """
    SELECT r.id, r.full_name, o.last_at, o.tags
    FROM repositories AS r JOIN observations AS o ON o.id = (
        SELECT id FROM observations
        WHERE repository_id = r.id AND id < :before AND outcome = 'ok' AND first_at <= :moment
        ORDER BY id DESC LIMIT 1)
    WHERE r.first_observed_at <= :moment
"""
_LATER_SQL: Final = """
    SELECT repository_id, kind, observed_at FROM changes
    WHERE observed_at > ? AND observed_at <= ? ORDER BY observed_at LIMIT ?
"""
_LAST_CHANGE_SQL: Final = """
    SELECT id FROM changes WHERE observed_at <= ? ORDER BY observed_at DESC, id DESC LIMIT 1
"""


class Overview(msgspec.Struct, frozen=True):
    """The record as it was at a moment.

    Attributes:
        moment: The moment.
        repositories: Number of repositories with a complete listing until then.
        tags: Number of tags in the last complete listings until then.
        exact: Whether ``tags`` is exact. If there are too many changes on the day of the moment to
            read them all, the number is one of up to a day later.
        last_complete_at: The newest time until then at which a repository is known to have been
            listed completely. None without any.
        last_change_id: The id of the newest change until then. None without any.
    """

    moment: str
    repositories: int
    tags: int
    exact: bool
    last_complete_at: str | None
    last_change_id: int | None


class RepositoryAt(msgspec.Struct, frozen=True):
    """A repository that was listed until a moment.

    Attributes:
        repository: The full name.
        last_complete_at: The newest time until the moment at which it is known to have been listed
            completely.
        covered: Whether complete listings cover the moment.
    """

    repository: str
    last_complete_at: str
    covered: bool


def repositories_at(db: Connection, moment: str) -> list[RepositoryAt]:
    """Return the repositories that were listed until a moment, sorted by full name.

    Args:
        db: A connection to the database.
        moment: The time, as `tagsync.clock.timestamp` writes it.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    found = (
        RepositoryAt(name, min(last, moment), last >= moment)
        for _, name, last, _ in _listed(db, moment)
    )
    return sorted(found, key=lambda row: row.repository)


_Listed = tuple[int, str, Timestamp, int | None]
"""A row of `_LISTED_SQL`."""


def _listed(db: Connection, moment: str) -> list[_Listed]:
    rows = db.execute(_LISTED_SQL, {"before": _position(db, moment), "moment": moment}).fetchall()
    found: list[_Listed] = decode(rows, list[_Listed], "the observations")
    return found


def overview_at(db: Connection, moment: str, *, most: int = MOST_CHANGES) -> Overview:
    """Return the record as it was at a moment.

    Args:
        db: A connection to the database.
        moment: The time, as `tagsync.clock.timestamp` writes it.
        most: Maximum number of changes to read.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = _listed(db, moment)
    last_at = {number: last for number, _, last, _ in rows}
    tags, exact = sum(count or 0 for *_, count in rows), True
    later = [last for last in last_at.values() if last > moment]
    if later:
        net, exact = _net_changes(db, moment, last_at, most)
        tags -= net
    change = db.execute(_LAST_CHANGE_SQL, (moment,)).fetchone()
    newest = max((min(last, moment) for last in last_at.values()), default=None)
    return Overview(moment, len(rows), tags, exact, newest, change[0] if change else None)


def _net_changes(
    db: Connection, moment: str, last_at: dict[int, str], most: int
) -> tuple[int, bool]:
    """Return how many tags came after a moment until each repository's time, less those that went.

    The second value says whether all changes were read.
    """
    rows = db.execute(_LATER_SQL, (moment, max(last_at.values()), most)).fetchall()
    net = sum(
        (kind == "added") - (kind == "deleted")
        for number, kind, at in rows
        if at <= last_at.get(number, "")
    )
    return net, len(rows) < most


def _position(db: Connection, moment: str) -> int:
    """Return an id that is greater than that of each observation which began before a moment.

    Observations are inserted in the order of time, but an observation that goes on after midnight
    has an earlier ``first_at``. Two days more are enough for that.
    """
    bound = timestamp(parse_timestamp(moment) + timedelta(days=2))
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM observations").fetchone()
    low, high = 1, int(newest) + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(_POSITION_SQL, (middle,)).fetchone()
        if row is None or row[1] >= bound:
            high = middle
        else:
            low = int(row[0]) + 1
    return low
