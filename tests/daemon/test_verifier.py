"""The daemon's verifications: when they run, and what they record and show."""

import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.daemon.metrics import Metrics
from tagsync.daemon.service import Daemon
from tagsync.daemon.verify_runner import Outcome
from tagsync.daemon.watchlist import Plan
from tagsync.database.hash_chain import GENESIS
from tagsync.database.store import Store
from tagsync.database.verifications import Verification
from tests.support.clock import FakeClock
from tests.support.daemon import MINUTE, FakeManager, FakeRegistry, plan, watch
from tests.support.record import without_triggers
from tests.support.scheduler import FakeScheduler

Start = Callable[..., Daemon]
Query = Callable[..., list[tuple[Any, ...]]]
Log = list[dict[str, Any]]

INTERVAL = 10 * MINUTE
"""Time between two verifications. A quarter of it is the longest delay."""

OK = Outcome("ok", None)
FAULT = Outcome("fault", "chain: change 1 does not have the hash")


class FakeRunner:
    """A runner of verifications whose outcomes the test decides.

    Attributes:
        outcomes: The outcomes of the next verifications, one each. Later ones are without a fault.
        runs: For each verification when it began, the heads, and the timeout.
        during: Called while a verification runs.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.outcomes: list[Outcome | None] = []
        self.runs: list[tuple[str, set[str], float]] = []
        self.during: Callable[[], object] = lambda: None
        self.stopped = False

    def run(self, heads: Collection[str], timeout: float) -> Outcome | None:
        self.runs.append((timestamp(self._clock()), set(heads), timeout))
        self.during()
        return self.outcomes.pop(0) if self.outcomes else OK

    def stop(self) -> None:
        self.stopped = True

    @property
    def times(self) -> list[str]:
        return [at for at, _, _ in self.runs]


@pytest.fixture
def runner(clock: FakeClock) -> FakeRunner:
    return FakeRunner(clock)


def verifying(registry: FakeRegistry, verify: timedelta = INTERVAL) -> Plan:
    """A plan with one repository that is polled every two minutes."""
    made = plan(watch("team/api", interval=2 * MINUTE), a=registry)
    return Plan(made.registries, made.watches, verify)


def gauges(metrics: Metrics) -> dict[str, float]:
    """The gauges of the last verification; those of its result by the result."""
    environ = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
    text = b"".join(metrics.exposition()(environ, lambda *_: None)).decode()
    return {
        sample.labels.get("result", sample.name.removeprefix("tagsync_last_verification_")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tagsync_last_verification_")
    }


def read_last(database: Path) -> Verification | None:
    with Audit.open(database) as audit:
        return audit.last_verification()


# --- when -----------------------------------------------------------------------------------------


def test_a_record_is_verified_an_interval_after_its_first_listing_and_then_again(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, runner: FakeRunner
) -> None:
    """The first verification is due after an interval, and each other one after the last."""
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=9, seconds=50)
    assert runner.runs == []
    scheduler.advance(minutes=12)
    assert [at[:16] for at in runner.times] == ["2026-05-03T12:10", "2026-05-03T12:20"]


def test_zero_means_never_and_a_reload_applies_at_once(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, runner: FakeRunner
) -> None:
    """Without an interval nothing is verified, until a reload brings one."""
    plans = [verifying(registry, MINUTE)]
    daemon = start(verifying(registry, timedelta()), reload=plans.pop, verifications=runner)
    scheduler.advance(minutes=15)
    assert runner.runs == []
    daemon.request("reload")
    daemon.handle_request()
    scheduler.advance(seconds=10)
    assert runner.times == ["2026-05-03T12:15:10.000Z"]


def test_a_restart_does_not_verify_again(
    registry: FakeRegistry, runner: FakeRunner, store: Store, clock: FakeClock
) -> None:
    """A daemon that starts often verifies once an interval, as the database says."""
    for _ in range(22):
        own = FakeScheduler(clock)
        daemon = Daemon(
            *(verifying(registry), lambda: verifying(registry), store),
            *(Metrics("test"), FakeManager()),
            verifications=runner,
            scheduler=own,
            clock=clock,
            monotonic=own.monotonic,
        )
        daemon.start()
        own.advance(minutes=1)
        own.stop()
    assert [at[:15] for at in runner.times] == ["2026-05-03T12:1", "2026-05-03T12:2"]


def test_a_verification_waits_for_the_end_of_polls(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, runner: FakeRunner
) -> None:
    """A verification that is due begins only when no poll is under way."""
    start(verifying(registry, 11 * MINUTE), verifications=runner)
    scheduler.advance(minutes=9)
    registry.during["team/api"] = lambda: scheduler.advance(seconds=160)
    scheduler.advance(minutes=5)
    slow = next(poll for poll in registry.polls["team/api"] if timestamp(poll) > "2026-05-03T12:09")
    assert runner.times[0] >= timestamp(slow + timedelta(seconds=160))


def test_a_verification_waits_for_a_gap_that_is_long_enough(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    store: Store,
    clock: FakeClock,
) -> None:
    """If the last one took 100 seconds, it begins soon after a poll that is due in two minutes."""
    store.record_verification(Verification(timestamp(clock()), "ok", 100.0, None))
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=13)
    began = datetime.fromisoformat(runner.times[0])
    before = max(poll for poll in registry.polls["team/api"] if poll <= began)
    assert timedelta(0) <= began - before <= timedelta(seconds=20)


def test_a_verification_waits_at_most_a_quarter_of_the_interval(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, runner: FakeRunner
) -> None:
    """If polls are always due, it begins two and a half minutes late."""
    made = plan(watch("team/api", interval=timedelta(seconds=5)), a=registry)
    start(Plan(made.registries, made.watches, INTERVAL), verifications=runner)
    scheduler.advance(minutes=13)
    assert runner.times == ["2026-05-03T12:12:30.000Z"]


def test_a_clock_that_was_set_back_brings_one_verification(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    store: Store,
    clock: FakeClock,
) -> None:
    """If the last verification is in the future, the next one does not wait for that time."""
    future = timestamp(clock() + timedelta(days=3650))
    store.record_verification(Verification(future, "ok", 1.0, None))
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=9)
    assert len(runner.runs) == 1


def test_an_interrupted_verification_is_run_again(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    query: Query,
) -> None:
    """A verification without an outcome is not recorded, and the next one is due at once."""
    runner.outcomes = [None]
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=12)
    assert len(runner.runs) == 2
    assert query("SELECT count(*) FROM verifications") == [(1,)]


# --- results --------------------------------------------------------------------------------------


def test_a_verification_is_recorded_with_the_heads_that_the_next_one_checks(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    database: Path,
    store: Store,
    logged: Log,
) -> None:
    """A row has time, duration and heads, and the next verification is given these heads."""
    runner.during = lambda: scheduler.hang(seconds=2.5)
    metrics = Metrics("test")
    start(verifying(registry), verifications=runner, metrics=metrics)
    assert gauges(metrics) == {}
    scheduler.advance(minutes=11)
    heads = store.heads()
    last = read_last(database)
    assert last is not None
    assert last.heads == heads
    assert (last.result, last.detail, last.seconds) == ("ok", None, 2.5)
    ended = datetime.fromisoformat(runner.times[0]) + timedelta(seconds=2.5)
    assert last.at == timestamp(ended)
    registry.digests["team/api"] = "sha256:2"
    scheduler.advance(minutes=11)
    assert heads.changes.hash in runner.runs[0][1]
    assert {heads.changes.hash, store.heads().changes.hash} <= runner.runs[1][1]
    assert GENESIS not in runner.runs[0][1] | runner.runs[1][1]
    assert runner.runs[0][2] == 3600
    lines = [entry for entry in logged if entry["event"] == "verify.finished"]
    assert [line["log_level"] for line in lines] == ["info", "info"]
    assert lines[0].items() >= {"result": "ok", "seconds": 2.5, "change_id": 1}.items()
    assert lines[0]["head"] == heads.changes.hash
    assert gauges(metrics).items() >= {"ok": 1, "fault": 0, "duration_seconds": 2.5}.items()


def test_a_fault_is_shown_and_keeps_the_heads_before_it(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    database: Path,
    logged: Log,
) -> None:
    """After a fault the next verification still checks the heads that were right."""
    metrics = Metrics("test")
    daemon = start(verifying(registry), verifications=runner, metrics=metrics)
    scheduler.advance(minutes=11)
    good = read_last(database)
    registry.digests["team/api"] = "sha256:2"
    runner.outcomes = [FAULT, Outcome("failed", "it did not finish")]
    scheduler.advance(minutes=10)
    bad = read_last(database)
    assert good is not None
    assert bad is not None
    assert (bad.result, bad.detail) == FAULT
    assert bad.heads == good.heads
    (line,) = (entry for entry in logged if entry.get("result") == "fault")
    assert (line["event"], line["log_level"]) == ("verify.finished", "error")
    assert (line["detail"], line["head"]) == (FAULT.detail, good.head)
    assert gauges(metrics).items() >= {"ok": 0, "fault": 1, "failed": 0}.items()
    assert "the last verification found a fault" in daemon.summary()
    assert daemon.health() == []
    scheduler.advance(minutes=21)
    failed = [entry for entry in logged if entry.get("result") == "failed"]
    assert [entry["log_level"] for entry in failed] == ["error"]
    assert good.head in runner.runs[-1][1]
    assert "fault" not in daemon.summary()


def test_a_damaged_row_is_no_last_verification(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    store: Store,
    database: Path,
    clock: FakeClock,
) -> None:
    """If the newest row is damaged, the daemon starts, and verifies when the record is due."""
    store.record_verification(Verification(timestamp(clock()), "ok", 1.0, None))
    with closing(sqlite3.connect(database)) as connection, connection, without_triggers(connection):
        connection.execute("UPDATE verifications SET at = 'never'")
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=11)
    assert len(runner.runs) == 1
    last = read_last(database)
    assert last is not None
    assert last.result == "ok"


@pytest.mark.parametrize("sql", ["UPDATE verifications SET at = at", "DELETE FROM verifications"])
def test_verifications_are_append_only(
    sql: str, store: Store, database: Path, clock: FakeClock
) -> None:
    """Triggers refuse to alter a recorded verification."""
    store.record_verification(Verification(timestamp(clock()), "ok", 1.0, None))
    with (
        closing(sqlite3.connect(database)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(sql)
    replace = "INSERT OR REPLACE INTO verifications SELECT * FROM verifications"
    with (
        closing(sqlite3.connect(database)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(replace)


# --- trouble --------------------------------------------------------------------------------------


def test_a_stop_interrupts_a_verification(
    start: Start, registry: FakeRegistry, runner: FakeRunner
) -> None:
    """The daemon stops the runner before it waits for anything else."""
    daemon = start(verifying(registry), verifications=runner)
    daemon.stop()
    assert runner.stopped


def test_a_database_that_is_replaced_meanwhile_gets_no_row(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    database: Path,
    logged: Log,
) -> None:
    """If the file is deleted during a verification, the daemon reports it and goes on."""
    runner.during = database.unlink
    daemon = start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=11)
    assert [entry["event"] for entry in logged].count("daemon.database_lost") == 1
    assert "daemon.failed" not in [entry["event"] for entry in logged]
    assert len(daemon.liveness()) == 1
    scheduler.advance(minutes=20)
    assert len(runner.runs) == 1


def test_a_result_that_cannot_be_recorded_is_logged(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    runner: FakeRunner,
    database: Path,
    logged: Log,
) -> None:
    """If the result cannot be written, the log has it, and the next is due an interval later."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON verifications"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    start(verifying(registry), verifications=runner)
    scheduler.advance(minutes=17)
    assert [entry["event"] for entry in logged].count("verify.finished") == 1
    (failed,) = (entry for entry in logged if entry["event"] == "daemon.failed")
    assert "refused" in failed["error"]
