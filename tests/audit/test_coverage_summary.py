"""The totals of coverage: shares, gaps, and times without any poll."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tagsync.audit.coverage_summary import clip, gaps, merged, shares, summarize, unpolled
from tests.support.audit import PollAt, RunQuery, at


def row(repository: str, start: float, end: float, state: str) -> dict[str, Any]:
    polls = 0 if state == "hole" else 1
    return {
        "repository": repository,
        "from": at(start),
        "to": at(end),
        "state": state,
        "polls": polls,
    }


def test_totals_of_a_repository(poll_at: PollAt, run_query: RunQuery) -> None:
    """The covered share counts complete listings; the longest gap lacks them."""
    for minute in (0, 5, 10):
        poll_at(minute, "a")
    for minute in (15, 20):
        poll_at(minute, fails=True)
    for minute in (30, 35, 40):
        poll_at(minute, "a")
    rows = run_query("coverage", ())
    assert [each["seconds"] for each in rows] == [600, 300, 300, 600, 600]
    (total,) = summarize(rows)
    assert total == {
        "repository": "swr/team/api",
        "from": at(0),
        "to": at(40),
        "seconds": 2400,
        "looking_seconds": 1200,
        "percent": 50.0,
        "longest_gap_seconds": 1200,
        "longest_gap_from": at(10),
        "longest_gap_to": at(30),
    }
    (clipped,) = summarize(clip(rows, at(5), at(10)))
    assert (clipped["percent"], clipped["longest_gap_seconds"]) == (100.0, None)
    (late,) = summarize(clip(run_query("coverage", (), since=at(25)), at(25), None))
    assert (late["from"], late["longest_gap_seconds"]) == (at(25), 300)


def test_a_share_is_never_rounded_up_to_everything() -> None:
    """A gap of a second in a year is not 100 %."""
    rows = [row("a", 0, 525_600, "looking"), row("a", 525_600, 525_600.02, "hole")]
    assert [total["percent"] for total in summarize(rows)] == [99.99]


def test_times_without_any_poll() -> None:
    """Only the times count in which no repository at all was polled."""
    rows = [
        row("a", 0, 10, "looking"),
        row("a", 10, 50, "hole"),
        row("a", 50, 60, "looking"),
        row("b", 0, 20, "hole"),
        row("b", 20, 30, "failed"),
        row("b", 30, 60, "hole"),
    ]
    assert [(gap.start, gap.end) for gap in unpolled(rows)] == [
        (at(10), at(20)),
        (at(30), at(50)),
    ]
    assert unpolled([]) == []


def test_usual_time_between_polls_is_no_gap() -> None:
    """Up to twice the time between polls of the busiest repository does not count."""
    busy = {**row("a", 0, 50, "looking"), "polls": 11}
    for end, expected in ((60, 0), (60.1, 1)):
        rows = [busy, row("a", 50, end, "hole"), row("a", end, end, "failed")]
        rare = {**row("b", 0, 50, "looking"), "polls": 2}
        assert len(unpolled([*rows, rare])) == expected


PERIODS = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 100)).map(
        lambda pair: (at(min(pair)), at(max(pair)))
    )
)


@given(PERIODS, st.integers(1, 70))
def test_shares_add_up(periods: list[tuple[str, str]], slices: int) -> None:
    """The shares of all slices, and the gaps, add up to the whole time."""
    found = merged(periods)
    parts = shares(found, at(0), at(100), slices)
    assert all(0 <= part <= 1 for part in parts)
    covered = sum(parts) / slices * 6000
    missing = sum(gap.seconds for gap in gaps(found, at(0), at(100)))
    assert abs(covered + missing - 6000) < 0.01
