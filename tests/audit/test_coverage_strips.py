"""Coverage in slices of time, and the gaps of all repositories."""

from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit import coverage_strips
from tagsync.audit.coverage_strips import Slice
from tagsync.audit.coverage_summary import gaps, merged
from tagsync.audit.queries import Audit
from tagsync.audit.ranges import Range
from tagsync.audit.timeline import observations_in
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.models import Repository
from tests.support.audit import PollAt, RunQuery, at
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, poll_any_names


@pytest.fixture
def polled(poll_at: PollAt) -> None:
    """Complete listings for an hour, failures, no poll at all, and one more listing."""
    for minute in range(0, 61, 5):
        poll_at(minute, "a")
    for minute in range(65, 91, 5):
        poll_at(minute, fails=True)
    for minute in range(180, 241, 5):
        poll_at(minute, "a")


@pytest.mark.usefixtures("polled")
def test_gaps_are_those_of_coverage(database: Path, run_query: RunQuery) -> None:
    """The gaps of a chart are the times that the rows of `coverage` leave without a listing."""
    rows = run_query("coverage", (), since=at(0), until=at(300))
    looking = merged((row["from"], row["to"]) for row in rows if row["state"] == "looking")
    expected = [tuple(gap) for gap in gaps(looking, at(0), at(300))]
    with Audit.open(database) as audit:
        found = audit.charts.lanes(REPOSITORY, Range(at(-60), at(300))).gaps
    assert [(gap.start, gap.end, gap.seconds) for gap in found] == expected
    assert [(gap.polls, gap.detail is None, gap.lasts) for gap in found] == [
        (6, False, False),
        (0, True, True),
    ]


@pytest.mark.usefixtures("polled")
def test_slices_say_what_happened(database: Path) -> None:
    """Each slice is divided among the states, and all of it is accounted for."""
    with Audit.open(database) as audit:
        strips = audit.charts.repository_strips([REPOSITORY], Range(at(-60), at(245)), slices=61)
    (strip,) = strips.strips
    assert all(sum(shares_of(each)) == pytest.approx(1) for each in strip.slices)
    names = ("unknown", "covered", "hole", "failed", "hole", "covered", "unknown")
    lengths = (12, 12, 1, 5, 18, 12, 1)
    expected = [name for name, length in zip(names, lengths, strict=True) for _ in range(length)]
    assert [largest(each) for each in strip.slices] == expected
    assert strip.covered == pytest.approx(120 / 240)


def shares_of(part: Slice) -> list[float]:
    return [part.covered, part.failed, part.held, part.hole, part.unknown]


def largest(part: Slice) -> str:
    return max(Slice.__struct_fields__, key=lambda name: getattr(part, name))


@pytest.mark.usefixtures("polled")
@pytest.mark.parametrize(("end", "lasting"), [(245, 0), (250, 0), (250.1, 1), (400, 1)])
def test_next_poll_is_not_late_at_once(database: Path, end: float, lasting: int) -> None:
    """The time after the last poll is a gap only after twice the time between two polls."""
    with Audit.open(database) as audit:
        found = audit.charts.longest_gaps(Range(at(0), at(end)))
    assert sum(gap.lasts for gap in found.gaps) == lasting


@pytest.mark.parametrize(("end", "lasting"), [(5, 0), (10, 0), (10.1, 1)])
def test_next_poll_is_not_late_within_ten_minutes(
    poll_at: PollAt, database: Path, end: float, lasting: int
) -> None:
    """Ten minutes after the only poll, whose interval is unknown, are no gap in coverage."""
    poll_at(0, "a")
    period = Range(at(-60), at(end))
    with Audit.open(database) as audit:
        found = audit.charts.longest_gaps(period)
        (strip,) = audit.charts.registry_strips(period).strips
    assert (found.total, strip.covered) == (lasting, 0 if lasting else None)


def test_registry_has_the_mean_of_its_repositories(
    store: Store, clock: FakeClock, database: Path
) -> None:
    """A registry's strip is the mean of its repositories; other registries have their own."""
    names = (("swr", "a/one"), ("swr", "a/two"), ("oci", "b/one"))
    for minute in range(0, 11, 5):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        for registry, name in names:
            if name != "a/two" or minute < 10:
                poll_any_names(store, clock, Repository(registry, name), {"v1": "x"})
    with Audit.open(database) as audit:
        found = audit.charts.registry_strips(Range(at(0), at(15)), slices=3)
        each = audit.charts.repository_strips(audit.repositories(["swr/*"]), Range(at(0), at(15)))
    assert [strip.name for strip in found.strips] == ["oci", "swr"]
    assert [part.covered for part in found.strips[1].slices] == [1, 0.5, 0]
    assert [part.covered for part in found.strips[0].slices] == [1, 1, 0]
    assert (each.total, [strip.name for strip in each.strips]) == (2, ["swr/a/one", "swr/a/two"])


@pytest.mark.usefixtures("polled")
def test_longest_gaps_come_first(database: Path) -> None:
    """The gaps are sorted by length, counted, and short ones are left out on demand."""
    with Audit.open(database) as audit:
        found = audit.charts.longest_gaps(Range(at(0), at(1000)))
        long = audit.charts.longest_gaps(Range(at(0), at(1000)), longer_than=timedelta(minutes=120))
    assert [gap.seconds for gap in found.gaps] == [760 * 60, 120 * 60]
    assert (found.total, found.seconds, long.total) == (2, 880 * 60, 1)
    assert {gap.repository for gap in found.gaps} == {REPOSITORY.full_name}


@pytest.mark.usefixtures("polled")
def test_range_is_shortened_to_the_observations_that_may_be_read(database: Path) -> None:
    """Of too many observations the newest are read, and the range says what they cover."""
    with reading(database) as db:
        rows, covered = observations_in(db, 1, Range(at(-60), at(300)), 2)
        assert [row.first_at for row in rows] == [at(65), at(180)]
        assert covered == Range(at(65), at(300), shortened=True)
        rows, covered = observations_in(db, 1, Range(at(-60), at(100)), 2)
        assert [row.first_at for row in rows] == [at(0), at(65)]
        rows, covered = observations_in(db, 1, Range(at(70), at(80)), 9)
        assert ([row.first_at for row in rows], covered.shortened) == ([at(65)], False)


def test_all_observations_are_read_up_to_a_limit(poll_at: PollAt, database: Path) -> None:
    """A query for all repositories is shortened to the days after the oldest row that it read."""
    midnight = 12 * 60
    for day in range(4):
        poll_at(midnight + day * 24 * 60, "a")
    with reading(database) as db:
        period = Range(at(0), at(midnight + 3 * 24 * 60))
        whole = coverage_strips.longest_gaps(db, period)
        part = coverage_strips.longest_gaps(db, period, most=2)
    assert (whole.range.shortened, whole.total) == (False, 3)
    assert part.range == Range(at(midnight + 3 * 24 * 60), period.end, shortened=True)
