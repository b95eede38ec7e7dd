"""The daemon's logic, in one thread, with a fake scheduler and a fake clock."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from tagsync.clock import timestamp
from tagsync.daemon import service
from tagsync.daemon.endpoint import Endpoint, make_application
from tagsync.daemon.metrics import Metrics
from tagsync.daemon.probe import ask
from tagsync.daemon.service import Daemon
from tagsync.daemon.watchlist import Plan
from tagsync.database.outcomes import Failed
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.errors import (
    ConfigError,
    Forbidden,
    RepositoryNotFound,
    StoreError,
    Throttled,
    Unreachable,
)
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Poll
from tests.support.clock import FakeClock
from tests.support.daemon import (
    HOUR,
    MINUTE,
    FakeManager,
    FakeRegistry,
    plan,
    watch,
    watched_names,
)
from tests.support.immutable import add_acceptance, add_violation
from tests.support.scheduler import FakeScheduler

Start = Callable[..., Daemon]
Query = Callable[..., list[tuple[Any, ...]]]
Log = list[dict[str, Any]]


class FullDisk:
    """A log whose first lines with heads are lost; it then says so, as `tagsync.log` does."""

    def __init__(self, lost: int) -> None:
        self.heads: list[str] = []
        self._lost = lost

    def info(self, event: str, **fields: Any) -> bool:
        if event != "history.extended":
            return True
        self.heads.append(fields["head"])
        return len(self.heads) > self._lost

    debug = warning = error = info


def gauge(metrics: Metrics, name: str) -> float:
    """The value of a gauge without labels, as a scrape has it."""
    body = b"".join(
        metrics.exposition()(
            {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}, lambda *_: lambda *_: None
        )
    )
    (value,) = re.findall(rf"^{name} (\S+)$", body.decode(), re.MULTILINE)
    return float(value)


def events(logged: Log, name: str) -> Log:
    return [entry for entry in logged if entry["event"] == name]


def gaps(times: list[datetime]) -> list[float]:
    """Minutes from each time to the next."""
    return [(after - before) / MINUTE for before, after in pairwise(times)]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of a metric, as Prometheus reads it."""
    body = b"".join(
        metrics.exposition()({"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}, lambda *_: None)
    )
    (found,) = (
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return found


# --- times ----------------------------------------------------------------------------------------


def test_every_repository_is_polled_at_once_and_then_on_its_schedule(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """First polls start at the registry's rate; then each repository has its schedule."""
    names = [f"team/r{number}" for number in range(5)]
    start(plan(watch(*names), rate=2.0, a=registry))
    scheduler.advance(seconds=2)
    began = sorted(times[0] for times in registry.polls.values())
    assert [(time - began[0]).total_seconds() for time in began] == [0, 0.5, 1, 1.5, 2]
    scheduler.advance(minutes=10)
    for times in registry.polls.values():
        first, *others = gaps(times)
        assert first <= 1
        assert others == pytest.approx([1.0] * len(others))
        assert len(others) == 9


def test_start_says_what_is_watched_and_when_the_first_round_ends(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry, logged: Log
) -> None:
    """The log and the status say when every known repository will have been polled."""
    began, manager = clock(), FakeManager()
    watches = (watch("team/r4"), watch(*(f"team/r{number}" for number in range(5))))
    daemon = start(plan(*watches, rate=2.0, a=registry), manager=manager)
    expected = timestamp(began + timedelta(seconds=2))
    (started,) = events(logged, "daemon.started")
    assert {name: started[name] for name in ("registries", "watches", "repositories")} == {
        "registries": 1,
        "watches": 2,
        "repositories": 5,
    }
    assert started["first_round_at"] == expected
    sentence = f" The first round is expected to be complete at {expected}."
    assert manager.messages == [("ready", daemon.summary())]
    assert daemon.summary().endswith(sentence)
    scheduler.advance(seconds=2)
    assert len(registry.polls) == 5
    assert daemon.summary().endswith(": all is well.")


def test_polls_are_delayed_by_the_jitter_at_most(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """With jitter polls are not exactly an interval apart, and none is left out."""
    jittered = Watch("a", ("team/api",), interval=10 * MINUTE, jitter=MINUTE)
    start(plan(jittered, a=registry), random=Random(1))
    scheduler.advance(hours=10)
    apart = gaps(registry.polls["team/api"])[1:]
    assert len(set(apart)) > 20
    assert all(9 <= gap <= 11 for gap in apart)


def test_a_slow_registry_delays_no_other(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry
) -> None:
    """While every thread of one registry waits for it, the polls of another go on."""
    slow = FakeRegistry(clock)
    slow.during["team/api"] = lambda: scheduler.advance(minutes=10)
    watches = (watch("team/api", "team/web", registry="slow"), watch("team/api"))
    start(plan(*watches, concurrency=1, slow=slow, a=registry))
    scheduler.run_due()
    assert len(registry.polls["team/api"]) == 11
    # The only thread of its registry was busy all the time.
    assert gaps(slow.polls["team/api"][:1] + slow.polls["team/web"]) == [10]


def test_one_poll_of_a_repository_at_a_time(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """A repository is not polled while its poll is under way; this is logged once."""
    metrics = Metrics("test")
    registry.during["team/api"] = lambda: scheduler.advance(minutes=20)
    start(plan(watch("team/api", "team/other"), a=registry), metrics=metrics)
    scheduler.run_due()
    # The poll under way, and the one that makes up for those that were missed.
    assert gaps(registry.polls["team/api"]) == [20]
    assert len(registry.polls["team/other"]) == 21
    overruns = events(logged, "daemon.overrun")
    assert [entry["repository"] for entry in overruns] == ["a/team/api"]
    assert value(metrics, "tagsync_overruns_total", registry="a") == 1


def test_a_missed_poll_is_made_up_once(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A poll that could not start in time starts as soon as it can."""

    def meanwhile() -> None:
        scheduler.advance(minutes=20)
        daemon.apply_plan(plan(watch("team/api", interval=HOUR), a=registry))

    registry.during["team/api"] = meanwhile
    daemon = start(plan(watch("team/api"), a=registry))
    scheduler.advance(minutes=21)
    assert gaps(registry.polls["team/api"]) == [20]


def test_an_overrun_of_a_poll_that_waits_for_a_thread_is_checked_again(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """A repository that is due again while it waits for a thread is polled soon."""
    registry.during["team/a"] = lambda: scheduler.advance(minutes=2)
    start(plan(watch("team/a", "team/b"), concurrency=1, a=registry))
    scheduler.advance(minutes=2, seconds=2)
    assert {entry["repository"] for entry in events(logged, "daemon.overrun")} == {
        "a/team/a",
        "a/team/b",
    }
    assert len(registry.polls["team/b"]) >= 1


def test_an_overrun_that_is_reported_late_is_made_up_soon(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """If the poll under way has already ended, the missed one follows soon."""
    daemon = start(plan(watch("team/api", interval=HOUR), a=registry))
    scheduler.advance(seconds=10)
    scheduler.report_overrun("a/team/api")
    scheduler.advance(seconds=10)
    assert gaps(registry.polls["team/api"]) == [11 / 60]
    assert len(events(logged, "daemon.overrun")) == 1
    daemon.stop()
    scheduler.report_overrun("a/team/api")
    assert len(events(logged, "daemon.overrun")) == 1


def test_the_delay_of_a_poll_is_measured(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """The delay is the time from when a poll was due until a thread was free for it."""
    metrics = Metrics("test")
    registry.during["team/a"] = lambda: scheduler.advance(seconds=7)
    hourly = watch("team/a", "team/b", interval=HOUR)
    start(plan(hourly, concurrency=1, a=registry), metrics=metrics)
    scheduler.run_due()
    total = value(metrics, "tagsync_poll_delay_seconds_sum", registry="a")
    assert total == pytest.approx(7, abs=0.01)


# --- failures -------------------------------------------------------------------------------------


def test_a_repository_that_keeps_failing_is_polled_less_and_less_often(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """From the second failure on the backoff doubles up to its limit; success ends it."""
    registry.errors["team/bad"] = [Forbidden("not yours") for _ in range(8)]
    start(plan(watch("team/bad", "team/good"), a=registry))
    scheduler.advance(hours=2)
    first, *others = gaps(registry.polls["team/bad"])
    assert first <= 1
    assert others[:6] == [2, 4, 8, 15, 15, 15]
    assert others[7] <= 1
    assert others[8:] == pytest.approx([1.0] * len(others[8:]))
    assert len(registry.polls["team/good"]) == 121
    (recovered,) = events(logged, "sync.recovered")
    assert recovered["failures"] == 8


@pytest.mark.parametrize("failures", [1, 3])
def test_retry_after_is_honoured_from_the_end_of_the_poll(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, failures: int
) -> None:
    """After Retry-After a repository is polled when that time is over, and not before."""
    errors = [Unreachable("down") for _ in range(failures - 1)]
    registry.errors["team/bad"] = [*errors, Throttled("later", retry_after=3600.0)]
    start(plan(watch("team/bad"), a=registry))
    while len(registry.polls["team/bad"]) < failures:
        registry.during["team/bad"] = lambda: scheduler.advance(seconds=5)
        scheduler.advance(seconds=1)
    scheduler.advance(hours=2)
    last, following = registry.polls["team/bad"][failures - 1 : failures + 1]
    assert following - last == timedelta(hours=1, seconds=5)


def test_retry_after_is_honoured_by_a_poll_that_starts_too_early(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A poll that starts between the failure and its consequence sends no request."""

    class SlowMetrics(Metrics):
        def count_poll(self, poll: Poll, delay: float) -> None:
            super().count_poll(poll, delay)
            if poll.outcome == "failed":
                scheduler.advance(minutes=5)

    registry.errors["team/bad"] = [Throttled("later", retry_after=3600.0)]
    start(plan(watch("team/bad"), a=registry), metrics=SlowMetrics("test"))
    scheduler.advance(minutes=61)
    assert gaps(registry.polls["team/bad"])[0] == 60


def test_a_recovery_wakes_those_that_back_off_after_a_transient_error(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry, logged: Log
) -> None:
    """Once a registry answers again, repositories with transient errors are polled."""
    other = FakeRegistry(clock)
    registry.errors["team/a"] = [Unreachable("down") for _ in range(3)]
    late = [Unreachable("down"), Unreachable("down", retry_after=3600.0)]
    registry.errors["team/b"] = list(late)
    registry.errors["team/c"] = [Forbidden("no"), Forbidden("no", retry_after=3600.0)]
    other.errors["team/d"] = list(late)
    watches = (watch("team/a", "team/b", "team/c"), watch("team/d", registry="other"))
    start(plan(*watches, a=registry, other=other))
    scheduler.advance(minutes=20)
    recovered = {entry["repository"]: entry for entry in events(logged, "sync.recovered")}
    assert recovered.keys() == {"a/team/a", "a/team/b"}
    assert registry.polls["team/b"][2] == registry.polls["team/a"][3]
    assert len(registry.polls["team/c"]) == 2
    assert len(other.polls["team/d"]) == 2


def test_a_damaged_database_is_a_failure_of_the_poll(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, logged: Log
) -> None:
    """A poll that cannot be recorded is logged and counted as failed, and polls go on."""
    metrics = Metrics("test")
    daemon = start(plan(watch("team/api"), a=registry), metrics=metrics)
    query("DROP TABLE observations")
    scheduler.advance(minutes=5)
    failed = events(logged, "sync.failed")
    assert len(failed) == 3
    assert {entry["repository"] for entry in failed} == {"a/team/api"}
    assert value(metrics, "tagsync_polls_total", registry="a", outcome="failed") == len(failed)
    assert daemon.census()[0].failing == 1


# --- the clock ------------------------------------------------------------------------------------


def test_everything_is_polled_soon_after_the_clock_was_set_back(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry, logged: Log
) -> None:
    """Polls, discoveries and heartbeats do not wait until the clock has caught up."""
    manager = FakeManager()
    daemon = start(plan(watch("team/api", "team/x*"), a=registry), manager=manager)
    scheduler.advance(minutes=3)
    daemon.check_clock()
    polls, heartbeats = len(registry.polls["team/api"]), len(manager.messages)
    assert len(registry.discoveries) == 1
    clock.advance(hours=-24)
    daemon.check_clock()
    scheduler.run_due()
    assert len(registry.polls["team/api"]) == polls + 1
    assert len(registry.discoveries) == 2
    assert len(manager.messages) == heartbeats + 1
    (entry,) = events(logged, "daemon.clock_set_back")
    assert entry["seconds"] == 24 * 3600
    daemon.check_clock()
    scheduler.advance(minutes=5)
    assert len(registry.polls["team/api"]) >= polls + 5


@pytest.mark.parametrize("seconds", [-4, 3600])
def test_a_small_correction_or_a_step_forward_is_ignored(
    start: Start,
    scheduler: FakeScheduler,
    clock: FakeClock,
    registry: FakeRegistry,
    logged: Log,
    seconds: float,
) -> None:
    """A clock that is corrected by a few seconds, or set forward, was not set back."""
    daemon = start(plan(watch("team/api"), a=registry))
    scheduler.advance(minutes=3)
    clock.advance(seconds=seconds)
    daemon.check_clock()
    assert not events(logged, "daemon.clock_set_back")


# --- discovery ------------------------------------------------------------------------------------


def test_a_discovered_repository_is_watched_until_it_is_gone(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query
) -> None:
    """A repository that is gone is forgotten until a discovery finds it again."""
    registry.found = [{"team/api"}, {"team/api", "team/new"}, set()]
    daemon = start(plan(watch("team/*"), a=registry))
    scheduler.advance(minutes=5)
    assert set(registry.polls) == {"team/api"}
    scheduler.advance(hours=2)
    assert set(registry.polls) == {"team/api", "team/new"}
    # The last discovery found nothing, which takes nothing away.
    assert watched_names(daemon) == {"a": 2}

    registry.errors["team/new"] = [RepositoryNotFound("gone") for _ in range(10)]
    scheduler.advance(minutes=5)
    assert watched_names(daemon) == {"a": 1}
    assert query("SELECT tag, kind FROM change_log WHERE repository = 'a/team/new'") == [
        ("v1", "added"),
        ("v1", "deleted"),
    ]
    polls = len(registry.polls["team/new"])
    scheduler.advance(hours=2)
    assert len(registry.polls["team/new"]) == polls

    registry.errors.clear()
    registry.found = [{"team/new"}]
    scheduler.advance(hours=1)
    assert watched_names(daemon) == {"a": 2}
    assert len(registry.polls["team/new"]) > polls


def test_a_named_repository_that_is_gone_stays(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A repository that the configuration names is polled even if it is gone."""
    daemon = start(plan(watch("team/api", "team/*"), a=registry))
    scheduler.advance(minutes=5)
    registry.errors["team/api"] = [RepositoryNotFound("gone") for _ in range(1000)]
    scheduler.advance(minutes=60)
    assert watched_names(daemon) == {"a": 1}
    assert len(registry.polls["team/api"]) > 60


def test_a_discovery_that_failed_is_retried_and_takes_nothing_away(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """Known repositories are still polled, and the retries back off."""
    metrics = Metrics("test")
    registry.found = [*[Unreachable("down")] * 8, {"team/new"}]
    start(plan(watch("team/known", "team/*"), a=registry), metrics=metrics)
    scheduler.advance(hours=4)
    assert gaps(registry.discoveries)[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert gaps(registry.discoveries)[8] == 60
    assert registry.polls["team/new"][0] == registry.discoveries[8]
    assert len(registry.polls["team/known"]) >= 240
    labels = {"registry": "a", "outcome": "failed"}
    assert value(metrics, "tagsync_discoveries_total", **labels) == 8


def test_a_discovery_waits_for_a_database_that_cannot_be_read(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    logged: Log,
) -> None:
    """If the record cannot be read, the discovery is logged as failed and retried."""
    registry.found = [{"team/api"}]
    daemon = start(plan(watch("team/*"), a=registry))
    with monkeypatch.context() as patched:
        patched.setattr(store, "freshness", raises(StoreError("locked")))
        scheduler.run_due()
    assert watched_names(daemon) == {"a": 0}
    (failed,) = events(logged, "discovery.failed")
    assert failed["error"] == "locked"
    scheduler.advance(seconds=30)
    assert watched_names(daemon) == {"a": 1}


def test_a_watch_that_matches_nothing_is_reported_after_the_first_discovery(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """The log says so once, ``/healthz``, the gauge and the status as long as it lasts."""
    metrics = Metrics("test")
    registry.found = [set(), set(), {"team/new"}, set()]
    empty, named = watch("team/*", "tools/*"), watch("misc/named")
    daemon = start(plan(empty, named, a=registry), metrics=metrics)
    assert daemon.health() == []
    scheduler.advance(hours=1, minutes=1)
    (entry,) = events(logged, "watch.empty")
    assert (entry["log_level"], entry["registry"]) == ("error", "a")
    assert entry["repositories"] == ["team/*", "tools/*"]
    assert "set allow_empty = true" in entry["error"]
    sentence = "the watch of team/*, tools/* in registry a has matched no repository"
    assert daemon.health() == [f"{sentence} since the daemon started"]
    assert daemon.liveness() == []
    assert value(metrics, "tagsync_empty_watches", registry="a") == 1
    assert "1 empty watches" in daemon.summary()

    scheduler.advance(hours=1)
    assert daemon.health() == []
    assert value(metrics, "tagsync_empty_watches", registry="a") == 0
    scheduler.advance(hours=23, minutes=58)
    assert daemon.health() == []
    scheduler.advance(hours=1, minutes=5)
    matched_at = timestamp(registry.discoveries[2])
    assert daemon.health() == [f"{sentence} since {matched_at}"]
    assert len(events(logged, "watch.empty")) == 2


def test_a_watch_that_may_match_nothing_is_not_reported(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """``allow_empty`` silences the report, and so does a repository that was listed lately."""
    registry.found = [{"team/api"}]
    first = start(plan(watch("team/*"), a=registry))
    scheduler.advance(minutes=1)
    registry.found = [set()]
    silent = Watch("a", ("tools/*",), allow_empty=True)
    # Another interval makes it another watch, whose discovery begins anew.
    first.apply_plan(plan(watch("team/*", interval=HOUR), silent, a=registry))
    scheduler.advance(hours=23)
    assert first.health() == []
    assert not events(logged, "watch.empty")
    scheduler.advance(hours=2)
    assert len(events(logged, "watch.empty")) == 1


def test_a_watch_whose_discovery_fails_matches_nothing(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """``/healthz`` says that the discovery failed; the log has ``discovery.failed`` already."""
    registry.found = [Unreachable("down"), {"team/api"}]
    daemon = start(plan(watch("team/*"), a=registry))
    scheduler.run_due()
    (sentence,) = daemon.health()
    assert sentence.endswith("since the daemon started; its last discovery failed")
    assert not events(logged, "watch.empty")
    scheduler.advance(minutes=1)
    assert daemon.health() == []


def raises(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


# --- reload ---------------------------------------------------------------------------------------


def test_a_new_plan_changes_only_what_differs(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry
) -> None:
    """Only new repositories are polled at once; a registry that left is closed."""
    second = FakeRegistry(clock)
    before = (watch("team/stays", "team/goes", interval=HOUR), watch("team/x", registry="b"))
    daemon = start(plan(*before, a=registry, b=second))
    scheduler.advance(seconds=1)
    daemon.apply_plan(plan(watch("team/stays", "team/comes", interval=HOUR), a=registry))
    scheduler.advance(seconds=1)
    assert {name: len(times) for name, times in registry.polls.items()} == {
        "team/stays": 1,
        "team/goes": 1,
        "team/comes": 1,
    }
    assert watched_names(daemon) == {"a": 2}
    assert second.closed
    assert not registry.closed
    assert {"a", "b"} & scheduler.pools.keys() == {"a"}


def test_a_reload_does_not_repeat_discoveries(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry
) -> None:
    """Only the globs of new watches and of reopened registries are expanded."""
    team, tools = watch("team/*"), watch("tools/*")
    daemon = start(plan(team, a=registry))
    scheduler.advance(minutes=1)
    daemon.apply_plan(plan(tools, team, a=registry))
    scheduler.run_due()
    assert gaps(registry.discoveries) == [1]
    daemon.apply_plan(plan(tools, a=registry))
    scheduler.advance(minutes=61)
    # Of the two discoveries only the one that stayed was repeated.
    assert gaps(registry.discoveries) == [1, 60]
    again = FakeRegistry(clock)
    daemon.apply_plan(plan(tools, a=again))
    scheduler.run_due()
    assert len(again.discoveries) == 1


def test_another_interval_takes_effect(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A repository with a new schedule follows it and no longer backs off."""
    registry.errors["team/api"] = [Unreachable("down"), Unreachable("down", retry_after=7200.0)]
    daemon = start(plan(watch("team/api", interval=HOUR), a=registry))
    scheduler.advance(hours=1)
    assert len(registry.polls["team/api"]) == 2
    daemon.apply_plan(plan(watch("team/api", interval=MINUTE), a=registry))
    scheduler.advance(minutes=10)
    assert len(registry.polls["team/api"]) == 12


def test_a_registry_is_replaced_under_a_poll(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry
) -> None:
    """A poll under way ends on the old registry, which is then closed."""
    new = FakeRegistry(clock)

    def meanwhile() -> None:
        daemon.apply_plan(plan(watch("team/api", "team/other"), a=new))
        scheduler.advance(minutes=10)
        assert len(new.polls["team/other"]) == 11
        assert len(new.polls["team/api"]) == 0
        assert not registry.closed

    registry.during["team/api"] = meanwhile
    daemon = start(plan(watch("team/api"), a=registry))
    scheduler.run_due()
    assert registry.closed
    assert len(registry.polls["team/api"]) == 1
    # The poll that was missed is made up at once, on the new registry.
    assert gaps(registry.polls["team/api"] + new.polls["team/api"]) == [10]


def test_a_queued_poll_of_a_repository_that_left_is_not_made(
    start: Start, scheduler: FakeScheduler, clock: FakeClock, registry: FakeRegistry
) -> None:
    """A poll that waited for a thread does not use a registry that was closed."""

    def meanwhile() -> None:
        scheduler.advance(seconds=1)
        assert "a/team/b" in scheduler.pools["a"].submitted
        daemon.apply_plan(plan(watch("team/x", registry="b"), b=FakeRegistry(clock)))

    registry.during["team/a"] = meanwhile
    daemon = start(plan(watch("team/a", "team/b"), concurrency=1, a=registry))
    scheduler.advance(seconds=1)
    assert len(registry.polls["team/b"]) == 0
    assert registry.closed


def test_a_registry_that_is_replaced_during_a_discovery_is_closed_after_it(
    start: Start, scheduler: FakeScheduler, clock: FakeClock
) -> None:
    """The result of a discovery is ignored if its plan has been replaced meanwhile."""
    new = FakeRegistry(clock)

    class Replaced(FakeRegistry):
        def list_repositories(self, *args: Any, **options: Any) -> set[str]:
            daemon.apply_plan(plan(watch("team/*"), a=new))
            assert not self.closed
            return {"team/old"}

    old = Replaced(clock)
    daemon = start(plan(watch("team/*"), a=old))
    scheduler.run_due()
    assert old.closed
    assert len(new.discoveries) == 1
    assert watched_names(daemon) == {"a": 0}


def test_a_rejected_reload_keeps_the_plan(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """A rejected reload is reported everywhere until a reload succeeds."""
    metrics, manager = Metrics("test"), FakeManager()
    first = plan(watch("team/api"), a=registry)
    plans: list[Plan | ConfigError] = [ConfigError("there is no key 'intervall'"), first]

    def reload() -> Plan:
        answer = plans.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    daemon = start(first, reload=reload, metrics=metrics, manager=manager)
    scheduler.run_due()
    handle(daemon, "reload")
    complaint = " The configuration was not reloaded: there is no key 'intervall'."
    assert manager.messages[-2:] == [("reloading", ""), ("ready", daemon.summary())]
    assert daemon.summary().endswith(f": all is well.{complaint}")
    assert value(metrics, "tagsync_config_last_reload_successful") == 0
    (rejected,) = events(logged, "config.rejected")
    assert rejected["error"] == "there is no key 'intervall'"
    assert watched_names(daemon) == {"a": 1}
    scheduler.advance(minutes=1)
    assert len(registry.polls["team/api"]) == 2

    handle(daemon, "reload")
    assert daemon.summary().endswith(": all is well.")
    assert value(metrics, "tagsync_config_last_reload_successful") == 1
    (reloaded,) = events(logged, "config.reloaded")
    assert (reloaded["registries"], reloaded["repositories"]) == (1, 1)


def handle(daemon: Daemon, request: service.Request) -> None:
    """Lets the daemon handle a request, as its main thread does."""
    daemon.request(request)
    assert daemon.handle_request()


def test_a_reload_without_a_readable_database_is_rejected(
    start: Start, registry: FakeRegistry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the record cannot be read the plan before stays in force as a whole."""
    second = plan(watch("team/web"), b=registry)
    daemon = start(plan(watch("team/api"), a=registry), reload=lambda: second)
    monkeypatch.setattr(store, "freshness", raises(StoreError("locked")))
    handle(daemon, "reload")
    assert watched_names(daemon) == {"a": 1}
    assert daemon.summary().endswith("The configuration was not reloaded: locked.")


# --- stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_last", [True, False])
def test_requests_that_wait_are_one_reload_and_a_stop_comes_first(
    start: Start, registry: FakeRegistry, logged: Log, stop_last: bool
) -> None:
    """However many reloads wait, the daemon reloads once, and not at all if it has to stop."""
    first = plan(watch("team/api"), a=registry)
    requests: list[service.Request] = ["reload"] * 400

    def reload() -> Plan:
        daemon.request("stop")
        return first

    daemon = start(first, reload=reload)
    if stop_last:
        requests.append("stop")
    for what in requests:
        daemon.request(what)
    daemon.run_loop()
    assert len(events(logged, "config.reloaded")) == (0 if stop_last else 1)


def test_a_stop_does_not_wait_for_a_log_that_is_full(
    start: Start,
    registry: FakeRegistry,
    store: Store,
    gate: Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the log takes no more lines, the database is closed, and the stop is not complete."""

    class FullLog:
        def __getattr__(self, _level: str) -> Callable[..., Any]:
            return lambda *_, **__: gate.wait(10)

    daemon = start(plan(watch("team/api"), a=registry))
    monkeypatch.setattr(service, "log", FullLog())
    assert not daemon.stop()
    with pytest.raises(StoreError):
        store.heads()


def test_a_stop_abandons_a_poll_that_hangs(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    query: Query,
    logged: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon stops, reports the poll as abandoned, and does not record it."""
    monkeypatch.setattr(service, "_POLLS_TIMEOUT", 0.0)
    manager, results = FakeManager(), []
    registry.during["team/api"] = lambda: results.append(daemon.stop())
    daemon = start(plan(watch("team/api"), a=registry), manager=manager)
    scheduler.run_due()
    assert results == [False]
    assert manager.messages[-1] == ("stopping", "")
    (stopped,) = events(logged, "daemon.stopped")
    assert stopped["abandoned_polls"] == 1
    assert query("SELECT count(*) FROM observations") == [(0,)]
    assert not events(logged, "sync.failed")
    assert len(registry.polls["team/api"]) == 1


@pytest.fixture
def gate() -> Iterator[Event]:
    """An event that is set at the latest when the test ends."""
    event = Event()
    yield event
    event.set()


def test_a_stop_waits_for_a_poll_that_ends_in_time(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, gate: Event
) -> None:
    """A poll that ends soon after the request to stop is recorded."""
    polling = Event()

    class Manager(FakeManager):
        def stopping(self) -> None:
            gate.set()

    def hang() -> None:
        polling.set()
        assert gate.wait(10)

    registry.during["team/api"] = hang
    daemon = start(plan(watch("team/api"), a=registry), manager=Manager())
    thread = Thread(target=scheduler.run_due)
    thread.start()
    assert polling.wait(10)
    assert daemon.stop()
    thread.join(10)
    assert query("SELECT count(*) FROM observations") == [(1,)]


def test_nothing_is_polled_after_a_stop(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, logged: Log
) -> None:
    """Jobs that were queued before the stop do nothing after it, and log no errors."""
    daemon = start(plan(watch("team/api", "team/*"), a=registry))
    jobs = list(scheduler.jobs.values())
    assert daemon.stop()
    for job in jobs:
        job.run()
    assert not registry.polls
    assert not registry.discoveries
    assert [entry for entry in logged if entry["log_level"] == "error"] == []


# --- the database ---------------------------------------------------------------------------------


def test_a_database_that_is_deleted_is_reported_once_and_nothing_is_polled(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, database: Path, logged: Log
) -> None:
    """``/livez``, ``/healthz``, the status and the log say so within ten seconds."""
    registry.found = [{"team/xy"}]
    daemon = start(plan(watch("team/api", "team/x*", interval=HOUR), a=registry))
    scheduler.advance(minutes=1)
    assert daemon.liveness() == []
    for file in database.parent.glob("tagsync.db*"):
        file.unlink()
    scheduler.advance(seconds=10)
    (lost,) = events(logged, "daemon.database_lost")
    assert lost["log_level"] == "error"
    assert f"{database} was deleted or moved while tagsync had the database open" in lost["error"]
    assert daemon.liveness() == daemon.health() == [lost["error"]]
    assert daemon.summary() == f"Nothing is recorded: {lost['error']}."
    polls, discoveries = len(registry.polls["team/api"]), len(registry.discoveries)
    scheduler.advance(hours=2)
    assert len(registry.polls["team/api"]) == polls
    assert len(registry.discoveries) == discoveries
    assert daemon.liveness() == [lost["error"]]
    daemon.stop()
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == [
        "daemon.database_lost"
    ]
    assert not database.exists()


def test_a_database_that_is_restored_is_noticed_by_the_next_poll(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, database: Path, logged: Log
) -> None:
    """If an older state is written into the open file, nothing is added to it."""
    daemon = start(plan(watch("team/api"), a=registry))
    scheduler.advance(seconds=10)
    with (
        closing(sqlite3.connect(database)) as current,
        closing(sqlite3.connect(":memory:")) as older,
    ):
        current.backup(older)
        registry.digests["team/api"] = "sha256:2"
        scheduler.advance(minutes=1)
        assert len(events(logged, "tag.updated")) == 1
        older.backup(current)
    scheduler.advance(minutes=5)
    (lost,) = events(logged, "daemon.database_lost")
    assert "no longer has change 2" in lost["error"]
    assert daemon.liveness() == [lost["error"]]
    assert not events(logged, "sync.failed")
    assert len(events(logged, "tag.updated")) == 1


# --- heartbeats, head, health ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("watchdog", "interval"), [(None, 10), (timedelta(minutes=5), 10), (timedelta(seconds=4), 2)]
)
def test_heartbeats_are_sent_in_time(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    watchdog: timedelta | None,
    interval: int,
) -> None:
    """Heartbeats come every ten seconds, or twice as often as the watchdog expects."""
    manager = FakeManager(watchdog)
    # While the only thread of the registry is busy, heartbeats go on.
    registry.during["team/api"] = lambda: scheduler.advance(seconds=60)
    daemon = start(plan(watch("team/api"), concurrency=1, a=registry), manager=manager)
    assert manager.messages == [("ready", daemon.summary())]
    scheduler.run_due()
    heartbeats = [status for name, status in manager.messages if name == "heartbeat"]
    assert len(heartbeats) == 60 / interval + 1
    assert heartbeats[0] == (
        "Watching 1 repositories in 1 registries with 0 tags: 1 not polled yet."
    )


def test_ready_is_the_first_message(start: Start, clock: FakeClock, registry: FakeRegistry) -> None:
    """The daemon is reported as ready before the first heartbeat, however soon that is due."""
    manager = FakeManager()

    class Eager(FakeScheduler):
        def resume(self) -> None:
            super().resume()
            self.run_due()

    daemon = start(plan(watch("team/api"), a=registry), manager=manager, scheduler=Eager(clock))
    assert [name for name, _ in manager.messages] == ["ready", "heartbeat"]
    assert daemon.census()[0].unpolled == 0


def test_status_follows_the_first_polls(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """The status says what is not known yet, until every first poll and discovery has ended."""
    manager = FakeManager()
    registry.found = [{"team/web"}]
    daemon = start(plan(watch("team/api", "team/w*"), a=registry), manager=manager)
    daemon.refresh_status()
    scheduler.run_due()
    daemon.refresh_status()
    daemon.refresh_status()
    first, second = [text for name, text in manager.messages if name == "status"]
    assert first.endswith(": 1 watches not expanded yet, 1 not polled yet.")
    assert second == "Watching 2 repositories in 1 registries with 2 tags: all is well."


def test_a_registry_that_stops_does_not_fail_the_liveness(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """After ten intervals without an answer of the registry, only ``/healthz`` fails."""
    daemon = start(plan(watch("team/api"), a=registry))
    scheduler.advance(minutes=1)
    application = make_application(Metrics("test"), daemon.health, daemon.liveness)
    with closing(Endpoint(("127.0.0.1", 0), application)) as endpoint:
        address = ("127.0.0.1", endpoint.port)
        assert ask(address, "healthz") == []
        registry.errors["team/api"] = [Unreachable("no route") for _ in range(20)]
        for _ in range(10):
            scheduler.advance(minutes=1)
            assert ask(address, "livez") == []
        (stale,) = ask(address, "healthz")
    assert stale.startswith("a/team/api has had no complete listing for three intervals")


def test_a_scheduler_that_hangs_is_reported(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """Half a minute without a heartbeat is a problem of the scheduler."""
    daemon = start(plan(watch("team/api", interval=HOUR), a=registry))
    scheduler.advance(minutes=1)
    scheduler.hang(seconds=30)
    assert daemon.health() == []
    scheduler.hang(seconds=1)
    assert daemon.health() == ["the scheduler has not run any job for 31 s"]
    scheduler.run_due()
    assert daemon.health() == []


def test_each_new_head_is_logged_once_within_ten_seconds(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, logged: Log
) -> None:
    """The log has the head of the chain after each change, at the latest at the stop."""
    daemon = start(plan(watch("team/api", interval=HOUR), a=registry))
    scheduler.advance(seconds=10)
    scheduler.advance(minutes=10)
    registry.digests["team/api"] = "sha256:2"
    scheduler.advance(hours=1)
    registry.digests["team/api"] = "sha256:3"
    while query("SELECT max(id) FROM changes") != [(3,)]:
        scheduler.advance(seconds=1)
    daemon.stop()
    heads = query("SELECT id, hash FROM changes ORDER BY id")
    logged_heads = [(e["change_id"], e["head"]) for e in events(logged, "history.extended")]
    assert logged_heads == heads


@pytest.mark.usefixtures("logged")
def test_heads_that_were_not_logged_are_logged_again(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, clock: FakeClock
) -> None:
    """Heads whose line could not be written are logged again, and a gauge has the time."""
    metrics, log, begun = Metrics("test"), FullDisk(lost=2), clock().timestamp()
    structlog.configure(processors=[lambda *event: event[2]], logger_factory=lambda *_: log)
    start(plan(watch("team/api", interval=HOUR), a=registry), metrics=metrics)
    scheduler.advance(seconds=15)
    assert gauge(metrics, "tagsync_last_heads_logged_timestamp_seconds") == begun
    scheduler.advance(seconds=10)
    assert gauge(metrics, "tagsync_last_heads_logged_timestamp_seconds") == begun + 20
    scheduler.advance(minutes=1)
    assert len(log.heads) == 3
    assert len(set(log.heads)) == 1


def test_the_daemon_measures_the_database_and_its_pending_lines(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, database: Path
) -> None:
    """Every minute the gauges get the size of the file, and the lines that are pending."""
    metrics = Metrics("test")
    start(plan(watch("team/api", interval=HOUR), a=registry), metrics=metrics)
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_database_size_bytes") == database.stat().st_size
    assert gauge(metrics, "tagsync_pending_log_lines") == 0
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE repositories SET unlogged_from = 1")
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_pending_log_lines") == 1


def test_the_daemon_counts_the_alarms_about_immutable_tags(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, database: Path
) -> None:
    """Every minute the gauge gets the number of changes that were not accepted yet."""
    metrics = Metrics("test")
    start(plan(watch("team/api", interval=HOUR), a=registry), metrics=metrics)
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_open_immutable_changes") == 0
    add_violation(database, 1)
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_open_immutable_changes") == 1
    add_acceptance(database, 1)
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_open_immutable_changes") == 0


def test_a_database_that_cannot_be_read_leaves_its_gauges(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, logged: Log
) -> None:
    """The gauges keep their values if the database cannot be read, and the daemon goes on."""
    metrics = Metrics("test")
    start(plan(watch("team/api", interval=HOUR), a=registry), metrics=metrics)
    scheduler.advance(minutes=1)
    query("ALTER TABLE repositories RENAME COLUMN unlogged_from TO lost")
    scheduler.advance(minutes=1)
    assert gauge(metrics, "tagsync_pending_log_lines") == 0
    assert not events(logged, "daemon.failed")


STALE = "SELECT full_name, at FROM events JOIN repositories AS r ON r.id = repository_id"


def test_repository_that_becomes_stale_has_one_event(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query
) -> None:
    """Three intervals after its last listing a repository has one event; the other has none."""
    start(plan(watch("team/api", "team/web", interval=HOUR), a=registry))
    scheduler.advance(hours=2)
    registry.errors["team/api"] = [Forbidden("no")] * 100
    scheduler.advance(hours=10)
    (event,) = query(f"{STALE} WHERE kind = 'stale'")
    assert event[0] == "a/team/api"
    ((last,),) = query("SELECT last_complete_at FROM repositories WHERE name = 'team/api'")
    late = datetime.fromisoformat(event[1]) - datetime.fromisoformat(last)
    assert 3 * HOUR < late <= 3 * HOUR + 2 * MINUTE


def test_nothing_is_stale_before_its_first_poll(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, clock: FakeClock
) -> None:
    """After a long stop, a repository is stale only if its first poll ends without a listing."""
    watched = plan(watch("team/api", "team/web", interval=HOUR), rate=0.001, a=registry)
    start(watched)
    scheduler.advance(hours=1)
    clock.advance(days=3)
    registry.errors["team/api"] = [Forbidden("no")] * 100
    restarted = FakeScheduler(clock)
    start(watched, scheduler=restarted)
    restarted.advance(hours=1)
    assert [name for name, _ in query(f"{STALE} WHERE kind = 'stale'")] == ["a/team/api"]


def test_unwatched_repository_is_not_stale(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query
) -> None:
    """A repository that a reload has removed has no event."""
    first = plan(watch("team/api", "team/web", interval=HOUR), a=registry)
    daemon = start(first, reload=lambda: plan(watch("team/web", interval=HOUR), a=registry))
    scheduler.advance(hours=2)
    handle(daemon, "reload")
    scheduler.advance(hours=10)
    assert query(f"{STALE} WHERE kind = 'stale'") == []


def test_observations_end_soon_after_midnight(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, logged: Log
) -> None:
    """In the first minute of a UTC day all rows of the day before end, and the head is logged."""
    start(plan(watch("team/api", "team/web", interval=3 * HOUR), a=registry))
    scheduler.advance(hours=11)
    growing = "SELECT count(*) FROM observations WHERE ended IS NULL"
    assert query(growing) == [(2,)]
    scheduler.advance(minutes=61)
    assert query(growing) == [(0,)]
    (*_, line) = events(logged, "history.extended")
    assert [(line["ended"], line["observations_head"])] == query(
        "SELECT ended, hash FROM observations ORDER BY ended DESC LIMIT 1"
    )
    assert (line["ended"], line["change_id"]) == (2, 2)


def test_observations_of_the_last_run_end_at_the_start(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, store: Store
) -> None:
    """A daemon ends the rows of repositories that are no longer watched when it starts."""
    store.record(
        Repository("a", "team/old"),
        Failed(Unreachable("x"), "2026-05-01T12:00:00.000Z"),
        RepositoryState(),
        HOUR,
    )
    start(plan(watch("team/api", interval=3 * HOUR), a=registry))
    scheduler.run_due()
    assert query("SELECT ended FROM observations ORDER BY id")[0] == (1,)


def test_a_database_that_fails_while_rows_end_is_logged(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, query: Query, logged: Log
) -> None:
    """If rows cannot be ended, the daemon logs the error and goes on."""
    start(plan(watch("team/api"), a=registry))
    query("ALTER TABLE observations RENAME COLUMN ended TO lost")
    scheduler.run_due()
    assert all("no such column" in entry["error"] for entry in events(logged, "daemon.failed"))
    query("ALTER TABLE observations RENAME COLUMN lost TO ended")
    scheduler.advance(minutes=1)
    assert len(events(logged, "daemon.failed")) == 2
    assert events(logged, "history.extended")


def test_a_head_that_cannot_be_read_is_logged(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    logged: Log,
) -> None:
    """An unreadable database is logged as an error, and the head is logged later."""
    start(plan(watch("team/api"), a=registry))
    with monkeypatch.context() as patched:
        patched.setattr(store, "heads", raises(StoreError("the disk is gone")))
        scheduler.run_due()
    (failed,) = events(logged, "daemon.failed")
    assert failed["error"] == "the disk is gone"
    scheduler.advance(seconds=10)
    assert len(events(logged, "history.extended")) == 1


def test_bad_health_has_a_reason(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry
) -> None:
    """A stale repository is named, with its last error."""
    registry.errors["team/bad"] = [Forbidden("not yours") for _ in range(1000)]
    daemon = start(plan(watch("team/bad", "team/good"), a=registry))
    scheduler.advance(minutes=3)
    assert daemon.health() == []
    scheduler.advance(seconds=1)
    (sentence,) = daemon.health()
    assert sentence == (
        "a/team/bad has had no complete listing for three intervals (the last: never; not yours)"
    )
    assert "1 failing, 1 stale" in daemon.summary()
    assert "with 1 tags" in daemon.summary()


def test_alternation_fails_health_while_it_lasts_also_after_a_restart(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    store: Store,
    clock: FakeClock,
    logged: Log,
) -> None:
    """Health names a repository whose states alternate; a new daemon knows it at its start."""
    daemon = start(plan(watch("team/api"), a=registry))
    for digest in ("sha256:1", "sha256:2", "sha256:1"):
        registry.digests["team/api"] = digest
        scheduler.advance(minutes=1)
        assert daemon.health() == []
    registry.digests["team/api"] = "sha256:2"
    scheduler.advance(minutes=1)
    (sentence,) = daemon.health()
    assert sentence.startswith("a/team/api alternates between two states")
    scheduler.stop()
    again = FakeScheduler(clock)
    second = Daemon(
        plan(watch("team/api", interval=HOUR), a=registry),
        raises(ConfigError("never")),
        store,
        Metrics("test"),
        FakeManager(),
        scheduler=again,
        clock=clock,
        monotonic=again.monotonic,
    )
    assert second.health() == []
    second.start()
    assert second.health() == [sentence]
    registry.digests["team/api"] = "sha256:3"
    again.run_due()
    assert second.health() == []
    phases = [entry["phase"] for entry in events(logged, "listings.alternating")]
    assert phases == ["began", "ended"]


def test_recorded_repositories_are_known_at_the_start(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, store: Store, clock: FakeClock
) -> None:
    """After a restart the daemon knows the repositories, their tags, and their age."""
    registry.found = [{"team/api"}]
    first = start(plan(watch("team/*"), a=registry))
    scheduler.run_due()
    scheduler.stop()
    clock.advance(minutes=4)
    assert first.health() != []
    again = FakeScheduler(clock)
    unreachable = FakeRegistry(clock)
    unreachable.found = [Unreachable("down")]
    unreachable.errors["team/api"] = [Unreachable("down")]
    second = Daemon(
        plan(watch("team/*"), a=unreachable),
        raises(ConfigError("never")),
        store,
        Metrics("test"),
        FakeManager(),
        scheduler=again,
        clock=clock,
        monotonic=again.monotonic,
    )
    second.start()
    again.run_due()
    assert len(unreachable.polls["team/api"]) == 1
    (counts,) = second.census()
    assert (counts.repositories, counts.tags, counts.failing, counts.stale) == (1, 1, 1, 1)
