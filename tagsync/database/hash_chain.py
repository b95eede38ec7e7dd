"""The hash chain of the history: each change is chained to the one before it."""

import sqlite3
from hashlib import sha256
from typing import Final

import msgspec

GENESIS: Final = "0" * 64
"""The hash before the first change."""

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """The newest link of the chain, which a witness outside the database remembers.

    Before the first change ``change_id`` is 0 and ``hash`` is `GENESIS`.
    """

    change_id: int
    hash: str


def read_head(db: sqlite3.Connection) -> Head:
    """Return the newest change of all repositories."""
    row = db.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, GENESIS)


def link(
    previous: str,
    change_id: int,
    repository: str,
    tag: str,
    kind: str,
    old_digest: str | None,
    new_digest: str | None,
    fields: str,
    not_before: str | None,
    observed_at: str,
) -> str:
    """Return the hash of a change: SHA-256 in hexadecimal of the arguments as one JSON array.

    The array is in UTF-8, without spaces, and escapes only what JSON requires. Python's
    ``json.dumps(…, ensure_ascii=False, separators=(",", ":"))`` writes the same bytes.

    Args:
        previous: The hash of the change before it, or `GENESIS`.
        change_id: The column ``id``.
        repository: The full name, so that renaming a repository breaks the chain too.
        tag: As the column; so are all that follow.
        kind: As the column.
        old_digest: As the column.
        new_digest: As the column.
        fields: The JSON text exactly as the column holds it.
        not_before: As the column.
        observed_at: As the column.
    """
    content = (
        previous,
        change_id,
        repository,
        tag,
        kind,
        old_digest,
        new_digest,
        fields,
        not_before,
        observed_at,
    )
    return sha256(_encode(content)).hexdigest()
