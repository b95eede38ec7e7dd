"""A pass over many repositories: their order, and failures that stay apart."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from tagsync.database.outcomes import PendingLog
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import DatabaseLocked, StoreError
from tagsync.models import EVERYTHING, Image, Listing, Repository, Scope, Tag, Unchanged
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.run_once import run_once
from tagsync.registries import Registry
from tagsync.registries.deadline import waiting
from tagsync.registries.lanes import LanePool
from tests.support.calls import raised_by
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


class RefusingStore(Store):
    """A store that raises an error instead of recording the first poll."""

    def refuse(self, error: StoreError) -> None:
        self.errors = [error]

    def record(self, *arguments: Any) -> PendingLog | None:
        if self.errors:
            raise self.errors.pop()
        return super().record(*arguments)


class GatedRegistry(Scripted):
    """A registry that waits for a gate before every listing but the first."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.calls = 0
        self.gate = Event()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        self.calls += 1
        assert self.calls == 1 or self.gate.wait(10)
        return super().list_tags(repository, known, scope)


def test_failed_repository_does_not_stop_the_pass(
    connect: Callable[..., Registry], store: Store
) -> None:
    """If one repository fails, the pass records the others and keeps the order."""
    with Emulator() as swr:
        for name in ("a", "b", "d"):
            swr.push(f"team/{name}", "v1", name)
        registry = connect(swr.url)
        jobs = [
            Job(Repository("swr", f"team/{name}"), registry, timedelta(minutes=5))
            for name in "abcd"
        ]
        polls = run_once(jobs, store, {"swr": LanePool(3)})
    assert [(result.repository.name, result.outcome) for result in polls] == [
        ("team/a", "ok"),
        ("team/b", "ok"),
        ("team/c", "failed"),
        ("team/d", "ok"),
    ]


@pytest.mark.parametrize(
    ("altered", "condition"),
    [
        ("tags SET digest = 'sha256:forged'", "repository_id = 2"),
        ("repositories SET last_complete_at = 'never'", "id = 2"),
        ("repositories SET listing_hash = CAST(X'ff' AS TEXT)", "id = 2"),
        ("tags SET digest = CAST(X'ff' AS TEXT)", "repository_id = 2"),
    ],
    ids=["found while recording", "found before polling", "not UTF-8", "not UTF-8 in tags"],
)
def test_damaged_record_fails_alone(
    altered: str,
    condition: str,
    scripted: Scripted,
    store: Store,
    database: Path,
    query: Query,
    logged: Events,
) -> None:
    """A repository with a damaged record fails; the others in the pass are recorded."""
    jobs = [
        Job(Repository("swr", f"team/{name}"), scripted, timedelta(minutes=5)) for name in "abc"
    ]
    polls: list[Poll] = []
    for tags in (("x",), ("x", "y")):
        for _ in jobs:
            scripted.then(*tags)
        polls = run_once(jobs, store, {"swr": LanePool(1)})
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"UPDATE {altered} WHERE {condition}")
            connection.commit()
    assert [result.outcome for result in polls] == ["ok", "failed", "ok"]
    assert "did not write" in str(polls[1].detail)
    failed = [e for e in logged if e["event"] == "sync.failed"]
    assert [(e["repository"], e["error"]) for e in failed] == [("swr/team/b", polls[1].detail)]
    added = {(r, tag) for r, tag in query("SELECT repository_id, tag FROM changes")}
    assert added == {(1, "x"), (2, "x"), (3, "x"), (1, "y"), (3, "y")}
    assert [e["repository"] for e in logged if e["event"] == "tag.added"] == [
        "swr/team/a",
        "swr/team/c",
    ]


def test_unexpected_exception_ends_the_pass(scripted: Scripted, store: Store, query: Query) -> None:
    """The pass raises an unexpected exception of a poll's thread instead of waiting."""
    jobs = [Job(Repository("swr", f"team/{n}"), scripted, timedelta(minutes=5)) for n in range(2)]
    scripted.then("x")
    scripted.script.append(SystemExit())
    assert isinstance(raised_by(lambda: run_once(jobs, store, {"swr": LanePool(1)})), SystemExit)
    assert query("SELECT count(*) FROM repositories") == [(1,)]


def test_database_failure_stops_the_pass(database: Path, clock: FakeClock) -> None:
    """After a database failure no further repository is polled, and the threads end."""
    registry = GatedRegistry(clock)
    before = set(threading.enumerate())
    jobs = [Job(Repository("swr", f"team/{n}"), registry, timedelta(minutes=5)) for n in range(5)]
    for _ in jobs:
        registry.then("x")
    with RefusingStore.open(database) as store:
        store.refuse(DatabaseLocked("locked"))
        with pytest.raises(DatabaseLocked):
            run_once(jobs, store, {"swr": LanePool(1)})
        registry.gate.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive()
    assert registry.calls <= 2


class HangingRegistry(Scripted):
    """A registry that does not answer for bad repositories until the good ones are polled."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.gate = Event()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        if "bad" in repository:
            with waiting():
                assert self.gate.wait(10)
        return super().list_tags(repository, known, scope)


def test_repositories_that_hang_do_not_keep_others_waiting(clock: FakeClock, store: Store) -> None:
    """A pass with one thread polls all others while more repositories hang than it has threads."""
    registry = HangingRegistry(clock)
    names = [f"team/bad{n}" for n in range(5)] + [f"team/good{n}" for n in range(5)]
    jobs = [Job(Repository("swr", name), registry, timedelta(minutes=5)) for name in names]
    for _ in jobs:
        registry.then("x")
    polled: list[str] = []

    def open_gate(result: Poll) -> None:
        polled.append(result.repository.name)
        if len(polled) == 5:
            registry.gate.set()

    polls = run_once(jobs, store, {"swr": LanePool(1, 0.01)}, on_poll=open_gate)
    assert [result.repository.name for result in polls] == names
    assert sorted(polled[:5]) == names[5:]


def test_manifest_of_a_shared_image_is_recorded(
    scripted: Scripted, store: Store, query: Query
) -> None:
    """A manifest that only one of two listings in a pass has is recorded."""
    jobs = [Job(Repository("swr", f"team/{name}"), scripted, timedelta(minutes=5)) for name in "ab"]
    bare = Image("sha256:1")
    for image in (bare, msgspec.structs.replace(bare, manifest="{}", verified=True)):
        scripted.then(Tag("x", "sha256:1"))
        listing: Any = scripted.script.pop()
        scripted.script.append(msgspec.structs.replace(listing, images={"sha256:1": image}))
    run_once(jobs, store, {"swr": LanePool(1)})
    assert query("SELECT digest, manifest, verified FROM images") == [("sha256:1", "{}", 1)]


def test_only_a_dry_run_returns_changes(scripted: Scripted, store: Store, logged: Events) -> None:
    """A dry run passes its changes on once, and keeps none; a real pass passes on none."""
    jobs = [Job(Repository("swr", "team/a"), scripted, timedelta(minutes=5))]
    seen: list[Poll] = []
    for options in (Options(dry_run=True), Options()):
        scripted.then("x", "y")
        polls = run_once(jobs, store, {"swr": LanePool(1)}, options, seen.append)
        assert [(result.added, result.first, result.changes) for result in polls] == [(2, True, ())]
    assert [[change.tag for change in result.changes] for result in seen] == [["x", "y"], []]
    assert [e["event"] for e in logged if e["event"] == "pass.finished"] == ["pass.finished"]


def test_moves_are_counted_apart_from_updates(scripted: Scripted, store: Store) -> None:
    """A poll counts the updated tags that point to another image; a first listing moves none."""
    jobs = [Job(Repository("swr", "team/a"), scripted, timedelta(minutes=5))]
    for tags in (
        [Tag("x", "sha256:1"), Tag("y", "sha256:1")],
        [Tag("x", "sha256:2"), Tag("y", "sha256:1", size=5)],
    ):
        scripted.then(*tags)
        (result,) = run_once(jobs, store, {"swr": LanePool(1)})
    assert (result.updated, result.moved, result.first) == (2, 1, False)
