"""The daemon with the real scheduler and its threads; tests wait for events only."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest
from msgspec.structs import replace

from tagsync.clock import utc_now
from tagsync.daemon import service
from tagsync.daemon.metrics import Metrics
from tagsync.daemon.service import Daemon
from tagsync.daemon.watchlist import Plan
from tagsync.database.store import Store
from tagsync.errors import TimedOut
from tagsync.models import EVERYTHING, Listing, Scope, Unchanged
from tagsync.registries.deadline import HANGING_PER_THREAD
from tests.support.daemon import HOUR, FakeManager, FakeRegistry, plan, watch

WITHIN = 10.0
OFTEN = timedelta(milliseconds=20)


class GatedRegistry(FakeRegistry):
    """A registry that reports when polls begin, and whose polls can be made to hang."""

    def __init__(self) -> None:
        super().__init__(utc_now)
        self.began: SimpleQueue[str] = SimpleQueue()
        self.gates: dict[str, Event] = {}
        self.was_closed = Event()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        self.began.put(repository)
        if gate := self.gates.get(repository):
            assert gate.wait(WITHIN)
        return super().list_tags(repository, known, scope)

    def close(self) -> None:
        super().close()
        self.was_closed.set()

    def hang(self, *repositories: str) -> Event:
        """Makes the polls of these repositories hang until the event is set."""
        gate = Event()
        self.gates |= dict.fromkeys(repositories, gate)
        return gate

    def await_polls(self, *repositories: str) -> None:
        """Waits until these repositories have been polled, in this order, among others."""
        for name in repositories:
            while self.began.get(timeout=WITHIN) != name:
                pass


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, and stops them after the test."""
    started: list[Daemon] = []

    def begin(first: Plan, **options: Any) -> Daemon:
        daemon = Daemon(first, lambda: first, store, Metrics("test"), FakeManager(), **options)
        daemon.start()
        started.append(daemon)
        return daemon

    yield begin
    for daemon in started:
        daemon.stop()


def test_a_slow_registry_delays_no_other(start: Callable[..., Daemon]) -> None:
    """While every thread of one registry waits for it, the polls of another go on."""
    slow, quick = GatedRegistry(), GatedRegistry()
    names = [f"team/r{number}" for number in range(8)]
    gate = slow.hang(*names)
    watches = (
        watch(*names, registry="slow", interval=OFTEN),
        watch("team/api", registry="quick", interval=OFTEN),
    )
    start(plan(*watches, concurrency=4, slow=slow, quick=quick))
    under_way = {slow.began.get(timeout=WITHIN) for _ in range(4)}
    assert len(under_way) == 4
    quick.await_polls(*["team/api"] * 5)
    assert slow.began.empty()
    gate.set()
    waiting = set(names) - under_way
    while waiting:
        waiting.discard(slow.began.get(timeout=WITHIN))


def test_a_repository_that_timed_out_does_not_keep_others_waiting(
    start: Callable[..., Daemon],
) -> None:
    """It waits in the second lane; the only thread of its registry polls the others."""
    registry = GatedRegistry()
    bad = [f"team/bad{number}" for number in range(10)]
    first = plan(watch(*bad, "team/good", interval=OFTEN), concurrency=1, a=registry)
    patient = replace(first.registries["a"], patience=0.0)
    for name in bad:
        registry.errors[name] = [TimedOut("no answer") for _ in range(1000)]
    start(replace(first, registries={"a": patient}))
    registry.await_polls("team/good", "team/good")
    gate = registry.hang(*bad)
    seen: set[str] = set()
    while len(seen & {*bad}) < HANGING_PER_THREAD:
        seen.add(registry.began.get(timeout=WITHIN))
    registry.await_polls(*["team/good"] * 5)
    gate.set()
    waiting = {*bad}
    while waiting:
        waiting.discard(registry.began.get(timeout=WITHIN))


def test_one_poll_of_a_repository_at_a_time(
    start: Callable[..., Daemon], logged: list[dict[str, Any]]
) -> None:
    """A repository is not polled while its poll hangs, and soon after it ends."""
    registry = GatedRegistry()
    gate = registry.hang("team/api")
    daemon = start(plan(watch("team/api", "team/other", interval=OFTEN), a=registry))
    began = [registry.began.get(timeout=WITHIN) for _ in range(10)]
    assert began.count("team/api") == 1
    overruns = [entry["repository"] for entry in logged if entry["event"] == "daemon.overrun"]
    # On a busy machine the other one may be late as well.
    assert overruns.count("a/team/api") == 1
    daemon.apply_plan(plan(watch("team/other", interval=OFTEN), watch("team/api"), a=registry))
    gate.set()
    registry.await_polls("team/api")


def test_a_registry_is_replaced_under_a_poll(start: Callable[..., Daemon]) -> None:
    """A poll under way ends on the old registry, which is then closed."""
    old, new = GatedRegistry(), GatedRegistry()
    gate = old.hang("team/api")
    daemon = start(plan(watch("team/api", interval=OFTEN), a=old))
    old.await_polls("team/api")
    daemon.apply_plan(plan(watch("team/api", "team/other", interval=OFTEN), a=new))
    assert {new.began.get(timeout=WITHIN) for _ in range(5)} == {"team/other"}
    assert not old.was_closed.is_set()
    gate.set()
    assert old.was_closed.wait(WITHIN)
    new.await_polls("team/api", "team/api")
    assert len(old.polls["team/api"]) == 1


def test_the_clock_is_checked_between_requests(
    start: Callable[..., Daemon], logged: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread detects that the clock was set back, and polls everything."""
    monkeypatch.setattr(service, "_CLOCK_CHECK_INTERVAL", 0.01)
    registry = GatedRegistry()
    by = timedelta()
    hourly = plan(watch("team/api", interval=HOUR), a=registry)
    daemon = start(hourly, clock=lambda: utc_now() - by)
    registry.await_polls("team/api")
    loop = Thread(target=daemon.run_loop)
    loop.start()
    by = timedelta(hours=1)
    registry.await_polls("team/api")
    daemon.request("stop")
    loop.join(WITHIN)
    (entry,) = (entry for entry in logged if entry["event"] == "daemon.clock_set_back")
    assert 3590 < entry["seconds"] < 3610


def test_a_stop_is_complete_if_nothing_hangs(store: Store) -> None:
    """A daemon whose polls end by themselves stops completely."""
    registry = GatedRegistry()
    first = plan(watch("team/api", interval=HOUR), a=registry)
    daemon = Daemon(first, lambda: first, store, Metrics("test"), FakeManager())
    daemon.start()
    registry.await_polls("team/api")
    assert daemon.stop()
