"""Overlapping polls of one repository: the older listing is dropped."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.clock import timestamp
from tagsync.database.outcomes import PendingLog
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import Unreachable
from tagsync.models import EVERYTHING, Listing, ListUse, Scope, Unchanged
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.clock import FakeClock
from tests.support.polls import counts, event_names
from tests.support.record import assert_history_is_whole
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


class OvertakenRegistry:
    """A registry that runs another poll before it returns its listing."""

    def __init__(self, registry: Registry, other: Callable[[], Poll]) -> None:
        self._registry = registry
        self._other = other
        self.meanwhile: list[str] = []

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        answer = self._registry.list_tags(repository, known, scope)
        self.meanwhile.append(self._other().outcome)
        return answer

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        return self._registry.list_repositories(globs, shared=shared)

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse | None:
        return self._registry.list_use(repository, scope)

    def close(self) -> None:
        self._registry.close()


class OvertakenStore(Store):
    """A store that runs another poll between a decision and its recording."""

    def run_before_recording(self, other: Callable[[], object]) -> None:
        self._others = [other]

    def record(self, *arguments: Any) -> PendingLog | None:
        while self._others:
            self._others.pop()()
        return super().record(*arguments)


def test_older_listing_is_dropped(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that was read before another one was recorded is dropped."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    scripted.then("a")
    scripted.then("a", "b", "c")
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=overtaken), store, clock=clock)
    assert (result.outcome, overtaken.meanwhile) == ("dropped", ["ok"])
    assert query("SELECT tag, kind FROM changes ORDER BY id") == [
        ("a", "added"),
        ("b", "added"),
        ("c", "added"),
    ]


def test_older_unchanged_listing_is_dropped(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """An unchanged listing is dropped if another listing was recorded meanwhile."""
    scripted.then("a")
    poll(job, store, clock=clock)
    unchanged = Unchanged(timestamp(clock.now), timestamp(clock.now), "the fingerprint")
    scripted.script.append(unchanged)
    scripted.then("a", "b")
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    assert poll(msgspec.structs.replace(job, registry=overtaken), store, clock=clock).outcome == (
        "dropped"
    )
    assert query("SELECT polls, tags FROM observations") == [(2, 2)]


def test_older_first_listing_is_dropped(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Of two first listings at the same time, the one recorded first is the baseline."""
    scripted.then("a", "b")
    scripted.then("a")
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=overtaken), store, clock=clock)
    assert (result.outcome, overtaken.meanwhile) == ("dropped", ["ok"])
    assert query("SELECT tag FROM tags") == [("a",)]


@pytest.mark.parametrize("known", [True, False])
def test_outdated_decision_is_dropped(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    database: Path,
    query: Query,
    known: bool,
) -> None:
    """A decision is dropped if another listing was recorded after it was made."""
    if known:
        scripted.then("a")
        poll(job, store, clock=clock)
    scripted.then("a", "late")
    scripted.then("a", "soon")
    with OvertakenStore.open(database) as overtaken_store:
        overtaken_store.run_before_recording(lambda: poll(job, store, clock=clock))
        result = poll(job, overtaken_store, clock=clock)
    assert counts(result) == ("dropped", 0, 0, 0)
    assert query("SELECT tag FROM tags ORDER BY tag") == [("a",), ("soon",)]
    assert_history_is_whole(database)


@pytest.mark.parametrize("known", [True, False])
def test_failure_after_a_decision_drops_nothing(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    database: Path,
    query: Query,
    known: bool,
) -> None:
    """A decision is recorded even if another poll has failed since it was made."""
    if known:
        scripted.then("a")
        poll(job, store, clock=clock)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))
    with OvertakenStore.open(database) as overtaken_store:
        overtaken_store.run_before_recording(lambda: poll(job, store, clock=clock))
        assert counts(poll(job, overtaken_store, clock=clock)) == ("ok", 1 if known else 2, 0, 0)
    assert query("SELECT failures, last_error FROM repositories") == [(0, None)]
    assert_history_is_whole(database)


def test_dry_run_reports_a_dropped_listing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A dry run reports that its listing would be dropped."""
    scripted.then("a", "late")
    scripted.then("a", "soon")
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    result = poll(
        msgspec.structs.replace(job, registry=overtaken), store, Options(dry_run=True), clock
    )
    assert counts(result) == ("dropped", 0, 0, 0)


def test_failure_during_a_poll_drops_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A listing is recorded even if another poll has failed since it was read."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=overtaken), store, clock=clock)
    assert (result.outcome, result.added, overtaken.meanwhile) == ("ok", 1, ["failed"])


def test_later_failure_logs_no_clock_warning(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    logged: Events,
    database: Path,
) -> None:
    """A listing recorded after another poll's later failure logs no clock warning."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(seconds=1)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))

    def fail_later() -> Poll:
        clock.advance(milliseconds=5)
        return poll(job, store, clock=clock)

    overtaken = msgspec.structs.replace(job, registry=OvertakenRegistry(scripted, fail_later))
    assert poll(overtaken, store, clock=clock).outcome == "ok"
    assert event_names(logged, "clock.") == []
    assert query("SELECT outcome, detail, last_at FROM observations ORDER BY id") == [
        ("ok", None, "2026-05-03T12:00:00.000Z"),
        ("failed", "for a moment", "2026-05-03T12:00:01.005Z"),
        ("ok", None, "2026-05-03T12:00:01.005Z"),
    ]
    assert_history_is_whole(database)


def test_overlapping_held_listings_do_not_agree(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Two listings that were read at the same time do not count as agreeing."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then()
    scripted.then()
    overtaken = OvertakenRegistry(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=overtaken), store, clock=clock)
    assert (result.outcome, overtaken.meanwhile) == ("dropped", ["held"])
    assert query("SELECT count(*) FROM tags") == [(1,)]


def test_two_stores_record_each_change_once(
    connect: Callable[..., Registry], database: Path, query: Query
) -> None:
    """Two stores that poll one repository at the same time record each change once."""
    with Emulator() as swr, Store.open(database) as one, Store.open(database) as two:
        jobs = [Job(REPOSITORY, connect(swr.url), timedelta(minutes=5)) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            for number in range(30):
                swr.push("team/api", f"v{number}", f"build {number}")
                swr.push("team/api", "latest", f"build {number}")
                list(pool.map(poll, jobs, (one, two)))
        assert poll(jobs[0], one).outcome == "ok"
        registry_tags = swr.tags("team/api")
    assert dict(query("SELECT tag, digest FROM tags")) == registry_tags
    added = query("SELECT tag FROM changes WHERE kind = 'added'")
    assert len(added) == len(set(added)) == 31
    assert_history_is_whole(database)
