"""Coverage: when tagsync was looking, and the gaps between."""

from typing import Any

from tests.support.audit import PollAt, Row, RunQuery, at


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
