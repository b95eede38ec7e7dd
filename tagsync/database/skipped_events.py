"""Skip the events of a restored database that wait to be sent, because they may be old."""

import sqlite3
from typing import Final, NamedTuple

_WAITING: Final = """
    SELECT name, cursor + 1, (SELECT max(id) FROM events) AS newest FROM destinations
    WHERE cursor < newest ORDER BY name
"""
_SKIP: Final = """
    UPDATE destinations SET
        cursor = (SELECT coalesce(max(id), 0) FROM events), batch = NULL, lease_holder = NULL,
        lease_until = NULL, failures = 0, failing_since = NULL, last_error = NULL, retry_at = NULL
"""


class SkippedEvents(NamedTuple):
    """The events that a restore has skipped for a destination.

    Attributes:
        destination: The name of the destination.
        first: Id of the first of them.
        last: Id of the last of them.
    """

    destination: str
    first: int
    last: int


def skip_events(db: sqlite3.Connection) -> list[SkippedEvents]:
    """Set each destination to the newest event, and end its lease and its batch.

    Some of these events may have been sent after the backup was made.

    Returns:
        The destinations for which an event waited, by name.
    """
    skipped = [SkippedEvents(*row) for row in db.execute(_WAITING).fetchall()]
    db.execute(_SKIP)
    return skipped
