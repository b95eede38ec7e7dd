"""The counts of changes by day: they are recorded with the changes, and only with them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.clock import timestamp
from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.errors import StoreError
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.decide import diff
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import faults_of
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]

DAYS = "SELECT * FROM daily_changes ORDER BY day, repository_id"


def test_each_change_counts_once_under_its_kind(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, query: Query
) -> None:
    """The first listing, and every kind of later change, count in a column each."""
    scripted.then("a", "b", "c", "d")
    scripted.then(Tag("a", "sha256:x"), Tag("b", "sha256:b", size=7), "c", "e", "f")
    for _ in range(2):
        clock.advance(minutes=5)
        poll(job, store, clock=clock)
    columns = "baseline, added, moved, updated, deleted"
    assert query(f"SELECT {columns} FROM daily_changes") == [(4, 2, 1, 1, 1)]


def test_a_change_from_or_to_no_digest_is_not_a_move(
    job: Job, store: Store, clock: FakeClock, query: Query
) -> None:
    """A tag that is resolved for the first time counts as updated."""
    for tag in (Tag("a"), Tag("a", "sha256:1"), Tag("a")):
        clock.advance(minutes=5)
        now = timestamp(clock())
        tags = {"a": tag}
        images = {"sha256:1": Image("sha256:1")}
        changes = diff(store.tags(job.repository), tags)
        accepted = Accepted(Listing(tags, images, now, now, None), changes)
        store.record(job.repository, accepted, store.state(job.repository), job.interval)
    assert query("SELECT baseline, moved, updated FROM daily_changes") == [(1, 0, 2)]


def test_days_and_repositories_are_counted_apart(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, query: Query
) -> None:
    """A day and a repository have a row, to which each poll of the day adds."""
    other = msgspec.structs.replace(job, repository=Repository("swr", "team/web"))
    for number in range(3):
        for each in (job, other):
            scripted.then(*(f"v{n}" for n in range(number + 1)))
            poll(each, store, clock=clock)
        clock.advance(hours=6)
    assert query("SELECT day, repository_id, baseline, added FROM daily_changes ORDER BY 1, 2") == [
        ("2026-05-03", 1, 1, 1),
        ("2026-05-03", 2, 1, 1),
        ("2026-05-04", 1, 0, 1),
        ("2026-05-04", 2, 0, 1),
    ]


def test_the_day_is_that_of_the_recorded_time(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, database: Path, query: Query
) -> None:
    """If the clock is set back by a week, the changes count on the day that is recorded."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(days=-7)
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    assert query("SELECT day, baseline, added FROM daily_changes") == [("2026-05-03", 1, 1)]
    assert query("SELECT DISTINCT substr(observed_at, 1, 10) FROM changes") == [("2026-05-03",)]
    store.close()
    assert faults_of(database) == {}


def test_a_poll_without_changes_writes_no_counts(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, query: Query
) -> None:
    """An idle poll on a new day adds no row."""
    for _ in range(2):
        scripted.then("a")
        poll(job, store, clock=clock)
        clock.advance(days=1)
    assert [row[0] for row in query(DAYS)] == ["2026-05-03"]


def test_a_dropped_listing_counts_nothing(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, query: Query
) -> None:
    """A listing that another one has overtaken changes no count."""
    before = store.state(job.repository)
    scripted.then("a")
    poll(job, store, clock=clock)
    counted = query(DAYS)
    now = timestamp(clock())
    tags = {"b": Tag("b", "sha256:b")}
    late = Accepted(Listing(tags, {"sha256:b": Image("sha256:b")}, now, now, None), diff({}, tags))
    assert store.record(job.repository, late, before, job.interval) is None
    assert query(DAYS) == counted


def test_a_poll_that_is_undone_counts_nothing(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, database: Path, query: Query
) -> None:
    """If a poll fails after its changes were written, its counts are undone with them."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON observations"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    scripted.then("a")
    with pytest.raises(StoreError, match="refused"):
        poll(job, store, clock=clock)
    assert query("SELECT count(*) FROM changes") == [(0,)]
    assert query(DAYS) == []


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("repository_id = 1 ORDER BY id DESC LIMIT 50", "changes_of_repository"),
        ("repository_id = 1 AND id > 7 ORDER BY id", "changes_of_repository"),
        (
            "repository_id = 1 AND observed_at > '2026-05-03' ORDER BY id DESC",
            "changes_of_repository",
        ),
        ("repository_id = 1 AND tag = 'a' AND observed_at < '2026' ORDER BY id", "changes_of_tag"),
    ],
)
def test_changes_of_a_repository_are_read_in_their_order(
    where: str, index: str, store: Store, query: Query
) -> None:
    """The newest changes of a repository need no sorting, and those of a tag no more rows."""
    assert store.heads().changes.change_id == 0
    (step,) = query(f"EXPLAIN QUERY PLAN SELECT * FROM changes WHERE {where}")
    assert f" {index} " in step[3]
