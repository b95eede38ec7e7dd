"""Query the past: the tags at a moment, and the difference between two moments."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Literal

from tagsync.audit.certainty import (
    CERTAIN,
    Certainty,
    ListingCoverage,
    TagChange,
    TagState,
    certainty_of,
    least_certain,
    possible_states,
    tag_states,
)
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode, decode_fields
from tagsync.models import FIELDS, Repository

Row = dict[str, Any]

HISTORIES_SQL: Final = """
    SELECT tag, kind, fields, not_before, observed_at FROM changes
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND coalesce(not_before, '') < ?
    ORDER BY tag, id
"""
"""A query for the changes of a repository that may have happened before a moment, by tag.

The parameters are the name of the registry, the name of the repository and the moment.
"""

_HISTORIES_OF_TAGS_SQL: Final = HISTORIES_SQL.replace(
    "ORDER BY", "AND tag IN (SELECT value FROM json_each(?)) ORDER BY"
)

_TAG_NAMES_SQL: Final = """
    WITH RECURSIVE
        number (id) AS (SELECT id FROM repositories WHERE registry = :registry AND name = :name),
        names (tag) AS (
            SELECT (SELECT min(tag) FROM changes
                    WHERE repository_id = (SELECT id FROM number) AND tag > :after)
            UNION ALL
            SELECT (SELECT min(tag) FROM changes
                    WHERE repository_id = (SELECT id FROM number) AND tag > names.tag)
            FROM names WHERE names.tag IS NOT NULL
            LIMIT :limit
        )
    SELECT tag FROM names WHERE tag IS NOT NULL
"""
"""A query for tags that were ever recorded, with one look-up in the index for each."""

_COVERED_SQL: Final = """
    SELECT first_at, last_at FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND outcome = 'ok'
"""

_UNRESOLVED_SQL: Final = """
    SELECT tag, unresolved_since FROM tags
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND unresolved_since < ? AND digest IS NOT NULL
"""
"""A query for the tags whose recorded digest no listing has confirmed since a time.

The parameters are the name of the registry, the name of the repository and the moment of the query.
"""


def tag_names(db: Connection, repository: Repository, after: str, limit: int) -> list[str]:
    """Return the tags of a repository that were ever recorded, in alphabetical order.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        after: Leave out the tags up to this one.
        limit: Maximum number of tags.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = db.execute(
        _TAG_NAMES_SQL,
        {
            "registry": repository.registry,
            "name": repository.name,
            "after": after,
            "limit": limit,
        },
    )
    names = [name for (name,) in rows]
    found: list[str] = decode(names, list[str], f"the changes of {repository.full_name}")
    return found


def tags_at(
    db: Connection, repository: Repository, moment: str, tags: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the image that each tag pointed to at a moment, and the certainty.

    If a tag may have been in several states at the moment, the result has a row for each of these
    states. In the row of a state in which the tag did not exist, ``present`` is False.

    If complete listings do not cover the moment and no tag is known for it, the result is one row
    that has no tag and shows only the certainty.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        moment: The time, as `tagsync.clock.timestamp` writes it.
        tags: The tags to read. None means all. This bounds the time of a page, because a query for
            all tags replays all changes of the repository. A row without a tag is about these tags.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    coverage = _coverage(db, repository).at(moment)
    found = False
    if coverage.level != "unknown":
        unresolved = _unresolved(db, repository, moment)
        for tag, history in _histories(db, repository, moment, tags):
            states = possible_states(history, moment)
            if any(state.fields is not None for state in states):
                found = True
                certainty = certainty_of(states) if coverage == CERTAIN else coverage
                certainty = least_certain(certainty, unresolved.get(tag, CERTAIN))
                yield from (_state_row(repository, tag, state, certainty) for state in states)
    if not found and coverage != CERTAIN:
        yield _state_row(repository, None, None, coverage)


def diff(
    db: Connection,
    repository: Repository,
    start: str,
    end: str | None,
    tags: Sequence[str] | None = None,
) -> Iterator[Row]:
    """Yield the net difference between two moments, and the certainty.

    The result has a row for each tag whose states at the two moments differ. If the tag may have
    been in several states at one of the moments, the result has a row for each possible pair of
    different states.

    If complete listings do not cover one of the moments, the first row has no tag and shows only
    the certainty.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        start: The first moment, as `tagsync.clock.timestamp` writes it.
        end: The second moment in the same form. None means the time of the last complete listing,
            or ``start`` if the last complete listing was earlier.
        tags: The tags to read, as in `tags_at`.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    coverage = _coverage(db, repository)
    until = end or max(start, coverage.last or start)
    covered = least_certain(coverage.at(start), coverage.at(until))
    if covered != CERTAIN:
        yield _difference_row(repository, None, None, None, covered)
    if covered.level == "unknown":
        return
    unresolved = _unresolved(db, repository, until)
    for tag, history in _histories(db, repository, until, tags):
        before, after = possible_states(history, start), possible_states(history, until)
        certainty = least_certain(
            covered, certainty_of(before), certainty_of(after), unresolved.get(tag, CERTAIN)
        )
        for old, new in _pairs(before, after):
            yield _difference_row(repository, tag, old, new, certainty)


def _coverage(db: Connection, repository: Repository) -> ListingCoverage:
    rows = db.execute(_COVERED_SQL, (repository.registry, repository.name))
    what = f"the observations of {repository.full_name}"
    return ListingCoverage(decode(rows.fetchall(), list[tuple[Timestamp, Timestamp]], what))


def _unresolved(db: Connection, repository: Repository, moment: str) -> dict[str, Certainty]:
    """Return how certain the digests of unresolved tags are at a moment, by tag."""
    rows = db.execute(_UNRESOLVED_SQL, (repository.registry, repository.name, moment))
    what = f"the tags of {repository.full_name}"
    since = decode(rows.fetchall(), list[tuple[str, Timestamp]], what)
    return {tag: Certainty("not observed", begins) for tag, begins in since}


def _histories(
    db: Connection, repository: Repository, moment: str, tags: Sequence[str] | None
) -> Iterator[tuple[str, list[TagState]]]:
    """Yield each tag, and the states that the tag may have reached before a moment."""
    sql = HISTORIES_SQL if tags is None else _HISTORIES_OF_TAGS_SQL
    narrowed = () if tags is None else (json.dumps(tags),)
    rows = db.execute(sql, (repository.registry, repository.name, moment, *narrowed))
    for tag, changes in groupby(rows, key=itemgetter(0)):
        what = f"the changes of {repository.full_name} tag {tag!r}"
        yield tag, tag_states(_tag_change(change[1:], what) for change in changes)


def _tag_change(row: Sequence[Any], what: str) -> TagChange:
    kind, text, not_before, observed_at = decode(row, _ChangeRow, what)
    return TagChange(kind, decode_fields(text, what), not_before, observed_at)


_ChangeRow = tuple[Literal["added", "updated", "deleted"], str, Timestamp | None, Timestamp]
"""The columns of `HISTORIES_SQL`, without the tag."""


def _state_row(
    repository: Repository, tag: str | None, state: TagState | None, certainty: Certainty
) -> Row:
    fields = (state.fields if state else None) or {}
    return {
        "repository": repository.full_name,
        "tag": tag,
        **{name: fields.get(name) for name in ("digest", "image_id", "size", "updated")},
        "changed_at": (state.observed_at if state else None) or None,
        "present": None if state is None else state.fields is not None,
        **_certainty_columns(certainty),
    }


def _pairs(
    before: Sequence[TagState], after: Sequence[TagState]
) -> Iterator[tuple[TagState, TagState]]:
    """Yield each pair of different states in which the second may follow the first."""
    for old in before:
        for new in after:
            if new.observed_at >= old.observed_at and new.fields != old.fields:
                yield old, new


def _difference_row(
    repository: Repository,
    tag: str | None,
    old: TagState | None,
    new: TagState | None,
    certainty: Certainty,
) -> Row:
    before, after = (state.fields if state else None for state in (old, new))
    kind = "added" if before is None else "deleted" if after is None else "updated"
    was, became = before or {}, after or {}
    fields = {
        name: (was.get(name), became.get(name))
        for name in FIELDS
        if was.get(name) != became.get(name)
    }
    return {
        "repository": repository.full_name,
        "tag": tag,
        "kind": None if tag is None else kind,
        "old_digest": was.get("digest"),
        "new_digest": became.get("digest"),
        "fields": None if tag is None else fields,
        **_certainty_columns(certainty),
    }


def _certainty_columns(certainty: Certainty) -> Row:
    return {
        "certainty": certainty.level,
        "unsure_from": certainty.start,
        "unsure_until": certainty.end,
    }
