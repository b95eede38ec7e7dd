"""A daemon without threads: its scheduler is stepped by the test's clock."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tagsync.daemon.metrics import Metrics
from tagsync.daemon.service import Daemon
from tagsync.daemon.watchlist import Plan
from tagsync.database.store import Store
from tests.support.clock import FakeClock
from tests.support.daemon import FakeManager, FakeRegistry
from tests.support.scheduler import FakeScheduler


@pytest.fixture
def scheduler(clock: FakeClock) -> FakeScheduler:
    return FakeScheduler(clock)


@pytest.fixture
def registry(clock: FakeClock) -> FakeRegistry:
    return FakeRegistry(clock)


@pytest.fixture
def start(
    store: Store, clock: FakeClock, scheduler: FakeScheduler
) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, and stops them after the test."""
    started: list[Daemon] = []

    def begin(first: Plan, **options: Any) -> Daemon:
        daemon = Daemon(
            first,
            options.pop("reload", lambda: first),
            store,
            options.pop("metrics", None) or Metrics("test"),
            options.pop("manager", None) or FakeManager(),
            scheduler=options.pop("scheduler", scheduler),
            clock=clock,
            monotonic=scheduler.monotonic,
            **options,
        )
        daemon.start()
        started.append(daemon)
        return daemon

    yield begin
    for daemon in started:
        daemon.stop()
