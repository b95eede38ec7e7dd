"""The recorded state of one repository, as a poll needs it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec

from tagsync.clock import parse_timestamp
from tagsync.database.connection import Connection
from tagsync.errors import DamagedRecord
from tagsync.escaping import truncate
from tagsync.models import FIELDS, Repository, Tag

TAG_COLUMNS: Final = ("tag", *FIELDS)
"""The columns of ``tags`` whose values come from a listing: the attributes of `Tag`."""

_STATE: Final = """
    SELECT id, last_attempt_at, last_complete_at, listing_hash, not_before, unlogged_from, version,
           failures,
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1)
    FROM repositories AS r WHERE registry = ? AND name = ?
"""
_HELD: Final = """
    SELECT outcome, reason_key, polls FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND outcome <> 'failed' ORDER BY id DESC
"""
_TAGS: Final = f"""
    SELECT {", ".join(TAG_COLUMNS)} FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
"""  # noqa: S608  constants

_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

_DECODING_ERRORS: Final = (
    *(ArithmeticError, LookupError, RecursionError, TypeError, ValueError),
    msgspec.MsgspecError,
)

_BOOLEANS: Final = tuple(TAG_COLUMNS.index(name) for name in ("is_trusted", "scanned"))


class RepositoryState(msgspec.Struct, frozen=True):
    """A row of ``repositories``, and the number of tags in the last recorded listing.

    The other attributes are columns of ``repositories``.

    Attributes:
        id: None if the repository was never polled.
        version: Number of complete listings, recorded or held. If it has not changed since a poll
            began, no other listing was recorded or held meanwhile (optimistic check).
        tags: Number of tags in the last recorded listing. None if no listing was recorded.
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


class HeldRun(NamedTuple):
    """The newest consecutive listings that were held for the same deletions.

    Attributes:
        reason_key: Fingerprint of the deletions. None if the newest listing was not held.
        polls: Number of these listings. Failed polls between them do not count, because they have
            no listing.
    """

    reason_key: str | None = None
    polls: int = 0


def read_state(db: Connection, repository: Repository) -> RepositoryState:
    """Return the recorded state of a repository; empty if it was never polled.

    Raises:
        DamagedRecord: If a value does not have the form in which tagsync writes it.
    """
    row = db.execute(_STATE, (repository.registry, repository.name)).fetchone()
    if row is None:
        return RepositoryState()
    with decoding(f"repository {repository.full_name}"):
        values = zip(RepositoryState.__struct_fields__, row, strict=True)
        state = msgspec.convert(dict(values), RepositoryState)
        for moment in (state.last_attempt_at, state.last_complete_at, state.not_before):
            check_timestamp(moment)
        return state


def read_held_run(db: Connection, repository: Repository) -> HeldRun:
    """Return a repository's newest listings that were held for the same deletions."""
    key, count = None, 0
    rows = db.execute(_HELD, (repository.registry, repository.name))
    for outcome, reason_key, polls in rows:
        if outcome != "held" or (count and reason_key != key):
            break
        key, count = reason_key, count + polls
    return HeldRun(key, count)


def read_tags(db: Connection, repository: Repository) -> dict[str, Tag]:
    """Return a repository's tags by name, as the last recorded listing had them."""
    rows = db.execute(_TAGS, (repository.registry, repository.name))
    with decoding(f"the tags of {repository.full_name}"):
        return {row[0]: _tag(row) for row in rows}


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Raise `DamagedRecord` if a value of a row cannot be decoded in the block.

    SQLite keeps no checksums, so a damaged disk may return values that tagsync never wrote. Only
    code that decodes rows belongs in the block: in other code the same exceptions are bugs.

    Args:
        what: The name of the row, for the message.

    Raises:
        DamagedRecord: If the block raises one of the exceptions that a wrong value causes.
    """
    try:
        yield
    except _DECODING_ERRORS as error:
        raise DamagedRecord(f"{what}: {truncate(str(error))}") from error


def check_timestamp(text: str | None) -> str | None:
    """Return the argument, which has to be a timestamp written by tagsync, or None.

    Raises:
        ValueError: If the text is not such a timestamp.
        TypeError: If the argument is of another type.
    """
    if text is not None:
        if not _TIMESTAMP.fullmatch(text):
            raise ValueError(f"{text!r} is not a timestamp")
        parse_timestamp(text)
    return text


def _tag(row: Sequence[Any]) -> Tag:
    """Return the tag of a row. SQLite stores booleans as 0 and 1."""
    if not isinstance(row[0], str):
        raise TypeError(f"{row[0]!r} is not the name of a tag")
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)
