"""The two hash chains, of changes and of ended observations, and the checksum of a repository.

All hashes are SHA-256, in hexadecimal, of a JSON array. The array is in UTF-8, without spaces, and
escapes only what JSON requires. Python's
``json.dumps(…, ensure_ascii=False, separators=(",", ":"))`` writes the same bytes.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from tagsync.database.decoding import Count, decode

GENESIS: Final = "0" * 64
"""The first link of each chain uses this as the hash of the link before it."""

OBSERVATION_COLUMNS: Final = (
    "repository_id",
    "outcome",
    "reasons",
    "reason_key",
    "source",
    "clock_said",
    "detail",
    "first_at",
    "last_at",
    "polls",
    "tags",
)
"""The columns of ``observations`` that have their final values before the row ends, in order."""

REPOSITORY_COLUMNS: Final = (
    "id",
    "registry",
    "name",
    "first_observed_at",
    "last_attempt_at",
    "last_complete_at",
    "listing_hash",
    "version",
    "failures",
    "last_error",
    "not_before",
    "unlogged_from",
)
"""The columns of ``repositories`` that its checksum covers, in order."""

_CHANGE_SQL: Final = "SELECT hash FROM changes WHERE id = ?"
_OBSERVATION_SQL: Final = "SELECT hash FROM observations WHERE ended = ?"

_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True, array_like=True):
    """The newest change and its hash, which a witness outside the database can keep.

    Before the first change, ``change_id`` is 0 and ``hash`` is `GENESIS`.
    """

    change_id: Count
    hash: str


class ObservationsHead(msgspec.Struct, frozen=True, array_like=True):
    """The observation that ended last, and its hash.

    Before the first observation has ended, ``ended`` is 0 and ``hash`` is `GENESIS`.
    """

    ended: Count
    hash: str


class Heads(msgspec.Struct, frozen=True):
    """The heads of both chains."""

    changes: Head
    observations: ObservationsHead

    def log_fields(self) -> dict[str, str | int]:
        """Return the heads as the fields of a log line."""
        return {
            "change_id": self.changes.change_id,
            "head": self.changes.hash,
            "ended": self.observations.ended,
            "observations_head": self.observations.hash,
        }


def read_heads(db: sqlite3.Connection) -> Heads:
    """Return the heads of both chains."""
    return Heads(read_head(db), _read_observations_head(db))


def has_heads(db: sqlite3.Connection, heads: Heads) -> bool:
    """Return whether the chains of a database contain the links that these heads name."""
    changes, observations = heads.changes, heads.observations
    return all(
        not number or db.execute(sql, (number,)).fetchone() == (expected,)
        for sql, number, expected in (
            (_CHANGE_SQL, changes.change_id, changes.hash),
            (
                "SELECT hash FROM observations WHERE ended = ?",
                observations.ended,
                observations.hash,
            ),
        )
    )


def read_head(db: sqlite3.Connection) -> Head:
    """Return the head of the chain of changes: the newest change of all repositories."""
    row = db.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        return Head(0, GENESIS)
    head: Head = decode(row, Head, "the newest change")
    return head


def _read_observations_head(db: sqlite3.Connection) -> ObservationsHead:
    row = db.execute(
        "SELECT ended, hash FROM observations WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return ObservationsHead(0, GENESIS)
    head: ObservationsHead = decode(row, ObservationsHead, "the observation that ended last")
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
    """Return the hash of a change: of an array of all arguments in their order.

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
    return _hash_of(content)


def link_observation(
    previous: str,
    ended: int,
    repository: str | None,
    columns: Sequence[object],
    change_id: int | None,
    change_hash: str,
) -> str:
    """Return the hash of an observation that ends.

    It is the hash of an array of all arguments in their order, with each of the columns as an
    element of the array.

    Args:
        previous: The hash of the observation that ended before it, or `GENESIS`.
        ended: The value of the column ``ended``.
        repository: The full name of the repository. None if the repository's row is missing.
        columns: The values of `OBSERVATION_COLUMNS`.
        change_id: The value of the column ``change_id``.
        change_hash: The hash of that change, or `GENESIS` if there was none.
    """
    return _hash_of((previous, ended, repository, *columns, change_id, change_hash))


def checksum(columns: Sequence[object]) -> str:
    """Return the checksum of a repository's row, from its `REPOSITORY_COLUMNS`."""
    return _hash_of(columns)


def _hash_of(content: Sequence[object]) -> str:
    return sha256(_encode(content)).hexdigest()
