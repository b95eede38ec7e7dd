"""Query coverage for charts: gaps, and strips of slices of time.

A gap is a time without complete listings between the first poll of a repository and the end of the
range, as `tagsync.audit.coverage_summary` defines it. The time after the last poll is not a gap as
long as the next poll is not late. Times are texts, as the database has them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import msgspec

from tagsync.audit import coverage_summary
from tagsync.audit.coverage_summary import Period, merged, seconds, shares
from tagsync.audit.ranges import Range
from tagsync.audit.timeline import Observation, observations_in
from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode
from tagsync.models import Repository

PAGE: Final = 40
"""Maximum number of repositories on a page, and of gaps."""

MOST_OF_A_REPOSITORY: Final = 2_000
"""Maximum number of observations of one repository that a strip or a lane chart reads."""

MOST_OBSERVATIONS: Final = 40_000
"""Maximum number of observations of all repositories that a query reads."""

NEVER_LATE: Final = 600
"""Seconds after a poll in which the next one is not late, as in the saved question ``holes``."""

SLICES: Final = 60
"""Default number of slices in a strip."""

_FIRST_SQL: Final = """
    SELECT first_at FROM observations WHERE repository_id = ? ORDER BY id LIMIT 1
"""
_NEWEST_OF_ALL_SQL: Final = """
    SELECT repository_id, outcome, first_at, last_at, polls, detail
    FROM observations ORDER BY id DESC LIMIT ?
"""
_REPOSITORIES_SQL: Final = """
    SELECT r.id, r.registry, r.full_name, o.first_at
    FROM repositories AS r JOIN observations AS o
         ON o.id = (SELECT id FROM observations WHERE repository_id = r.id ORDER BY id LIMIT 1)
"""


class CoverageGap(msgspec.Struct, frozen=True):
    """A time without complete listings of a repository.

    Attributes:
        repository: The full name of the repository.
        start: The last complete listing before the gap, or the start of the range.
        end: The first complete listing after the gap, or the end of the range.
        seconds: The time between the two.
        polls: Number of polls in the gap that failed or were held.
        detail: Why the last of these polls failed or was held. None without any.
        lasts: Whether no complete listing has ended the gap within the range.
    """

    repository: str
    start: str
    end: str
    seconds: float
    polls: int
    detail: str | None
    lasts: bool


class Slice(msgspec.Struct, frozen=True):
    """The shares of a slice of time, from 0 to 1. Together they are 1.

    Attributes:
        covered: The share that complete listings cover.
        failed: The share in which polls failed.
        held: The share in which listings were held.
        hole: The share without any poll.
        unknown: The share before the first poll, and after the last one while the next one is not
            late.
    """

    covered: float
    failed: float
    held: float
    hole: float
    unknown: float


class Strip(msgspec.Struct, frozen=True):
    """The coverage of a repository, or of all repositories of a registry, in slices of time.

    Attributes:
        name: The full name of the repository, or the name of the registry.
        slices: The slices, of equal length.
        covered: The covered share of all time but the unknown one. None if all is unknown.
        polled: Whether the first poll was before the end of the range. Always True for a registry.
    """

    name: str
    slices: tuple[Slice, ...]
    covered: float | None
    polled: bool = True


class Strips(msgspec.Struct, frozen=True):
    """Strips of the same range.

    Attributes:
        range: The range that the strips cover.
        strips: The strips, by name.
        total: Number of strips on all pages.
    """

    range: Range
    strips: tuple[Strip, ...]
    total: int


class Gaps(msgspec.Struct, frozen=True):
    """A page of the gaps of all repositories, the longest first.

    Attributes:
        range: The range that was searched.
        gaps: The gaps of the page.
        total: Number of gaps on all pages.
        seconds: The length of all gaps together.
    """

    range: Range
    gaps: tuple[CoverageGap, ...]
    total: int
    seconds: float


class _Run(msgspec.Struct, frozen=True, array_like=True):
    """An observation of any repository."""

    repository_id: int
    outcome: str
    first_at: Timestamp
    last_at: Timestamp
    polls: Count
    detail: str | None


AnyRun = Observation | _Run


def gaps_in(
    db: Connection, repository_id: int, name: str, period: Range
) -> tuple[list[CoverageGap], Range]:
    """Return the gaps of a repository within a range, in time order, and the range they cover.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    runs, covered = observations_in(db, repository_id, period, MOST_OF_A_REPOSITORY)
    row = db.execute(_FIRST_SQL, (repository_id,)).fetchone()
    first = decode(row, tuple[Timestamp], "an observation")[0] if row else None
    return list(_gaps(name, runs, covered, first)), covered


def repository_strips(
    db: Connection,
    repositories: Sequence[Repository],
    period: Range,
    page: int = 1,
    slices: int = SLICES,
) -> Strips:
    """Return a strip for each repository of a page.

    Args:
        db: A connection to the database.
        repositories: The recorded repositories of all pages, in order.
        period: The range. It is shortened if a repository has more than `MOST_OF_A_REPOSITORY`
            observations in it.
        page: The number of the page, from 1.
        slices: The number of slices.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    shown = repositories[(page - 1) * PAGE : page * PAGE]
    read: list[tuple[str, list[Observation], str | None]] = []
    covered = period
    for repository in shown:
        row = db.execute(
            "SELECT id FROM repositories WHERE registry = ? AND name = ?",
            (repository.registry, repository.name),
        ).fetchone()
        number = row[0] if row else 0
        runs, part = observations_in(db, number, period, MOST_OF_A_REPOSITORY)
        covered = max(covered, part, key=lambda each: each.start)
        first = db.execute(_FIRST_SQL, (number,)).fetchone()
        read.append((repository.full_name, runs, first[0] if first else None))
    strips = tuple(
        _strip(name, _shares_of(runs, covered, first, slices), 1, polled=_is_before(first, covered))
        for name, runs, first in read
    )
    return Strips(covered, strips, len(repositories))


def registry_strips(db: Connection, period: Range, slices: int = SLICES) -> Strips:
    """Return a strip for each registry: the mean of all its repositories.

    The range is shortened if it has more than `MOST_OBSERVATIONS` observations.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    covered, runs = _newest_runs(db, period, MOST_OBSERVATIONS)
    sums: dict[str, list[list[float]]] = {}
    numbers: Counter[str] = Counter()
    for number, registry, _, first in sorted(db.execute(_REPOSITORIES_SQL)):
        found = _shares_of(runs.get(number, []), covered, first, slices)
        before = sums.get(registry)
        sums[registry] = found if before is None else _sum(before, found)
        numbers[registry] += 1
    strips = tuple(_strip(name, sums[name], numbers[name]) for name in sorted(sums))
    return Strips(covered, strips, len(strips))


def longest_gaps(
    db: Connection,
    period: Range,
    page: int = 1,
    *,
    longer_than: float = 0,
    most: int = MOST_OBSERVATIONS,
) -> Gaps:
    """Return the gaps of all repositories within a range, the longest first.

    Args:
        db: A connection to the database.
        period: The range. It is shortened if it has more than ``most`` observations.
        page: The number of the page, from 1.
        longer_than: Leave out gaps of at most so many seconds.
        most: Maximum number of observations to read.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    covered, runs = _newest_runs(db, period, most)
    found = [
        gap
        for number, _, name, first in db.execute(_REPOSITORIES_SQL)
        for gap in _gaps(name, runs.get(number, []), covered, first)
        if gap.seconds > longer_than
    ]
    found.sort(key=lambda gap: (-gap.seconds, gap.repository, gap.start))
    return Gaps(
        covered,
        tuple(found[(page - 1) * PAGE : page * PAGE]),
        len(found),
        sum(gap.seconds for gap in found),
    )


def _newest_runs(db: Connection, period: Range, most: int) -> tuple[Range, dict[int, list[_Run]]]:
    """Return the newest observations by repository, in time order, and the range they cover.

    Observations are in the order in which they began. None goes on after the UTC day in which it
    began, so the first one that ended a day before the range is the last one to read.
    """
    start = parse_timestamp(period.start)
    enough = timestamp(start - timedelta(days=1))
    found: dict[int, list[_Run]] = {}
    number = 0
    for number, row in enumerate(db.execute(_NEWEST_OF_ALL_SQL, (most,)), 1):
        run: _Run = decode(row, _Run, "an observation")
        if run.last_at < enough:
            break
        if number == most:
            midnight = parse_timestamp(f"{run.last_at[:10]}T00:00:00.000Z") + timedelta(days=1)
            period = period.shortened_to(min(timestamp(midnight), period.end))
        found.setdefault(run.repository_id, []).append(run)
    return period, {
        repository: [
            run
            for run in reversed(runs)
            if run.last_at >= period.start and run.first_at <= period.end
        ]
        for repository, runs in found.items()
    }


def _gaps(
    name: str, runs: Sequence[AnyRun], period: Range, first: str | None
) -> Iterator[CoverageGap]:
    """Yield the gaps of a repository, in time order.

    Args:
        name: The full name of the repository.
        runs: Its observations that overlap the range, in time order.
        period: The range.
        first: The time of the first poll. None if the repository was never polled; then no gap is
            returned.
    """
    start, end = max(period.start, first or period.end), _due_until(runs, period.end)
    if start >= end:
        return
    covered = merged((run.first_at, run.last_at) for run in runs if run.outcome == "ok")
    in_vain = [run for run in runs if run.outcome != "ok"]
    for gap in coverage_summary.gaps(covered, start, end):
        if not gap.seconds:
            continue
        inside = [run for run in in_vain if gap.start <= run.last_at and run.first_at <= gap.end]
        yield CoverageGap(
            name,
            gap.start,
            gap.end,
            gap.seconds,
            sum(run.polls for run in inside),
            inside[-1].detail if inside else None,
            lasts=gap.end == end and not (covered and covered[-1][1] >= end),
        )


def _due_until(runs: Sequence[AnyRun], end: str) -> str:
    """Return the end of the range, or the last poll if the next one is not late yet.

    A poll is late after twice the time between the polls of the last run of more than one, the
    same time after which an observation ends, but not before `NEVER_LATE` seconds.
    """
    if not runs or runs[-1].last_at >= end:
        return end
    several = next((run for run in reversed(runs) if run.polls > 1), None)
    usual = 0.0
    if several is not None:
        usual = seconds(several.first_at, several.last_at) / (several.polls - 1)
    last = runs[-1].last_at
    return last if seconds(last, end) <= max(2 * usual, NEVER_LATE) else end


def _shares_of(
    runs: Sequence[AnyRun], period: Range, first: str | None, number: int
) -> list[list[float]]:
    """Return which share of each slice is covered, failed, held and unknown, as four lists.

    The arguments are those of `_gaps`, and the number of slices.
    """
    start, end = period.start, period.end
    found = [
        _shares(
            [(run.first_at, run.last_at) for run in runs if run.outcome == outcome], period, number
        )
        for outcome in ("ok", "failed", "held")
    ]
    unknown = [(start, min(first or end, end)), (_due_until(runs, end), end)]
    return [*found, _shares(unknown, period, number)]


def _shares(periods: Sequence[Period], period: Range, number: int) -> list[float]:
    some = merged(each for each in periods if each[0] < each[1])
    return shares(some, period.start, period.end, number) if some else [0.0] * number


def _sum(some: list[list[float]], others: list[list[float]]) -> list[list[float]]:
    return [
        [one + other for one, other in zip(*lists, strict=True)]
        for lists in zip(some, others, strict=True)
    ]


def _is_before(first: str | None, period: Range) -> bool:
    return first is not None and first <= period.end


def _strip(name: str, sums: list[list[float]], repositories: int, *, polled: bool = True) -> Strip:
    """Return a strip from the shares of several repositories, as `_sum` adds them."""
    slices = tuple(
        _slice(*(total / repositories for total in totals)) for totals in zip(*sums, strict=True)
    )
    known = sum(1 - each.unknown for each in slices)
    covered = sum(each.covered for each in slices)
    return Strip(name, slices, min(covered / known, 1.0) if known > 0 else None, polled)


def _slice(covered: float, failed: float, held: float, unknown: float) -> Slice:
    """Return a slice whose shares are 1 together, although runs may overlap by a moment."""
    covered = min(covered, 1.0)
    failed = min(failed, 1 - covered)
    held = min(held, 1 - covered - failed)
    unknown = min(unknown, 1 - covered - failed - held)
    return Slice(covered, failed, held, 1 - covered - failed - held - unknown, unknown)
