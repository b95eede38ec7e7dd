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
            ORDER BY id DESC LIMIT 1),
           EXISTS (
               SELECT 1 FROM observations WHERE id IN (
                   (SELECT id FROM observations WHERE repository_id = r.id AND outcome = 'ok'
                    ORDER BY id DESC LIMIT 1),
                   (SELECT id FROM observations WHERE repository_id = r.id AND outcome <> 'failed'
                    ORDER BY id DESC LIMIT 1)
               ) AND instr(reasons, 'alternating')
           )
    FROM repositories AS r WHERE registry = ? AND name = ?
"""  # noqa: S608  constants
_TAGS: Final = f"""
    SELECT {", ".join(TAG_COLUMNS)} FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
"""  # noqa: S608  constants

_LEFT_AT: Final = """
    SELECT observed_at FROM changes AS c JOIN repositories AS r ON r.id = repository_id
    WHERE registry = ?1 AND name = ?2 AND tag = ?3 AND old_digest = ?4
      AND NOT EXISTS (
          SELECT 1 FROM tags WHERE repository_id = r.id AND tag = ?3 AND digest = ?4
      )
    ORDER BY c.id DESC LIMIT 1
"""

_BOOLEANS: Final = tuple(TAG_COLUMNS.index(name) for name in ("is_trusted", "scanned"))


class RepositoryState(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``repositories``, and the number of tags in the last recorded listing.

    The other attributes are columns of ``repositories``, in the order of its checksum.

    Attributes:
        id: None if the repository was never polled.
        version: Number of complete listings, recorded or held. If it has not changed since a poll
            began, no other listing was recorded or held meanwhile (optimistic check).
        tags: Number of tags in the last recorded listing. None if no listing was recorded.
        alternating: Whether the last recorded listing, or the newest one if that was held, is part
            of an alternation.
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
    alternating: bool = False


class Freshness(NamedTuple):
    """How fresh the record of a repository is.

    Attributes:
        last_complete_at: Time of the last recorded listing. None if no listing was recorded.
        tags: Number of stored tags.
        alternating: Whether the newest listing is part of an alternation.
    """

    last_complete_at: str | None = None
    tags: int = 0
    alternating: bool = False


def read_state(db: Connection, repository: Repository) -> RepositoryState:
    """Return the recorded state of a repository; empty if it was never polled.

    Raises:
        DamagedRecord: If the row does not have its checksum, or a value does not have the form in
            which tagsync writes it.
    """
    row = db.execute(_STATE, (repository.registry, repository.name)).fetchone()
    if row is None:
        return RepositoryState()
    recorded, number, registry, name, *columns, tags, alternating = row
    what = f"repository {repository.full_name}"
    if checksum((number, registry, name, *columns)) != recorded:
        raise damaged(what, "its hash is not that of its columns")
    values = (number, *columns, tags, bool(alternating))
    state: RepositoryState = decode(values, RepositoryState, what)
    for moment in (state.last_attempt_at, state.last_complete_at, state.not_before):
        check_timestamp(moment, what)
    return state


def row_values(repository: Repository, state: RepositoryState) -> tuple[Any, ...]:
    """Return a repository's row: its `REPOSITORY_COLUMNS`, and their checksum."""
    number, *columns, _, _ = astuple(state)
    row = (number, repository.registry, repository.name, *columns)
    return (*row, checksum(row))


def read_tags(db: Connection, repository: Repository) -> dict[str, Tag]:
    """Return a repository's tags by name, as the last recorded listing had them."""
    rows = db.execute(_TAGS, (repository.registry, repository.name))
    return {row[0]: _tag(row, repository) for row in rows}


def read_left_at(db: Connection, repository: Repository, tag: str, digest: str) -> str | None:
    """Return when a tag was observed to have left a digest.

    Returns:
        None if it points to the digest, or is not known to have pointed to it.

    Raises:
        DamagedRecord: If the time does not have the form in which tagsync writes it.
    """
    row = db.execute(_LEFT_AT, (repository.registry, repository.name, tag, digest)).fetchone()
    return check_timestamp(row[0], f"a change of {repository.full_name}") if row else None


def _tag(row: Sequence[Any], repository: Repository) -> Tag:
    """Return the tag of a row. SQLite stores booleans as 0 and 1."""
    if not isinstance(row[0], str):
        raise damaged(f"the tags of {repository.full_name}", f"{row[0]!r} is not a name")
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)
