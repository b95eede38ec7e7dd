"""The recorded state of one repository, as a poll needs it."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import astuple

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, check_timestamp, damaged, decode
from tagsync.database.hash_chain import REPOSITORY_COLUMNS, checksum
from tagsync.models import FIELDS, Repository, Tag

TAG_COLUMNS: Final = ("tag", *FIELDS)
"""The columns of ``tags`` whose values come from a listing: the attributes of `Tag`."""

_STATE: Final = f"""
    SELECT hash, {", ".join(REPOSITORY_COLUMNS)},
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1)
    FROM repositories AS r WHERE registry = ? AND name = ?
"""  # noqa: S608  constants
_HELD: Final = """
    SELECT outcome, reason_key, polls FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND outcome <> 'failed' ORDER BY id DESC
"""
_TAGS: Final = f"""
    SELECT {", ".join(TAG_COLUMNS)} FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
"""  # noqa: S608  constants

_BOOLEANS: Final = tuple(TAG_COLUMNS.index(name) for name in ("is_trusted", "scanned"))


class RepositoryState(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``repositories``, and the number of tags in the last recorded listing.

    The other attributes are columns of ``repositories``, in the order of its checksum.

    Attributes:
        id: None if the repository was never polled.
        version: Number of complete listings, recorded or held. If it has not changed since a poll
            began, no other listing was recorded or held meanwhile (optimistic check).
        tags: Number of tags in the last recorded listing. None if no listing was recorded.
    """

    id: int | None = None
    first_observed_at: str | None = None
    last_attempt_at: str | None = None
    last_complete_at: str | None = None
    listing_hash: str | None = None
    version: Count = 0
    failures: Count = 0
    last_error: str | None = None
    not_before: str | None = None
    unlogged_from: Count | None = None
    tags: Count | None = None


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
        DamagedRecord: If the row does not have its checksum, or a value does not have the form in
            which tagsync writes it.
    """
    row = db.execute(_STATE, (repository.registry, repository.name)).fetchone()
    if row is None:
        return RepositoryState()
    recorded, number, registry, name, *columns, tags = row
    what = f"repository {repository.full_name}"
    if checksum((number, registry, name, *columns)) != recorded:
        raise damaged(what, "its hash is not that of its columns")
    state: RepositoryState = decode((number, *columns, tags), RepositoryState, what)
    for moment in (state.last_attempt_at, state.last_complete_at, state.not_before):
        check_timestamp(moment, what)
    return state


def row_values(repository: Repository, state: RepositoryState) -> tuple[Any, ...]:
    """Return a repository's row: its `REPOSITORY_COLUMNS`, and their checksum."""
    number, *columns, _ = astuple(state)
    row = (number, repository.registry, repository.name, *columns)
    return (*row, checksum(row))


def read_held_run(db: Connection, repository: Repository) -> HeldRun:
    """Return a repository's newest listings that were held for the same deletions."""
    key, count = None, 0
    what = f"the observations of {repository.full_name}"
    for row in db.execute(_HELD, (repository.registry, repository.name)):
        outcome, reason_key, polls = decode(row, tuple[str, str | None, Count], what)
        if outcome != "held" or (count and reason_key != key):
            break
        key, count = reason_key, count + polls
    return HeldRun(key, count)


def read_tags(db: Connection, repository: Repository) -> dict[str, Tag]:
    """Return a repository's tags by name, as the last recorded listing had them."""
    rows = db.execute(_TAGS, (repository.registry, repository.name))
    return {row[0]: _tag(row, repository) for row in rows}


def _tag(row: Sequence[Any], repository: Repository) -> Tag:
    """Return the tag of a row. SQLite stores booleans as 0 and 1."""
    if not isinstance(row[0], str):
        raise damaged(f"the tags of {repository.full_name}", f"{row[0]!r} is not a name")
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)
