"""The newest links of the hash chain, and the newest of which a witness has the hash."""

from collections.abc import Collection
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode

_NEWEST_SQL: Final = "SELECT id, observed_at FROM changes ORDER BY id DESC LIMIT 1"
_WITNESSED_SQL: Final = """
    SELECT id, observed_at FROM changes WHERE hash IN (SELECT value FROM json_each(?))
    ORDER BY id DESC LIMIT 1
"""


class Link(msgspec.Struct, frozen=True, array_like=True):
    """A link of a hash chain: its number, and until when it says what happened."""

    number: Count
    at: Timestamp


class Proof(msgspec.Struct, frozen=True):
    """The newest links of the chain of changes.

    Attributes:
        newest: The newest change. None before the first change.
        witnessed: The newest change whose hash a witness has kept. None without such a change.
    """

    newest: Link | None
    witnessed: Link | None


def find_proof(db: Connection, heads: Collection[str]) -> Proof:
    """Return the newest change, and the newest one of which a witness has the hash.

    Args:
        db: A connection in the transaction in which the database was verified.
        heads: Hashes of changes that a witness outside the database has kept.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    given = msgspec.json.encode(list(heads)).decode()
    rows = (db.execute(_NEWEST_SQL).fetchone(), db.execute(_WITNESSED_SQL, (given,)).fetchone())
    newest, witnessed = (decode(row, Link | None, "the newest change") for row in rows)
    return Proof(newest, witnessed)
