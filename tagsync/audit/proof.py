"""The newest change, and the newest change that a witness has a hash of."""

from collections.abc import Collection
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode

_NEWEST_SQL: Final = "SELECT id, observed_at FROM changes ORDER BY id DESC LIMIT 1"
_WITNESSED_SQL: Final = """
    WITH given(hash) AS (SELECT value FROM json_each(?))
    SELECT id, observed_at FROM changes
    WHERE id IN (SELECT id FROM changes WHERE hash IN given
                 UNION SELECT change_id FROM observations WHERE hash IN given)
    ORDER BY id DESC LIMIT 1
"""
"""The hash of an observation covers the hash of the change that was the newest when it ended."""


class Link(msgspec.Struct, frozen=True, array_like=True):
    """A link of a hash chain: its number, and until when it says what happened."""

    number: Count
    at: Timestamp


class Proof(msgspec.Struct, frozen=True):
    """The newest links of the chain of changes.

    Attributes:
        newest: The newest change. None before the first change.
        witnessed: The newest change that a head of a witness covers. None without such a change.
    """

    newest: Link | None
    witnessed: Link | None


def find_proof(db: Connection, heads: Collection[str]) -> Proof:
    """Return the newest change, and the newest one that a head of a witness covers.

    Args:
        db: A connection in the transaction in which the database was verified.
        heads: Hashes, of either chain, that a witness outside the database has kept.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    given = msgspec.json.encode(list(heads)).decode()
    rows = (db.execute(_NEWEST_SQL).fetchone(), db.execute(_WITNESSED_SQL, (given,)).fetchone())
    newest, witnessed = (decode(row, Link | None, "the newest change") for row in rows)
    return Proof(newest, witnessed)
