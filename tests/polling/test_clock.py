"""Polls while the system clock jumps forward or back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import RepositoryNotFound, Unreachable
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.polls import counts
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


@pytest.mark.parametrize("back", [{"hours": 1}, {"seconds": 1}, {"milliseconds": 1}])
def test_clock_set_back_leaves_no_gap(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    database: Path,
    logged: Events,
    back: dict[str, float],
) -> None:
    """After the clock was set back, polls are recorded in order and without a gap.

    Observations show the clock's own time until it has caught up. A change then begins at the
    clock's own time of the previous listing, so that its interval is too wide, not too narrow.
    """
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(**{unit: -by for unit, by in back.items()})
    set_back = timestamp(clock.now)
    for tags in ("ab", "abc", "abc", "bc"):
        scripted.then(*tags)
        assert poll(job, store, clock=clock).outcome == "ok"
    clock.advance(hours=2)
    scripted.then("c")
    poll(job, store, clock=clock)
    assert query("SELECT tag, kind, not_before, observed_at FROM changes ORDER BY id") == [
        ("a", "added", None, "2026-05-03T12:00:00.000Z"),
        ("b", "added", "2026-05-03T12:00:00.000Z", "2026-05-03T12:00:00.001Z"),
        ("c", "added", set_back, "2026-05-03T12:00:00.002Z"),
        ("a", "deleted", set_back, "2026-05-03T12:00:00.004Z"),
        ("b", "deleted", set_back, timestamp(clock.now)),
    ]
    assert query("SELECT clock_said, polls, last_at FROM observations ORDER BY id") == [
        (None, 1, "2026-05-03T12:00:00.000Z"),
        (set_back, 4, "2026-05-03T12:00:00.004Z"),
        (None, 1, timestamp(clock.now)),
    ]
    assert [entry["clock"] for entry in logged if entry["event"] == "clock.behind"] == (
        [set_back] * 4
    )
    assert_history_is_whole(database)


def test_clock_that_was_once_far_ahead_stops_no_recording(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """One poll by a clock that is years ahead does not stop later recordings."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(days=3650)
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(days=-3650)
    for tags in ("ab", "b", "bc"):
        clock.advance(minutes=5)
        scripted.then(*tags)
        assert poll(job, store, clock=clock).outcome == "ok"
    times = [at for (at,) in query("SELECT observed_at FROM changes ORDER BY id")]
    assert times == sorted(times)
    assert query("SELECT tag FROM tags ORDER BY tag") == [("b",), ("c",)]


def test_clock_that_jumps_ahead_leaves_a_gap(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Time that the clock skips is a gap in coverage."""
    for tags in ("a", "ab"):
        scripted.then(*tags)
        poll(job, store, clock=clock)
        clock.advance(hours=1)
    assert query("SELECT first_at FROM observations") == [
        ("2026-05-03T12:00:00.000Z",),
        ("2026-05-03T13:00:00.000Z",),
    ]
    assert query("SELECT not_before, observed_at FROM changes WHERE tag = 'b'") == [
        ("2026-05-03T12:00:00.000Z", "2026-05-03T13:00:00.000Z")
    ]


def test_clock_set_back_during_a_listing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """If a listing ends before it began, its end bounds the next change."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    ahead, now = "2026-05-03T13:05:00.000Z", timestamp(clock.now)
    scripted.then("a", started_at=ahead, finished_at=now)
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    assert query("SELECT not_before, observed_at FROM changes WHERE tag = 'b'") == [
        (now, timestamp(clock.now))
    ]


def test_held_listings_agree_after_the_clock_was_set_back(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """Two listings agree on a deletion even if the clock was set back between them."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.then()
    assert poll(job, store, clock=clock).outcome == "held"
    clock.advance(hours=2)
    scripted.then()
    assert counts(poll(job, store, clock=clock)) == ("ok", 0, 0, 1)


def test_missing_repository_is_gone_while_the_clock_is_behind(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A repository that disappears while the clock is behind is recorded as gone."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.script += [RepositoryNotFound("no such repository")] * 2
    assert [poll(job, store, clock=clock).outcome for _ in range(2)] == ["held", "ok"]
    assert store.repositories() == []


def test_failed_polls_stay_in_order(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A failed poll is recorded in order even if the clock was set back."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.script.append(Unreachable("the connection broke"))
    poll(job, store, clock=clock)
    assert query("SELECT first_at FROM observations WHERE outcome = 'failed'") == [
        ("2026-05-03T12:00:00.000Z",)
    ]
