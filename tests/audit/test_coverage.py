"""Coverage: when tagsync was looking, and the gaps between."""

from collections.abc import Callable
from typing import Any

from tests.support.audit import PollAt, Row, RunQuery, at

Query = Callable[..., list[tuple[Any, ...]]]


def covered(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("from", "to", "state", "polls")) for row in rows]


def test_coverage_alternates_between_runs_and_gaps(poll_at: PollAt, run_query: RunQuery) -> None:
    """Runs of polls and the gaps between them follow each other without overlap."""
    poll_at(0, "a")
    poll_at(5, "a")
    poll_at(10, fails=True)
    poll_at(15, fails=True)
    poll_at(60, "a")
    poll_at(65)
    rows = covered(run_query("coverage", ()))
    assert rows == [
        (at(0), at(5), "looking", 2),
        (at(5), at(10), "hole", 0),
        (at(10), at(15), "failed", 2),
        (at(15), at(60), "hole", 0),
        (at(60), at(60), "looking", 1),
        (at(60), at(65), "hole", 0),
        (at(65), at(65), "held", 1),
    ]
    assert covered(run_query("coverage", (), since=at(20), until=at(40))) == rows[3:4]
    assert covered(run_query("coverage", (), since=at(-5), until=at(5))) == [
        (at(-5), at(0), "hole", 0),
        *rows[:2],
    ]
    assert covered(run_query("coverage", (), since=at(65), until=at(90)))[-1] == (
        at(65),
        at(90),
        "hole",
        0,
    )


def test_midnight_does_not_show(poll_at: PollAt, run_query: RunQuery, query: Query) -> None:
    """A run that goes on after midnight (UTC) is one row; other neighbours stay apart."""
    midnight = 12 * 60
    for minute in (-10, -5, 0, 5):
        poll_at(midnight + minute, "a")
    for minute in (10, 15):
        poll_at(midnight + minute, fails=True)
    for minute in (-5, 0, 20):
        poll_at(midnight + 24 * 60 + minute, fails=True)
    assert query("SELECT count(*) FROM observations") == [(6,)]
    assert covered(run_query("coverage", ())) == [
        (at(midnight - 10), at(midnight + 5), "looking", 4),
        (at(midnight + 5), at(midnight + 10), "hole", 0),
        (at(midnight + 10), at(midnight + 15), "failed", 2),
        (at(midnight + 15), at(midnight + 24 * 60 - 5), "hole", 0),
        (at(midnight + 24 * 60 - 5), at(midnight + 24 * 60), "failed", 2),
        (at(midnight + 24 * 60), at(midnight + 24 * 60 + 20), "hole", 0),
        (at(midnight + 24 * 60 + 20), at(midnight + 24 * 60 + 20), "failed", 1),
    ]
    (row,) = run_query("tags_at", (), at(midnight - 2))
    assert row["certainty"] == "certain"


def test_held_listings_agree_across_midnight(poll_at: PollAt, query: Query) -> None:
    """Listings that were held before and after midnight (UTC) count together."""
    midnight = 12 * 60
    poll_at(midnight - 10, "a", "b")
    poll_at(midnight - 5)
    poll_at(midnight)
    assert query("SELECT outcome FROM observations ORDER BY id") == [("ok",), ("held",), ("ok",)]


def test_another_result_at_the_same_moment_is_a_row(poll_at: PollAt, run_query: RunQuery) -> None:
    """Runs that touch are one row only if their results are the same."""
    poll_at(0, "a")
    poll_at(0, fails=True)
    assert [row["state"] for row in run_query("coverage", ())] == ["looking", "failed"]
