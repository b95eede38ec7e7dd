"""The events of repositories that have become stale."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
WATCHES = {REPOSITORY: Watch("swr", ("team/api",), interval=timedelta(minutes=5))}
STALE = "SELECT at, repository_id, tag, change_id, detail FROM events WHERE kind = 'stale'"
COUNT = "SELECT count(*) FROM events WHERE kind = 'stale'"


@pytest.fixture
def poll_at(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Poll at a minute; the poll lists a tag or fails. Then look for stale repositories."""

    def run(minute: int, *, listed: bool) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        if listed:
            scripted.then("a")
        else:
            scripted.script.append(Unreachable("no connection"))
        poll(job, store, clock=clock)
        store.report_stale(WATCHES, clock.now)

    return run


def test_stale_repository_has_one_event(poll_at: Callable[..., None], query: Query) -> None:
    """A repository that is not listed for three intervals has one event until it is listed."""
    poll_at(0, listed=True)
    for minute in range(5, 20, 5):
        poll_at(minute, listed=False)
    assert query(STALE) == []
    for minute in range(20, 60, 5):
        poll_at(minute, listed=False)
    detail = '{"last_complete_at":"2026-05-03T12:00:00.000Z"}'
    assert query(STALE) == [("2026-05-03T12:20:00.000Z", 1, None, None, detail)]
    poll_at(60, listed=True)
    poll_at(76, listed=False)
    assert query(COUNT) == [(2,)]


def test_restart_repeats_no_event(
    poll_at: Callable[..., None], query: Query, database: Path, clock: FakeClock
) -> None:
    """Another process, which finds the same repository stale, writes no second event."""
    poll_at(0, listed=True)
    poll_at(20, listed=False)
    with Store.open(database) as other:
        other.report_stale(WATCHES, clock.now + timedelta(days=2))
    assert query(COUNT) == [(1,)]


def test_repository_that_was_never_listed_counts_from_its_first_poll(
    poll_at: Callable[..., None], query: Query
) -> None:
    """It becomes stale three intervals after its first poll, once, and has no last listing."""
    for minute in range(0, 20, 5):
        poll_at(minute, listed=False)
    assert query(STALE) == []
    for minute in range(20, 40, 5):
        poll_at(minute, listed=False)
    (event,) = query(STALE)
    assert event[0] == "2026-05-03T12:20:00.000Z"
    assert event[4] == '{"last_complete_at":null}'


def test_clock_that_was_set_back_writes_one_event(
    poll_at: Callable[..., None], query: Query, store: Store, clock: FakeClock
) -> None:
    """If the clock is far behind the record, the event gets the time of the last listing."""
    poll_at(0, listed=True)
    for _ in range(3):
        store.report_stale(WATCHES, clock.now - timedelta(hours=1))
    assert [at for at, *_ in query(STALE)] == ["2026-05-03T12:00:00.000Z"]


def test_repository_without_a_poll_has_no_event(store: Store, query: Query) -> None:
    """Nothing is written about a repository that is not in the record."""
    other = {Repository("swr", "team/other"): WATCHES[REPOSITORY]}
    store.report_stale(other, FakeClock().now + timedelta(days=1))
    assert query(COUNT) == [(0,)]


def test_listing_in_between_prevents_the_event(
    poll_at: Callable[..., None], query: Query, store: Store, clock: FakeClock
) -> None:
    """The record decides, not the caller: another process may have listed the repository."""
    poll_at(0, listed=True)
    poll_at(30, listed=True)
    store.report_stale(WATCHES, clock.now)
    assert query(COUNT) == [(0,)]


def test_damaged_row_does_not_hide_others(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query, database: Path
) -> None:
    """A repository whose time is damaged has no event, and the others have theirs."""
    other = Repository("swr", "team/other")
    for repository in (REPOSITORY, other):
        scripted.then("a")
        poll(replace(job, repository=repository), store, clock=clock)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE repositories SET last_complete_at = 'x' WHERE id = 1")
    watches = dict.fromkeys((REPOSITORY, other), WATCHES[REPOSITORY])
    store.report_stale(watches, clock.now + timedelta(days=1))
    assert query("SELECT repository_id FROM events WHERE kind = 'stale'") == [(2,)]
