"""Observations: when a row ends, what its hash covers, and damage that is recorded as a failure."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tagsync.database.hash_chain import (
    GENESIS,
    OBSERVATION_COLUMNS,
    REPOSITORY_COLUMNS,
    link_observation,
)
from tagsync.database.outcomes import Damaged
from tagsync.database.state import Freshness
from tagsync.database.store import Store
from tagsync.errors import DamagedRecord, Unreachable
from tagsync.models import Listing, Repository
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tagsync.polling.run_once import run_once
from tagsync.registries.lanes import LanePool
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
PollAt = Callable[..., None]

RUNS = "SELECT first_at, last_at, polls, ended, change_id FROM observations ORDER BY id"


@pytest.fixture
def poll_on(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> PollAt:
    """Poll on a day of May 2026 at a time; the poll lists one tag, or fails."""

    def run(day: int, time: str, *, fails: bool = False, tags: str = "a", job: Job = job) -> None:
        hour, minute = map(int, time.split(":"))
        clock.now = clock.now.replace(day=day, hour=hour, minute=minute)
        if fails:
            scripted.script.append(Unreachable("no connection"))
        else:
            scripted.then(*tags)
        poll(job, store, clock=clock)

    return run


def at(day: int, time: str) -> str:
    return f"2026-05-{day:02}T{time}:00.000Z"


def tamper(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(sql).rowcount


def test_a_row_ends_when_a_poll_does_not_continue_it(poll_on: PollAt, query: Query) -> None:
    """Another result and a gap end a row; its change is the newest one at that moment."""
    poll_on(3, "12:00")
    poll_on(3, "12:05", fails=True)
    poll_on(3, "12:10", tags="ab")
    poll_on(3, "12:15")
    poll_on(3, "13:00")
    assert query(RUNS) == [
        (at(3, "12:00"), at(3, "12:00"), 1, 1, 1),
        (at(3, "12:05"), at(3, "12:05"), 1, 2, 2),
        (at(3, "12:10"), at(3, "12:15"), 2, 3, 3),
        (at(3, "13:00"), at(3, "13:00"), 1, None, None),
    ]


def test_a_row_that_ends_before_any_change_has_none(poll_on: PollAt, query: Query) -> None:
    """Without a change in the database, change_id is null, and the hash covers 64 zeros for it."""
    poll_on(3, "12:00", tags="")
    poll_on(3, "12:05", fails=True)
    columns = ", ".join(OBSERVATION_COLUMNS)
    ((change_id, digest, *row),) = query(
        f"SELECT change_id, hash, {columns} FROM observations WHERE ended = 1"
    )
    assert change_id is None
    assert digest == link_observation(GENESIS, 1, REPOSITORY.full_name, row, None, GENESIS)


def test_midnight_ends_a_row_and_leaves_no_gap(poll_on: PollAt, query: Query) -> None:
    """On a new UTC day a run goes on in a new row, which begins with the last poll before it."""
    poll_on(3, "23:50")
    poll_on(3, "23:55")
    poll_on(4, "00:00")
    poll_on(4, "00:05")
    assert query(RUNS) == [
        (at(3, "23:50"), at(3, "23:55"), 2, 1, 1),
        (at(3, "23:55"), at(4, "00:05"), 2, None, None),
    ]


def test_another_result_or_a_gap_at_midnight_is_not_bridged(poll_on: PollAt, query: Query) -> None:
    """A row that does not only begin because of the day begins with its own first poll."""
    poll_on(3, "23:55")
    poll_on(4, "00:00", fails=True)
    poll_on(4, "23:55", fails=True)
    poll_on(5, "00:30", fails=True)
    assert [row[:2] for row in query(RUNS)] == [
        (at(3, "23:55"), at(3, "23:55")),
        (at(4, "00:00"), at(4, "00:00")),
        (at(4, "23:55"), at(4, "23:55")),
        (at(5, "00:30"), at(5, "00:30")),
    ]


def test_complete_listings_with_other_results_leave_no_gap(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """The time between two complete listings is covered, also if they differ in source or reasons.

    Between a listing and a failure there is no such row, nor across a gap.
    """
    sources = ("head", "zot", "head", None, "head")
    for minutes, source in zip((0, 5, 10, 15, 60), sources, strict=True):
        clock.now = FakeClock().now + timedelta(minutes=minutes)
        if source is None:
            scripted.script.append(Unreachable("no connection"))
        else:
            scripted.then("a")
            (listing,) = scripted.script
            assert isinstance(listing, Listing)
            scripted.script = [replace(listing, source=source)]
        poll(job, store, clock=clock)
    assert [row[:3] for row in query(RUNS)] == [
        (at(3, "12:00"), at(3, "12:00"), 1),
        (at(3, "12:00"), at(3, "12:05"), 1),
        (at(3, "12:05"), at(3, "12:10"), 1),
        (at(3, "12:15"), at(3, "12:15"), 1),
        (at(3, "13:00"), at(3, "13:00"), 1),
    ]


def test_a_run_goes_on_after_its_row_was_ended(poll_on: PollAt, store: Store, query: Query) -> None:
    """If a row was ended although its run goes on, a new row continues without a gap."""
    poll_on(3, "23:55")
    store.end_past_observations("2026-05-04")
    poll_on(3, "23:59")
    poll_on(4, "00:04")
    assert query(RUNS) == [
        (at(3, "23:55"), at(3, "23:55"), 1, 1, 1),
        (at(3, "23:55"), at(3, "23:59"), 1, 2, 1),
        (at(3, "23:59"), at(4, "00:04"), 1, None, None),
    ]


def test_a_pass_ends_all_rows_of_earlier_days(
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    database: Path,
    logged: list[dict[str, Any]],
) -> None:
    """A pass also ends the rows of repositories that it does not poll, and logs their head."""
    jobs = [Job(Repository("swr", f"team/{n}"), scripted, timedelta(minutes=5)) for n in range(701)]
    for _ in jobs:
        scripted.then("a")
    run_once(jobs, store, {"swr": LanePool(1)}, clock=clock)
    assert query("SELECT count(*) FROM observations WHERE ended IS NULL") == [(701,)]
    clock.advance(days=1)
    scripted.then("a")
    run_once(jobs[:1], store, {"swr": LanePool(1)}, Options(dry_run=True), clock=clock)
    assert query("SELECT count(*) FROM observations WHERE ended IS NULL") == [(701,)]
    scripted.then("a")
    run_once(jobs[:1], store, {"swr": LanePool(1)}, clock=clock)
    assert query("SELECT last_at FROM observations WHERE ended IS NULL") == [(at(4, "12:00"),)]
    assert_history_is_whole(database)
    finished = [entry for entry in logged if entry["event"] == "pass.finished"][-1]
    head = query("SELECT hash FROM observations WHERE ended = 701")
    assert (finished["ended"], [(finished["observations_head"],)]) == (701, head)


def test_ending_stops_between_transactions(poll_on: PollAt, store: Store, query: Query) -> None:
    """Rows that can no longer grow are left for later if the caller has to stop."""
    poll_on(3, "12:00")
    store.end_past_observations("2026-05-04", lambda: False)
    assert query("SELECT count(ended) FROM observations") == [(0,)]


@pytest.mark.usefixtures("store")
def test_an_idle_pass_looks_for_past_rows_in_an_index(query: Query) -> None:
    """The query for rows of earlier days reads an index of the growing rows only."""
    sql = "SELECT 1 FROM observations WHERE ended IS NULL AND last_at < 'x' LIMIT 1"
    plan = query(f"EXPLAIN QUERY PLAN {sql}")
    assert "USING INDEX observations_growing (last_at<?)" in plan[0][3]


@pytest.mark.usefixtures("store")
def test_the_hashes_cover_all_columns(query: Query) -> None:
    """The formulas cover every stored column, in the order of the table."""
    columns = [row[1] for row in query("PRAGMA table_info(observations)")]
    assert columns == ["id", *OBSERVATION_COLUMNS, "ended", "change_id", "hash"]
    columns = [row[1] for row in query("PRAGMA table_info(repositories)")]
    assert columns == [*REPOSITORY_COLUMNS, "hash"]


# --- damage ---------------------------------------------------------------------------------------

DAMAGES = {
    "first_observed_at": "first_observed_at = '2020-01-01T00:00:00.000Z'",
    "last_attempt_at": "last_attempt_at = '2020-01-01T00:00:00.000Z'",
    "last_complete_at": "last_complete_at = NULL",
    "listing_hash": "listing_hash = 'forged'",
    "version": "version = version + 1",
    "failures": "failures = 7",
    "last_error": "last_error = 'x'",
    "not_before": "not_before = '2020-01-01T00:00:00.000Z'",
    "unlogged_from": "unlogged_from = 1",
    "hash": "hash = 'x'",
}


@pytest.mark.parametrize("column", DAMAGES)
def test_a_poll_refuses_a_row_with_a_wrong_checksum(
    column: str,
    poll_on: PollAt,
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    database: Path,
    query: Query,
    logged: list[dict[str, Any]],
) -> None:
    """The poll fails as damaged, leaves the row as it is, and records the failure beside it."""
    poll_on(3, "12:00")
    tamper(database, f"UPDATE repositories SET {DAMAGES[column]}")
    before = query("SELECT * FROM repositories")
    for tags in ("ab", "abc"):
        clock.advance(minutes=5)
        scripted.then(*tags)
        result = poll(job, store, clock=clock)
        assert (result.outcome, result.reasons) == ("failed", ("damaged",))
        assert "its hash is not that of its columns" in str(result.detail)
        assert (logged[-1]["event"], logged[-1]["reasons"]) == ("sync.failed", "damaged")
    assert query("SELECT * FROM repositories") == before
    assert query("SELECT outcome, reasons, polls, tags FROM observations ORDER BY id") == [
        ("ok", None, 1, 1),
        ("failed", "damaged", 2, None),
    ]
    assert query("SELECT tag FROM changes") == [("a",)]


@pytest.mark.parametrize(
    ("damage", "is_known"),
    [
        ("last_complete_at = 'x'", True),
        ("last_complete_at = 7", True),
        ("name = x'00ff'", False),
        ("registry = x'00ff'", False),
    ],
)
def test_a_damaged_row_keeps_no_other_repository_from_being_read(
    poll_on: PollAt,
    job: Job,
    scripted: Scripted,
    store: Store,
    database: Path,
    damage: str,
    is_known: bool,
) -> None:
    """A damaged time counts as none, and a damaged name is left out."""
    other = Repository("swr", "team/web")
    poll_on(3, "12:00")
    poll_on(3, "12:00", job=Job(other, scripted, job.interval))
    tamper(database, f"UPDATE repositories SET {damage} WHERE id = 1")
    fresh = {other: Freshness(at(3, "12:00"), 1)}
    if is_known:
        fresh[REPOSITORY] = Freshness()
    assert store.freshness() == fresh
    assert set(store.repositories()) == fresh.keys()


def test_damage_during_a_poll_is_found_when_it_is_recorded(
    job: Job, scripted: Scripted, store: Store, database: Path, query: Query
) -> None:
    """The transaction checks the checksum again before it rewrites the row."""
    scripted.then("a")
    poll(job, store)
    seen = store.state(REPOSITORY)
    tamper(database, "UPDATE repositories SET listing_hash = 'forged'")
    scripted.then("b")
    with pytest.raises(DamagedRecord, match="its hash"):
        store.record(REPOSITORY, scripted.script[0], seen, job.interval)  # type: ignore[arg-type]
    assert query("SELECT listing_hash FROM repositories") == [("forged",)]


def test_acknowledging_refuses_a_row_with_a_wrong_checksum(
    job: Job, scripted: Scripted, store: Store, database: Path, query: Query
) -> None:
    """Lines that were written stay pending if the row is damaged, and the row stays as it is."""
    scripted.then("a")
    poll(job, store)
    tamper(database, "UPDATE repositories SET unlogged_from = 1, last_error = 'x'")
    with pytest.raises(DamagedRecord, match="its hash"):
        store.acknowledge(REPOSITORY, 1)
    assert query("SELECT unlogged_from, last_error FROM repositories") == [(1, "x")]


def test_a_dry_run_records_no_damage(
    poll_on: PollAt, job: Job, store: Store, clock: FakeClock, database: Path, query: Query
) -> None:
    """In a dry run the poll fails as damaged, and nothing is recorded."""
    poll_on(3, "12:00")
    tamper(database, "UPDATE repositories SET version = 7")
    assert poll(job, store, Options(dry_run=True), clock).reasons == ("damaged",)
    assert query("SELECT count(*) FROM observations") == [(1,)]


def test_a_restored_row_goes_on(poll_on: PollAt, database: Path, query: Query) -> None:
    """Once the row is as tagsync wrote it, polls go on, and the record is whole."""
    poll_on(3, "12:00")
    tamper(database, "UPDATE repositories SET version = version + 1")
    poll_on(3, "12:05", tags="ab")
    tamper(database, "UPDATE repositories SET version = version - 1")
    poll_on(3, "12:10", tags="ab")
    assert query("SELECT outcome FROM observations ORDER BY id") == [("ok",), ("failed",), ("ok",)]
    assert_history_is_whole(database)


def test_damaged_observations_are_only_logged(
    poll_on: PollAt, database: Path, query: Query, logged: list[dict[str, Any]]
) -> None:
    """If the newest observation is damaged, too, the failure is logged and nothing is written."""
    poll_on(3, "12:00")
    tamper(database, "UPDATE observations SET last_at = 'x'")
    poll_on(3, "12:05")
    assert query("SELECT count(*) FROM observations") == [(1,)]
    assert [entry["event"] for entry in logged][-1] == "sync.failed"


def test_damage_is_recorded_in_order_if_the_clock_was_set_back(
    poll_on: PollAt, database: Path, query: Query
) -> None:
    """A damaged poll is not recorded before the newest observation."""
    poll_on(3, "12:00")
    tamper(database, "UPDATE repositories SET version = 7")
    poll_on(3, "11:00")
    assert query("SELECT first_at, last_at FROM observations WHERE reasons = 'damaged'") == [
        (at(3, "12:00"), at(3, "12:00"))
    ]


def test_damage_without_a_row_of_the_repository_records_nothing(store: Store, query: Query) -> None:
    """A failure of a repository that has no row has nothing to belong to."""
    damage = Damaged("change 1", at(3, "12:00"))
    store.record_damage(Repository("swr", "team/new"), damage, timedelta(minutes=5))
    assert query("SELECT count(*) FROM observations") == [(0,)]
    assert query("SELECT count(*) FROM repositories") == [(0,)]
