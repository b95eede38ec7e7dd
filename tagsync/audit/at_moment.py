"""Queries about the past: what tags pointed to at a moment, and the difference of two moments."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from tagsync.audit.certainty import (
    CERTAIN,
    Certainty,
    ChangeRow,
    ListingCoverage,
    Version,
    certainty_of,
    least_certain,
    possible,
    versions,
)
from tagsync.database.connection import Connection
from tagsync.database.state import decoding
from tagsync.models import FIELDS, Repository

Row = dict[str, Any]

HISTORIES_SQL: Final = """
    SELECT tag, kind, fields, not_before, observed_at FROM changes
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND coalesce(not_before, '') < ?
    ORDER BY tag, id
"""
"""Every change of a repository that may have happened before a moment, ordered by tag."""

_COVERED_SQL: Final = """
    SELECT first_at, last_at FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
          AND outcome = 'ok'
"""


def tags_at(db: Connection, repository: Repository, moment: str) -> Iterator[Row]:
    """Yield what each tag of a repository pointed to at a moment, and how certain that is.

    A tag that may have been in several states has a row for each. If ``present`` is False, the tag
    did not exist in that state. If nothing is known about the repository, its only row has no tag.

    Args:
        db: Open for reading.
        repository: A recorded one.
        moment: As `tagsync.clock.timestamp` writes it.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    coverage = _coverage(db, repository).at(moment)
    found = False
    if coverage.level != "unknown":
        for tag, history in _histories(db, repository, moment):
            states = possible(history, moment)
            if any(state.fields is not None for state in states):
                found = True
                certainty = certainty_of(states) if coverage == CERTAIN else coverage
                yield from (_state_row(repository, tag, state, certainty) for state in states)
    if not found and coverage != CERTAIN:
        yield _state_row(repository, None, None, coverage)


def diff(db: Connection, repository: Repository, start: str, end: str | None) -> Iterator[Row]:
    """Yield the net difference of a repository between two moments, and how certain that is.

    A tag that may have been in several states has a row for each pair of them that differs. If a
    moment is not covered by listings, the first row has no tag and says so.

    Args:
        db: Open for reading.
        repository: A recorded one.
        start: As `tagsync.clock.timestamp` writes it.
        end: Likewise. None for the last complete listing.

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
    for tag, history in _histories(db, repository, until):
        before, after = possible(history, start), possible(history, until)
        certainty = least_certain(covered, certainty_of(before), certainty_of(after))
        for old, new in _pairs(before, after):
            yield _difference_row(repository, tag, old, new, certainty)


def _coverage(db: Connection, repository: Repository) -> ListingCoverage:
    rows = db.execute(_COVERED_SQL, (repository.registry, repository.name))
    with decoding(f"the observations of {repository.full_name}"):
        return ListingCoverage(msgspec.convert(rows.fetchall(), list[tuple[str, str]]))


def _histories(
    db: Connection, repository: Repository, moment: str
) -> Iterator[tuple[str, list[Version]]]:
    """Yield each tag with its states, as far as they may have been reached at a moment."""
    rows = db.execute(HISTORIES_SQL, (repository.registry, repository.name, moment))
    for tag, changes in groupby(rows, key=itemgetter(0)):
        with decoding(f"the changes of {repository.full_name} tag {tag!r}"):
            history = versions(msgspec.convert(change[1:], ChangeRow) for change in changes)
        yield tag, history


def _state_row(
    repository: Repository, tag: str | None, state: Version | None, certainty: Certainty
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
    before: Sequence[Version], after: Sequence[Version]
) -> Iterator[tuple[Version, Version]]:
    """Yield each pair of states that differ and of which the second may follow the first."""
    for old in before:
        for new in after:
            if new.observed_at >= old.observed_at and new.fields != old.fields:
                yield old, new


def _difference_row(
    repository: Repository,
    tag: str | None,
    old: Version | None,
    new: Version | None,
    certainty: Certainty,
) -> Row:
    before, after = (version.fields if version else None for version in (old, new))
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
        "fields": None if tag is None else msgspec.json.encode(fields).decode(),
        **_certainty_columns(certainty),
    }


def _certainty_columns(certainty: Certainty) -> Row:
    return {
        "certainty": certainty.level,
        "unsure_from": certainty.start,
        "unsure_until": certainty.end,
    }
