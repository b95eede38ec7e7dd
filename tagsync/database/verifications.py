"""The recorded results of the daemon's verifications."""

from typing import Final, Literal

import msgspec
from msgspec.structs import astuple

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode
from tagsync.database.events import NewEvent, append_events
from tagsync.database.hash_chain import GENESIS, Head, Heads, ObservationsHead

Result = Literal["ok", "fault", "failed"]
"""The result of a verification. A verification that did not finish has failed."""


class Verification(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``verifications``. Each attribute is the column of the same name.

    The heads are the newest ones that a verification without a fault has covered. A verification
    with another result repeats those of the row before it.

    Attributes:
        at: When the verification ended.
        seconds: How long it took.
        detail: The faults, or why it failed. None if the result is ``ok``.
        change_id: 0 if no change is covered.
        ended: 0 if no observation is covered.
    """

    at: Timestamp
    result: Result
    seconds: float
    detail: str | None
    change_id: Count = 0
    head: str = GENESIS
    ended: Count = 0
    observations_head: str = GENESIS

    @property
    def heads(self) -> Heads:
        """The heads of both chains."""
        return Heads(
            Head(self.change_id, self.head), ObservationsHead(self.ended, self.observations_head)
        )


_COLUMNS: Final = ", ".join(Verification.__struct_fields__)
_INSERT: Final = f"""
    INSERT INTO verifications ({_COLUMNS})
    VALUES ({", ".join("?" * len(Verification.__struct_fields__))})
"""  # noqa: S608  constants
_LAST: Final = f"SELECT {_COLUMNS} FROM verifications ORDER BY id DESC LIMIT 1"  # noqa: S608  constants


def insert_verification(db: Connection, verification: Verification) -> None:
    """Append a row, and an event if the result is not ``ok``, within the caller's transaction.

    Each such verification has its event, because nothing says whether it found the same fault as
    the one before it.
    """
    db.execute(_INSERT, astuple(verification))
    if verification.result != "ok":
        about = {"result": verification.result, "error": verification.detail}
        detail = msgspec.json.encode(about).decode()
        append_events(db, [NewEvent(verification.at, "verification_failed", detail=detail)])


def read_last_verification(db: Connection) -> Verification | None:
    """Return the newest row, or None if the daemon has not verified this database.

    Raises:
        DamagedRecord: If the row is not what tagsync wrote.
    """
    row = db.execute(_LAST).fetchone()
    last: Verification | None = decode(row, Verification | None, "the last verification")
    return last
