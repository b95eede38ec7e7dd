"""The lanes of a chart: intervals, deletions, pages, and the bound on what is read."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit import lanes as module
from tagsync.audit.lanes import PAGE, Lanes
from tagsync.audit.queries import Audit
from tagsync.audit.ranges import SPANS, Range, latest
from tagsync.database.connection import reading
from tagsync.errors import UnknownRepository
from tagsync.models import Repository, Tag
from tests.support.audit import PollAt, at, pointing
from tests.support.clock import FakeClock
from tests.support.record import without_triggers
from tests.support.registries import REPOSITORY

Query = Callable[..., list[tuple[Any, ...]]]

WHOLE = Range(at(-60), at(600))


def lanes_of(database: Path, period: Range = WHOLE, before: int | None = None) -> Lanes:
    with Audit.open(database) as audit:
        return audit.charts.lanes(REPOSITORY, period, before)


def intervals_of(found: Lanes) -> dict[str, list[tuple[Any, ...]]]:
    return {
        lane.tag: [
            (each.digest, each.not_before, each.valid_from, each.still_at, each.valid_to)
            for each in lane.intervals
        ]
        for lane in found.lanes
    }


@pytest.fixture
def history(poll_at: PollAt) -> None:
    """Tags that move, change another field, become unresolved, go away and come back."""
    poll_at(0, pointing("a", "1"), pointing("b", "1"), pointing("c", "1"), pointing("d", "1"))
    poll_at(5, pointing("a", "2"), pointing("b", "1"), pointing("c", "1"), pointing("d", "1"))
    poll_at(10, Tag("a", "sha256:2", size=5), pointing("b", "1"), Tag("c"), pointing("d", "1"))
    poll_at(15, pointing("a", "2"), Tag("c"), pointing("d", "1"))
    poll_at(20, pointing("a", "3"), pointing("b", "2"), pointing("c", "1"), pointing("d", "1"))
    poll_at(25, pointing("a", "3"), pointing("b", "2"), Tag("c"), Tag("d"))


@pytest.mark.usefixtures("history")
def test_intervals_are_those_of_the_history(database: Path, query: Query) -> None:
    """A lane has the intervals that the view tag_history has, with the same times."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE tags SET unresolved_since = ? WHERE tag = 'a'", (at(22),))
    expected: dict[str, list[tuple[Any, ...]]] = {}
    for tag, *interval in query(
        "SELECT tag, digest, not_before, valid_from, still_at, valid_to FROM tag_history"
        " ORDER BY tag, valid_from"
    ):
        expected.setdefault(tag, []).append(tuple(interval))
    assert intervals_of(lanes_of(database)) == expected
    assert {len(intervals) for intervals in expected.values()} == {2, 3, 4}


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (6, 9, ["2"]),
        (5, 9, ["2"]),
        (4.9, 9, ["1", "2"]),
        (0, 19.9, ["1", "2"]),
        (0, 20, ["1", "2", "3"]),
        (30, 60, ["3"]),
    ],
)
def test_intervals_overlap_the_range(
    database: Path, start: float, end: float, expected: list[str]
) -> None:
    """A lane has what began before the range and goes on in it, and nothing from after it."""
    whole = {each[0]: each for each in intervals_of(lanes_of(database))["a"]}
    found = intervals_of(lanes_of(database, Range(at(start), at(end))))["a"]
    assert found == [whole[f"sha256:{digest}"] for digest in expected]


@pytest.mark.usefixtures("history")
def test_lane_says_what_was_there_before(database: Path) -> None:
    """An interval has the digest before it, even if the tag was deleted in between."""
    with Audit.open(database) as audit:
        (lane,) = audit.charts.tag_lane(REPOSITORY, "b", WHOLE).lanes
        (empty,) = audit.charts.tag_lane(REPOSITORY, "nope", WHOLE).lanes
    assert [each.previous for each in lane.intervals] == [None, "sha256:1"]
    (deletion,) = lane.deletions
    assert (deletion.digest, deletion.not_before, deletion.observed_at) == (
        "sha256:1",
        at(10),
        at(15),
    )
    assert (empty.intervals, empty.deletions) == ((), ())


def test_deleted_tags_have_a_lane_while_they_overlap(poll_at: PollAt, database: Path) -> None:
    """A tag that was deleted before the range has no lane."""
    poll_at(0, "a", "b", "c")
    poll_at(5, "a", "b")
    poll_at(10, "a", "b", "c")
    poll_at(15, "b", "c")
    for start, expected in ((12, ["a", "c", "b"]), (15, ["c", "b"])):
        found = lanes_of(database, Range(at(start), at(20)))
        assert [lane.tag for lane in found.lanes] == expected
        assert (found.tags, found.before) == (3, None)


def test_pages_have_each_tag_once(poll_at: PollAt, database: Path) -> None:
    """The tags that moved last come first, and the pages together have each tag once."""
    names = [f"t{number:02}" for number in range(PAGE * 2 + 5)]
    poll_at(0, *names)
    poll_at(5, *names[1:], pointing(names[0], "moved"))
    poll_at(10, *names[1:-1], pointing(names[0], "moved"), pointing(names[-1], "moved"))
    first = lanes_of(database)
    pages = [first]
    while (before := pages[-1].before) is not None:
        pages.append(lanes_of(database, WHOLE, before))
    assert [len(page.lanes) for page in pages] == [PAGE, PAGE, 5]
    found = [lane.tag for page in pages for lane in page.lanes]
    assert found[:2] == [names[-1], names[0]]
    assert sorted(found) == names
    assert first.tags == len(names)


def test_tags_are_found_among_a_bounded_number_of_changes(poll_at: PollAt, database: Path) -> None:
    """A page ends early if the newest changes have few tags; the next page goes on there."""
    poll_at(0, "a", "b")
    for minute in range(1, 8):
        poll_at(minute, pointing("a", str(minute)), "b")
    with reading(database) as db:
        first = module.lanes(db, REPOSITORY, WHOLE, scan=5)
        rest = module.lanes(db, REPOSITORY, WHOLE, first.before, scan=5)
    assert [lane.tag for lane in first.lanes] == ["a"]
    assert [lane.tag for lane in rest.lanes] == ["b"]
    assert rest.before is None


def test_range_is_shortened_to_what_may_be_read(poll_at: PollAt, database: Path) -> None:
    """Older changes than the limit are not read, and the range begins with the oldest one."""
    poll_at(0, "a", "b")
    for minute in range(1, 10):
        poll_at(minute, pointing("a", str(minute)), pointing("b", str(minute)))
    # A change that is read would be refused as damaged. The one before the range is read.
    with closing(sqlite3.connect(database)) as connection, connection, without_triggers(connection):
        connection.execute("UPDATE changes SET not_before = 'x' WHERE id BETWEEN 3 AND 12")
    with reading(database) as db:
        found = module.lanes(db, REPOSITORY, WHOLE, most=6)
        narrow = module.lanes(db, REPOSITORY, Range(at(7.5), at(60)))
    assert not narrow.range.shortened
    assert found.range == Range(at(7), WHOLE.end, shortened=True)
    digests = {lane.tag: [each.digest for each in lane.intervals] for lane in found.lanes}
    expected = [f"sha256:{number}" for number in (7, 8, 9)]
    assert digests == {"a": expected, "b": expected}


def test_lanes_have_the_gaps_of_the_repository(poll_at: PollAt, database: Path) -> None:
    """The gaps are the times without complete listings within the range."""
    poll_at(0, "a")
    poll_at(5, "a")
    poll_at(30, "a")
    (gap,) = lanes_of(database, Range(at(-10), at(30))).gaps
    assert (gap.start, gap.end, gap.seconds) == (at(5), at(30), 1500)


def test_unknown_repository_is_named(poll_at: PollAt, database: Path) -> None:
    """A repository that is not recorded is an error that names the nearest one."""
    poll_at(0, "a")
    with Audit.open(database) as audit, pytest.raises(UnknownRepository, match="swr/team/api"):
        audit.charts.lanes(Repository("swr", "team/ap"), WHOLE)


def test_ranges_end_now(poll_at: PollAt, database: Path) -> None:
    """Each span ends now, and everything begins with the first listing."""
    now = FakeClock().now + timedelta(hours=1)
    poll_at(0, "a")
    with Audit.open(database) as audit:
        charts = audit.charts
        assert charts.range("1d", now) == Range(at(60 - 24 * 60), at(60))
        assert charts.range("all", now) == Range(at(0), at(60))
        assert charts.range("all", now, REPOSITORY) == Range(at(0), at(60))
    assert latest("all", now, None) == latest("1d", now, None)
    assert all(latest(span, now, at(0)).end == at(60) for span in SPANS)


@pytest.mark.usefixtures("history")
def test_a_cursor_after_the_range_is_its_end(database: Path) -> None:
    """A page with a cursor of a later range has each tag of its own range once."""
    period = Range(at(-60), at(7))
    found = lanes_of(database, period, before=1_000_000)
    assert [lane.tag for lane in found.lanes] == [
        lane.tag for lane in lanes_of(database, period).lanes
    ]
