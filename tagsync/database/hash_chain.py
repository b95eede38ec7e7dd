"""The hash chain: each change's hash covers the previous change's hash."""

import sqlite3
from hashlib import sha256
from typing import Final

import msgspec

from tagsync.database.decoding import Count, decode

GENESIS: Final = "0" * 64
"""The first change uses this as the hash of the change before it."""

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The newest change and its hash, which a witness outside the database can keep.

    Before the first change, ``change_id`` is 0 and ``hash`` is `GENESIS`.
    """

    change_id: Count
    hash: str


def read_head(db: sqlite3.Connection) -> Head:
    """Return the head of the chain: the newest change of all repositories."""
    row = db.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        return Head(0, GENESIS)
    head: Head = decode(row, Head, "the newest change")
    return head


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
    """Return the hash of a change.

    The hash is the SHA-256, in hexadecimal, of a JSON array of all arguments in their order. The
    array is in UTF-8, without spaces, and escapes only what JSON requires. Python's
    ``json.dumps(…, ensure_ascii=False, separators=(",", ":"))`` writes the same bytes.

    Args:
        previous: The hash of the previous change, or `GENESIS`.
        change_id: The value of the column ``id``.
        repository: The repository's full name, so that renaming a repository breaks the chain too.
        tag: The value of the column ``tag``.
        kind: The value of the column ``kind``.
        old_digest: The value of the column ``old_digest``.
        new_digest: The value of the column ``new_digest``.
        fields: The JSON text, exactly as the column ``fields`` has it.
        not_before: The value of the column ``not_before``.
        observed_at: The value of the column ``observed_at``.
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
