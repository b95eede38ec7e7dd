"""Pure: the hash that chains each change of the history to the one before it."""

from hashlib import sha256
from typing import Final

import msgspec

GENESIS: Final = "0" * 64
"""Stands for the hash before the first change."""

_encode = msgspec.json.Encoder().encode


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
    """The hash of a change: SHA-256, in hexadecimal, of the arguments as one JSON array.

    The array is in UTF-8, without spaces, and escapes only what JSON requires; Python's
    ``json.dumps(…, ensure_ascii=False, separators=(",", ":"))`` writes the same bytes.

    ``previous`` is the hash of the change before it, or `GENESIS`; ``repository`` the full name, so
    that renaming a repository breaks the chain too; ``fields`` the JSON text as the column holds
    it; everything else a column of ``changes``.
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
