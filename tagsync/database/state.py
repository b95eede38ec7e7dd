"""The recorded state of one repository, as a poll needs it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.errors import DamagedRecord
from tagsync.escaping import truncate
from tagsync.models import FIELDS, Repository, Tag

TAG_COLUMNS: Final = ("tag", *FIELDS)
"""The columns of ``tags`` that a listing determines: the attributes of `Tag`."""

_STATE: Final = """
    SELECT id, last_attempt_at, last_complete_at, listing_hash, not_before, unlogged_from, version,
           failures,
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1)
    FROM repositories AS r WHERE registry = ? AND name = ?
"""
_HELD: Final = """
    SELECT outcome, reason_key, polls FROM observations
    WHERE repository_id = ? AND outcome <> 'failed' ORDER BY id DESC
"""
_TAGS: Final = f"""
    SELECT {", ".join(TAG_COLUMNS)} FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
"""  # noqa: S608  constants

_DOES_NOT_DECODE: Final = (
    *(ArithmeticError, LookupError, RecursionError, TypeError, ValueError),
    msgspec.MsgspecError,
)

_BOOLEANS: Final = tuple(TAG_COLUMNS.index(name) for name in ("is_trusted", "scanned"))


class RepositoryState(msgspec.Struct, frozen=True):
    """A repository's row, and how many of its newest listings were held for one reason.

    Attributes:
        id: None if the repository was never polled.
        version: Number of complete listings, recorded or held. If it has not changed since a poll
            began, no other listing was recorded meanwhile (optimistic check).
        tags: Number of tags in the last recorded listing.
        held_key: ``reason_key`` of the newest listings, if they are held.
        held_polls: How many of the newest listings in a row are held with this key. Failed polls
            between them do not count, because they have no listing.
    """

    id: int | None = None
    last_attempt_at: str | None = None
    last_complete_at: str | None = None
    listing_hash: str | None = None
    not_before: str | None = None
    unlogged_from: int | None = None
    version: int = 0
    failures: int = 0
    tags: int | None = None
    held_key: str | None = None
    held_polls: int = 0


def read_state(db: Connection, repository: Repository) -> RepositoryState:
    """Return what is recorded of a repository.

    Raises:
        DamagedRecord: If a value is not of the form that tagsync writes.
    """
    row = db.execute(_STATE, (repository.registry, repository.name)).fetchone()
    if row is None:
        return RepositoryState()
    with decoding(f"repository {repository.full_name}"):
        values = zip(RepositoryState.__struct_fields__, (*row, *_held(db, row[0])), strict=True)
        state = msgspec.convert(dict(values), RepositoryState)
        for moment in (state.last_attempt_at, state.last_complete_at, state.not_before):
            check_timestamp(moment)
        return state


def read_tags(db: Connection, repository: Repository) -> dict[str, Tag]:
    """Return the stored tags of a repository by name, each as the last recorded listing had it."""
    rows = db.execute(_TAGS, (repository.registry, repository.name))
    with decoding(f"the tags of {repository.full_name}"):
        return {row[0]: _tag(row) for row in rows}


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Report a value that does not decode as a damaged record.

    SQLite keeps no checksums, so a damaged disk may return values that tagsync never wrote. Only
    the decoding of rows belongs in this block: elsewhere the same exceptions are bugs.

    Args:
        what: The row, for the message.

    Raises:
        DamagedRecord: If the block raises what decoding a wrong value raises.
    """
    try:
        yield
    except _DOES_NOT_DECODE as error:
        raise DamagedRecord(f"{what}: {truncate(str(error))}") from error


def check_timestamp(text: str | None) -> str | None:
    """Return the same text.

    Raises:
        ValueError: If it is not a timestamp written by tagsync.
        TypeError: If it is not text.
    """
    if text is not None and timestamp(parse_timestamp(text)) != text:
        raise ValueError(f"{text!r} is not a timestamp")
    return text


def _held(db: Connection, repository_id: int) -> tuple[str | None, int]:
    """Return the key for which the newest listings are held, and how many in a row are."""
    key, count = None, 0
    for outcome, reason_key, polls in db.execute(_HELD, (repository_id,)):
        if outcome != "held" or (count and reason_key != key):
            break
        key, count = reason_key, count + polls
    return key, count


def _tag(row: Sequence[Any]) -> Tag:
    """Return the tag of a row. SQLite stores booleans as 0 and 1; the history shows booleans."""
    if not isinstance(row[0], str):
        raise TypeError(f"{row[0]!r} is not a name")
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)
