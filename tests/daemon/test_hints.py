"""Push hints in the daemon: when they make it poll, with a fake scheduler and a fake clock."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tagsync.daemon.service import Daemon
from tagsync.daemon.watchlist import DISCOVERY_HINT_SPACING, HINT_SPACING
from tagsync.errors import Throttled, Unreachable
from tests.support.clock import FakeClock
from tests.support.daemon import HOUR, FakeRegistry, plan, watch, watched_names
from tests.support.scheduler import FakeScheduler

Start = Callable[..., Daemon]
Log = list[dict[str, Any]]

SECOND = timedelta(seconds=1)


def since(began: datetime, times: list[datetime]) -> list[float]:
    """Return seconds from a time to each of some times."""
    return [(time - began) / SECOND for time in times]


@pytest.fixture
def daemon(start: Start, scheduler: FakeScheduler, registry: FakeRegistry) -> Daemon:
    """A daemon that has polled two repositories, and polls them again within an hour."""
    made = start(plan(watch("team/api", "team/web", interval=HOUR), a=registry))
    scheduler.advance(minutes=1)
    registry.polls.clear()
    return made


def test_a_hint_polls_its_repository_at_once(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """Only the repository that a sender names is polled, without delay."""
    assert daemon.hint("a", ["team/api"]) == {"accepted": 1}
    began = clock()
    scheduler.run_due()
    assert dict(registry.polls) == {"team/api": [began]}


def test_regular_polls_stay_where_they_are(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A hint adds a poll, and moves none of the schedule's."""
    daemon = start(plan(watch("t/r"), a=registry))
    scheduler.advance(minutes=3)
    last = registry.polls["t/r"][-1]
    registry.polls.clear()
    daemon.hint("a", ["t/r"])
    scheduler.advance(minutes=3)
    hinted, *regular = registry.polls["t/r"]
    assert 0 < (hinted - last) / SECOND < 60
    assert since(last, regular) == pytest.approx([60, 120, 180])


def test_many_hints_are_one_poll(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """Hints before the poll begins are served by this poll."""
    results = [daemon.hint("a", ["team/api"]) for _ in range(3)]
    assert results == [{"accepted": 1}, {"coalesced": 1}, {"coalesced": 1}]
    scheduler.advance(minutes=1)
    assert len(registry.polls["team/api"]) == 1


def test_hints_during_a_poll_lead_to_one_more(
    daemon: Daemon,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    clock: FakeClock,
    logged: Log,
) -> None:
    """The poll that is under way may have read the tags too early, so another one follows."""

    def push_twice() -> None:
        assert daemon.hint("a", ["team/api"]) == {"accepted": 1}
        assert daemon.hint("a", ["team/api"]) == {"coalesced": 1}

    registry.during["team/api"] = push_twice
    daemon.hint("a", ["team/api"])
    began = clock()
    scheduler.advance(minutes=1)
    assert since(began, registry.polls["team/api"]) == [0, HINT_SPACING / SECOND]
    assert not [entry for entry in logged if entry["event"] == "daemon.overrun"]


def test_hints_are_spaced_for_each_repository(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """However often a sender reports a push, polls have a distance, and the last push has one."""
    for _ in range(60):
        daemon.hint("a", ["team/api"])
        scheduler.advance(seconds=1)
    assert len(registry.polls["team/api"]) == 60 / (HINT_SPACING / SECOND) + 1


def test_the_last_hint_is_always_served(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """A push right after a poll is seen by a later poll, after the distance."""
    daemon.hint("a", ["team/api"])
    scheduler.advance(seconds=1)
    pushed = clock()
    daemon.hint("a", ["team/api"])
    scheduler.advance(minutes=1)
    assert registry.polls["team/api"][-1] > pushed


def test_a_hint_does_not_delay_a_regular_poll(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """If the regular poll is due before the distance is over, it serves the hint."""
    every_second = watch("team/api", interval=2 * SECOND)
    daemon = start(plan(every_second, a=registry))
    scheduler.advance(seconds=10)
    before = len(registry.polls["team/api"])
    for _ in range(10):
        daemon.hint("a", ["team/api"])
        scheduler.advance(seconds=1)
    assert len(registry.polls["team/api"]) - before == 5


def test_a_hint_waits_while_all_threads_are_busy(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    clock: FakeClock,
    logged: Log,
) -> None:
    """A regular poll that waits for a thread serves a hint, and is not reported as late."""
    daemon = start(plan(watch("t/1", "t/2", interval=HOUR), concurrency=1, a=registry))
    scheduler.advance(minutes=1)
    registry.polls.clear()

    def push() -> None:
        scheduler.run_at("a/t/2", clock())
        scheduler.advance(seconds=10)
        assert daemon.hint("a", ["t/2"]) == {"accepted": 1}
        scheduler.advance(seconds=10)

    registry.during["t/1"] = push
    daemon.hint("a", ["t/1"])
    scheduler.advance(seconds=30)
    assert {name: len(times) for name, times in registry.polls.items()} == {"t/1": 1, "t/2": 1}
    assert not [entry for entry in logged if entry["event"] == "daemon.overrun"]


def test_many_repositories_are_polled_at_the_registrys_rate(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """One body that names many repositories does not start all polls at once."""
    names = [f"t/{number}" for number in range(5)]
    daemon = start(plan(watch(*names, interval=HOUR), rate=2.0, a=registry))
    scheduler.advance(minutes=1)
    registry.polls.clear()
    began = clock()
    assert daemon.hint("a", names) == {"accepted": 5}
    scheduler.advance(minutes=1)
    first = sorted(times[0] for times in registry.polls.values())
    assert since(began, first) == [0, 0.5, 1, 1.5, 2]


def test_a_hint_does_not_end_a_backoff(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """A repository that fails, or whose registry said when to come again, is left alone."""
    registry.errors["team/api"] = [Throttled("later", retry_after=600)]
    daemon.hint("a", ["team/api"])
    scheduler.run_due()
    began = clock()
    for _ in range(20):
        daemon.hint("a", ["team/api"])
        scheduler.advance(minutes=1)
    assert since(began, registry.polls["team/api"][:2]) == [0, 600]


def test_a_failed_poll_is_hinted_again_after_the_distance(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """After a first failure there is no backoff, so that the next hint is served."""
    registry.errors["team/api"] = [Unreachable("gone")]
    daemon.hint("a", ["team/api"])
    scheduler.run_due()
    began = clock()
    daemon.hint("a", ["team/api"])
    scheduler.advance(minutes=1)
    assert since(began, registry.polls["team/api"]) == [0, HINT_SPACING / SECOND]


@pytest.mark.parametrize(
    "name", ["team/other", "", "../team/api", "team/api\n", "a/team/api", "TEAM/API", "x" * 999]
)
def test_a_name_that_is_not_watched_polls_nothing(
    daemon: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, name: str
) -> None:
    """No text of a sender becomes the name of a repository."""
    assert daemon.hint("a", [name]) == {"unwatched": 1}
    assert daemon.hint("other", ["team/api"]) == {"unwatched": 1}
    scheduler.advance(minutes=1)
    assert not registry.polls
    assert not registry.discoveries
    assert watched_names(daemon) == {"a": 2}


@pytest.fixture
def globbing(start: Start, scheduler: FakeScheduler, registry: FakeRegistry) -> Daemon:
    """A daemon with a glob that matches nothing yet."""
    made = start(plan(watch("team/*", interval=HOUR), a=registry))
    scheduler.advance(minutes=2)
    assert len(registry.discoveries) == 1
    return made


def test_a_new_repository_is_found_by_a_discovery(
    globbing: Daemon, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """A hint about a name that a glob covers expands the globs, and the registry decides."""
    registry.found = [{"team/new"}]
    began = clock()
    assert globbing.hint("a", ["team/new", "team/made-up"]) == {"discovery": 1, "coalesced": 1}
    scheduler.advance(seconds=1)
    assert registry.polls == {"team/new": [began]}
    assert watched_names(globbing) == {"a": 1}


def test_discoveries_because_of_hints_are_spaced(
    globbing: Daemon, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """Names that do not exist cause one discovery a minute at most."""
    for number in range(50):
        globbing.hint("a", [f"team/{number}"])
        scheduler.advance(seconds=10)
    assert len(registry.discoveries) - 1 <= 500 * SECOND / DISCOVERY_HINT_SPACING + 1


def test_a_failing_discovery_is_left_alone(
    globbing: Daemon, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A hint does not shorten the backoff of a discovery."""
    registry.found = [Unreachable("gone")]
    scheduler.advance(hours=1)
    before = len(registry.discoveries)
    for _ in range(30):
        globbing.hint("a", ["team/new"])
        scheduler.advance(minutes=1)
    without = len(registry.discoveries) - before
    assert without <= 5


def test_a_stopping_daemon_takes_no_hint(daemon: Daemon, registry: FakeRegistry) -> None:
    """After the stop has begun, a hint has no result."""
    daemon.stop()
    assert daemon.hint("a", ["team/api"]) == {}
    assert not registry.polls
