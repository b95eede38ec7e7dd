"""Query the lanes of a chart: which digest each tag pointed to, and when.

Times are texts, as the database has them. An interval and its times are those of the view
``tag_history``. A query reads at most `MOST_CHANGES` changes of the range; in addition it looks up
the move before and the move after the range for each lane.
"""

import json
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from tagsync.audit.coverage_strips import CoverageGap, gaps_in
from tagsync.audit.ranges import Range
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode
from tagsync.errors import UnknownRepository
from tagsync.models import Kind, Repository

PAGE: Final = 40
"""Maximum number of lanes on a page."""

MOST_CHANGES: Final = 8_000
"""Maximum number of changes that a chart reads."""

MOST_SCANNED: Final = 5_000
"""Maximum number of changes that are read to find the tags of a page."""

MOST_COUNTED: Final = 10_000
"""Number of tags up to which the tags of a repository are counted."""

_MOVES: Final = "(kind <> 'updated' OR old_digest IS NOT new_digest)"
"""SQL condition for the changes that begin or end an interval."""

_REPOSITORY_SQL: Final = """
    SELECT id, not_before, first_observed_at, last_complete_at
    FROM repositories WHERE registry = ? AND name = ?
"""
_RECENT_SQL: Final = f"""
    SELECT id, tag, kind, observed_at, {_MOVES} AND NOT EXISTS (
        SELECT 1 FROM changes AS n
        WHERE n.repository_id = c.repository_id AND n.tag = c.tag AND n.id > c.id
              AND n.id <= :last
              AND (n.kind <> 'updated' OR n.old_digest IS NOT n.new_digest)
    ) AS last_move
    FROM changes AS c
    WHERE repository_id = :repository_id AND id < :before
    ORDER BY id DESC LIMIT :limit
"""  # noqa: S608  constants
_COUNT_SQL: Final = """
    WITH RECURSIVE names (tag) AS (
        SELECT min(tag) FROM changes WHERE repository_id = :repository_id
        UNION ALL
        SELECT (SELECT min(tag) FROM changes
                WHERE repository_id = :repository_id AND tag > names.tag)
        FROM names WHERE names.tag IS NOT NULL
        LIMIT :limit
    )
    SELECT count(tag) FROM names
"""
"""A query for the number of tags of a repository, with one look-up in the index for each."""

_COLUMNS: Final = "id, tag, kind, old_digest, new_digest, not_before, observed_at"
_NEWEST_SQL: Final = f"""
    SELECT {_COLUMNS} FROM changes
    WHERE repository_id = ? AND tag = ? AND id <= ? ORDER BY id DESC
"""  # noqa: S608  constants
_BEFORE_SQL: Final = f"""
    SELECT {_COLUMNS} FROM changes
    WHERE repository_id = ? AND tag = ? AND id < ? AND {_MOVES} ORDER BY id DESC LIMIT 1
"""  # noqa: S608  constants
_AFTER_SQL: Final = f"""
    SELECT {_COLUMNS} FROM changes
    WHERE repository_id = ? AND tag = ? AND id > ? AND {_MOVES} ORDER BY id LIMIT 1
"""  # noqa: S608  constants
_LAST_SQL: Final = """
    SELECT id FROM changes WHERE repository_id = ? AND observed_at <= ?
    ORDER BY id DESC LIMIT 1
"""
_UNRESOLVED_SQL: Final = """
    SELECT tag, digest, unresolved_since FROM tags
    WHERE repository_id = ? AND tag IN (SELECT value FROM json_each(?))
          AND digest IS NOT NULL AND unresolved_since IS NOT NULL
"""


class Interval(msgspec.Struct, frozen=True):
    """A time in which a tag pointed to one digest; see the view ``tag_history``.

    Attributes:
        change_id: The id of the change with which it began.
        digest: The digest. None if it was not resolved.
        previous: The digest to which the tag last pointed before, even if the tag was deleted in
            between. None if there is none, or if that was before the first interval of the lane.
        not_before: It began after this time. None if the tag existed when its repository was first
            listed.
        valid_from: It began no later than this time.
        still_at: The last time at which the tag is known to have pointed to the digest. None if
            the repository's row does not say it.
        valid_to: The end of the first listing with another state. None if there is none.
    """

    change_id: int
    digest: str | None
    previous: str | None
    not_before: str | None
    valid_from: str
    still_at: str | None
    valid_to: str | None


class Deletion(msgspec.Struct, frozen=True):
    """A deletion of a tag: after ``not_before``, and no later than ``observed_at``.

    Attributes:
        change_id: The id of the change.
        digest: The digest to which the tag last pointed. None if it was not resolved.
    """

    change_id: int
    digest: str | None
    not_before: str | None
    observed_at: str


class Lane(msgspec.Struct, frozen=True):
    """The intervals and deletions of a tag within a range, in time order.

    The first interval may begin before the range, and the last one may end after it.
    """

    tag: str
    intervals: tuple[Interval, ...]
    deletions: tuple[Deletion, ...]


class Lanes(msgspec.Struct, frozen=True):
    """One page of the lanes of a repository.

    Attributes:
        range: The range that the lanes cover.
        lanes: The lanes, the tag that moved last first. There are fewer than `PAGE` before the last
            page if `MOST_SCANNED` changes have no more tags.
        gaps: The gaps in coverage within the range, in time order.
        tags: Number of tags that were ever recorded. None if there are more than `MOST_COUNTED`.
        before: The cursor of the next page, for `lanes`. None on the last page.
    """

    range: Range
    lanes: tuple[Lane, ...]
    gaps: tuple[CoverageGap, ...]
    tags: int | None
    before: int | None


class _Repository(NamedTuple):
    id: int
    not_before: Timestamp | None
    first_observed_at: Timestamp | None
    last_complete_at: Timestamp | None


class _Step(msgspec.Struct, frozen=True, array_like=True):
    """The columns `_COLUMNS` of a change."""

    id: int
    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    not_before: Timestamp | None
    observed_at: Timestamp

    def moves(self) -> bool:
        """Whether the change begins or ends an interval, as `_MOVES` says."""
        return self.kind != "updated" or self.old_digest != self.new_digest


def lanes(
    db: Connection,
    repository: Repository,
    period: Range,
    before: int | None = None,
    *,
    most: int = MOST_CHANGES,
    scan: int = MOST_SCANNED,
) -> Lanes:
    """Return a page of the lanes of a repository.

    Tags that were deleted before the range, or first listed after it, are left out.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        period: The range. It is shortened if the tags of the page have more than ``most`` changes
            in it.
        before: The cursor that the page before returned. None means the first page.
        most: Maximum number of changes to read for the lanes.
        scan: Maximum number of changes to read to find the tags of the page.

    Raises:
        UnknownRepository: If the repository is not recorded.
        DamagedRecord: If a row is not what tagsync wrote.
    """
    recorded = _recorded(db, repository)
    last = _last_id(db, recorded.id, period.end)
    tags, cursor = _recent_tags(db, recorded.id, period, last, before, scan)
    covered, found = _read_lanes(db, recorded, tags, last, period, most)
    gaps, covered = gaps_in(db, recorded.id, repository.full_name, covered)
    (number,) = db.execute(
        _COUNT_SQL, {"repository_id": recorded.id, "limit": MOST_COUNTED + 2}
    ).fetchone()
    return Lanes(
        covered, tuple(found), tuple(gaps), number if number <= MOST_COUNTED else None, cursor
    )


def tag_lane(db: Connection, repository: Repository, tag: str, period: Range) -> Lanes:
    """Return the lane of one tag. Without any record of the tag, the lane is empty.

    The arguments and errors are those of `lanes`.
    """
    recorded = _recorded(db, repository)
    last = _last_id(db, recorded.id, period.end)
    covered, found = _read_lanes(db, recorded, [tag], last, period, MOST_CHANGES)
    gaps, covered = gaps_in(db, recorded.id, repository.full_name, covered)
    return Lanes(covered, tuple(found), tuple(gaps), 1, None)


def gaps(db: Connection, repository: Repository, period: Range) -> tuple[list[CoverageGap], Range]:
    """Return the gaps in coverage of a repository within a range; see `coverage_strips.gaps_in`.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
        UnknownRepository: If the repository is not recorded.
    """
    return gaps_in(db, _recorded(db, repository).id, repository.full_name, period)


def first_observed_at(db: Connection, repository: Repository) -> str | None:
    """Return the time of a repository's first complete listing, or None without one.

    Raises:
        UnknownRepository: If the repository is not recorded.
        DamagedRecord: If a row is not what tagsync wrote.
    """
    return _recorded(db, repository).first_observed_at


def last_complete_at(db: Connection, repository: Repository) -> str | None:
    """Return the time of a repository's last complete listing, or None without one.

    The errors are those of `first_observed_at`.
    """
    return _recorded(db, repository).last_complete_at


def _recorded(db: Connection, repository: Repository) -> _Repository:
    row = db.execute(_REPOSITORY_SQL, (repository.registry, repository.name)).fetchone()
    if row is None:
        known = [name for (name,) in db.execute("SELECT full_name FROM repositories LIMIT 10000")]
        raise UnknownRepository(repository.full_name, known)
    found: _Repository = decode(row, _Repository, f"repository {repository.full_name}")
    return found


def _last_id(db: Connection, repository_id: int, end: str) -> int:
    """Return the id of a repository's last change until a moment, or 0 if there is none."""
    row = db.execute(_LAST_SQL, (repository_id, end)).fetchone()
    return int(row[0]) if row else 0


def _recent_tags(
    db: Connection, repository_id: int, period: Range, last: int, before: int | None, scan: int
) -> tuple[list[str], int | None]:
    """Return the tags of a page, the one that moved last first, and the next page's cursor."""
    parameters = {
        "repository_id": repository_id,
        "last": last,
        "before": last + 1 if before is None else min(before, last + 1),
        "limit": scan,
    }
    tags: list[str] = []
    scanned, cursor = 0, None
    for number, tag, kind, observed_at, last_move in db.execute(_RECENT_SQL, parameters):
        scanned += 1
        if last_move and not (kind == "deleted" and observed_at <= period.start):
            if len(tags) == PAGE:
                return tags, cursor
            tags.append(decode(tag, str, f"change {number}"))
        cursor = number
    return tags, cursor if scanned == scan else None


def _read_lanes(
    db: Connection,
    repository: _Repository,
    tags: Sequence[str],
    last: int,
    period: Range,
    most: int,
) -> tuple[Range, list[Lane]]:
    """Return the lanes of these tags, and the range that they cover."""
    steps, covered = _steps(db, repository.id, tags, last, period, most)
    first = steps[0].id if steps else last + 1
    moves: dict[str, list[_Step]] = {tag: [] for tag in tags}
    for step in filter(_Step.moves, steps):
        moves[step.tag].append(step)
    ends = _open_ends(db, repository, tags)
    lanes = []
    for tag, inside in moves.items():
        of_tag = (repository.id, tag)
        all_moves = [*_one(db, _BEFORE_SQL, (*of_tag, first)), *inside]
        later = next(iter(_one(db, _AFTER_SQL, (*of_tag, last))), None)
        digest = all_moves[-1].new_digest if all_moves else None
        open_end = ends.get((tag, digest), repository.not_before)
        lanes.append(_lane(tag, all_moves, later, covered.start, open_end))
    return covered, lanes


def _steps(
    db: Connection, repository_id: int, tags: Sequence[str], last: int, period: Range, most: int
) -> tuple[list[_Step], Range]:
    """Return the changes of these tags within a range, oldest first, and what they cover.

    The changes are read newest first, those of all tags together, so that the limit leaves out the
    oldest ones.
    """
    newest_first = merge(
        *(_newest_first(db, (repository_id, tag, last), period.start) for tag in tags),
        key=lambda step: step.id,
        reverse=True,
    )
    steps = list(islice(newest_first, most))[::-1]
    if len(steps) == most:
        period = period.shortened_to(steps[0].observed_at)
    return steps, period


def _newest_first(db: Connection, parameters: tuple[int, str, int], start: str) -> Iterator[_Step]:
    """Yield the changes of a tag that were observed after a moment, newest first."""
    for row in db.execute(_NEWEST_SQL, parameters):
        step: _Step = decode(row, _Step, "a change of the tag")
        if step.observed_at <= start:
            return
        yield step


def _one(db: Connection, sql: str, parameters: tuple[int, str, int]) -> list[_Step]:
    rows = db.execute(sql, parameters).fetchall()
    found: list[_Step] = decode(rows, list[_Step], "a change of the tag")
    return found


def _open_ends(
    db: Connection, repository: _Repository, tags: Sequence[str]
) -> dict[tuple[str, str | None], str | None]:
    """Return the last time at which each tag is known to point to its digest.

    The keys are tags with their digests. If no listing left a tag unresolved, it is missing: then
    the time is the start of the last listing.
    """
    rows = db.execute(_UNRESOLVED_SQL, (repository.id, json.dumps(tags))).fetchall()
    found = decode(rows, list[tuple[str, str, Timestamp]], "the tags of the repository")
    listed = repository.not_before
    return {(tag, digest): min(since, listed or since) for tag, digest, since in found}


def _lane(
    tag: str, moves: Sequence[_Step], later: _Step | None, start: str, open_end: str | None
) -> Lane:
    """Return the lane of a tag from its moves, oldest first.

    Args:
        tag: The name of the tag.
        moves: The moves in the range, and the one before it.
        later: The move after the range, which ends the last interval. None if there is none.
        start: The start of the range. Intervals that ended before it are left out.
        open_end: The end of the last interval without a later move.
    """
    intervals, deletions = [], []
    previous: str | None = None
    for step, following in zip(moves, [*moves[1:], later], strict=False):
        if step.kind == "deleted":
            deletions.append(Deletion(step.id, step.old_digest, step.not_before, step.observed_at))
        else:
            still_at = following.not_before if following else open_end
            valid_to = following.observed_at if following else None
            intervals.append(
                Interval(
                    change_id=step.id,
                    digest=step.new_digest,
                    previous=step.old_digest or previous,
                    not_before=step.not_before,
                    valid_from=step.observed_at,
                    still_at=still_at,
                    valid_to=valid_to,
                )
            )
        previous = step.new_digest or step.old_digest or previous
    return Lane(
        tag,
        tuple(each for each in intervals if each.valid_to is None or each.valid_to > start),
        tuple(each for each in deletions if each.observed_at > start),
    )
