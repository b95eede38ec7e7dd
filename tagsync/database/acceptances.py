"""The alarms about tags that must not move, and their acceptances.

An alarm is an event about a change that moved or deleted an immutable tag. It is open until
`tagsync accept` records an acceptance. Acceptances are append-only rows of their own, so neither
hash chain covers them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode
from tagsync.errors import RefusedAcceptance

# The condition is that of the index events_immutable, without which SQLite reads all events.
VIOLATIONS_SQL: Final = """
    SELECT change_id FROM events WHERE kind IN ('immutable_moved', 'immutable_deleted')
"""
"""SQL for the ids of the changes that moved or deleted an immutable tag."""

OPEN_SQL: Final = f"""
    {VIOLATIONS_SQL}
    AND NOT EXISTS (SELECT 1 FROM acceptances AS a WHERE a.change_id = events.change_id)
"""  # noqa: S608  constants
"""SQL for the ids of those that were not accepted."""

_COUNT_SQL: Final = f"SELECT count(*) FROM ({OPEN_SQL})"  # noqa: S608  a constant
_IS_VIOLATION_SQL: Final = f"{VIOLATIONS_SQL} AND change_id = ?"
_READ_SQL: Final = "SELECT at, who, reason FROM acceptances WHERE change_id = ?"
_INSERT_SQL: Final = "INSERT INTO acceptances (change_id, at, who, reason) VALUES (?, ?, ?, ?)"


class Acceptance(msgspec.Struct, frozen=True, array_like=True):
    """A person's statement that a change was intended.

    Attributes:
        at: When it was accepted.
        who: The user who accepted it, as the system names them.
        reason: The reason that they gave.
    """

    at: Timestamp
    who: str
    reason: str


def accept(db: Connection, changes: Sequence[int], acceptance: Acceptance) -> None:
    """Record that a person accepted some changes, within the caller's write transaction.

    Raises:
        RefusedAcceptance: If one of the changes is unknown, not an alarm, or accepted before.
            The caller then has to undo the transaction.
        DamagedRecord: If a row is not what tagsync wrote.
    """
    for number in changes:
        _check_open(db, number)
        db.execute(_INSERT_SQL, (number, acceptance.at, acceptance.who, acceptance.reason))


def count_open(db: Connection) -> int:
    """Return how many changes of immutable tags were not accepted."""
    (count,) = db.execute(_COUNT_SQL).fetchone()
    return int(count)


def _check_open(db: Connection, number: int) -> None:
    row = db.execute(_READ_SQL, (number,)).fetchone()
    if row is not None:
        before: Acceptance = decode(row, Acceptance, f"the acceptance of change {number}")
        raise RefusedAcceptance(
            f"change {number} was already accepted at {before.at} by {before.who}: {before.reason}"
        )
    if db.execute(_IS_VIOLATION_SQL, (number,)).fetchone():
        return
    known = db.execute("SELECT 1 FROM changes WHERE id = ?", (number,)).fetchone()
    problem = "is not an alarm about a tag that must not move" if known else "is not recorded"
    raise RefusedAcceptance(
        f"change {number} {problem}: tagsync log --immutable shows the changes to accept"
    )
