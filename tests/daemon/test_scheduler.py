"""The real scheduler: APScheduler with its threads and an injected clock.

No test waits for a fixed time: jobs are run at once, and the tests wait for what they set.
"""

import ast
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from threading import Event, current_thread
from typing import Any

import pytest

import tagsync
from tagsync.clock import utc_now
from tagsync.daemon.scheduler import Finished, Scheduler, ThreadScheduler, every
from tests.support.clock import FakeClock
from tests.support.scheduler import FakeScheduler

WITHIN = 10.0
HOURLY = every(timedelta(hours=1))


class Gate:
    """A job that hangs until the test opens it."""

    def __init__(self) -> None:
        self.runs: SimpleQueue[str] = SimpleQueue()
        self._opened = Event()

    def __call__(self) -> str:
        self.runs.put(current_thread().name)
        assert self._opened.wait(WITHIN)
        return "ended"

    def open(self) -> None:
        self._opened.set()


class Watcher:
    """A started scheduler, and what it reports."""

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self.clock = clock
        self.scheduler = ThreadScheduler(clock)
        self.finished: SimpleQueue[Finished] = SimpleQueue()
        self.overruns: SimpleQueue[str] = SimpleQueue()
        self.scheduler.start(self.finished.put, self.overruns.put)
        self.scheduler.open_pool("pool", 1)

    def add(self, job: str, run: Callable[[], object], **options: Any) -> None:
        """Adds a job that is due now, and hourly after that."""
        defaults: dict[str, Any] = {"next_due": HOURLY, "pool": "pool", "first": self.clock()}
        self.scheduler.add(job, run, **(defaults | options))


@pytest.fixture
def start() -> Iterator[Callable[..., Watcher]]:
    started: list[Watcher] = []

    def begin(*arguments: Any) -> Watcher:
        started.append(Watcher(*arguments))
        return started[-1]

    yield begin
    for watcher in started:
        watcher.scheduler.stop()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A job that ends at the latest with the test."""
    gate = Gate()
    yield gate
    gate.open()


Start = Callable[..., Watcher]


def test_both_schedulers_have_the_protocol(clock: FakeClock) -> None:
    """Both schedulers can be used as a `Scheduler`; mypy checks it."""
    schedulers: list[Scheduler] = [ThreadScheduler(clock), FakeScheduler(clock)]
    assert len(schedulers) == 2


def test_a_job_runs_after_resume_and_its_result_is_reported(start: Start) -> None:
    """Jobs run after `resume`, and each result is reported with its due time."""
    watcher = start()
    ran = []

    def run() -> str:
        ran.append("ran")
        return "result"

    before = utc_now()
    watcher.add("job", run)
    assert ran == []
    watcher.scheduler.resume()
    finished = watcher.finished.get(timeout=WITHIN)
    assert (finished.job, finished.result) == ("job", "result")
    assert abs(finished.due_at - before) < timedelta(seconds=WITHIN)
    assert ran == ["ran"]


def test_a_job_runs_again_when_it_is_due(start: Start) -> None:
    """After each run the job's own function says when it is due next."""
    watcher = start()
    watcher.add("job", lambda: None, next_due=every(timedelta(milliseconds=1)))
    watcher.scheduler.resume()
    # Each is off by the time that a thread waits between two clocks, so the order may differ.
    due = {watcher.finished.get(timeout=WITHIN).due_at for _ in range(5)}
    assert len(due) == 5
    assert max(due) - min(due) < timedelta(seconds=WITHIN)


def test_times_are_those_of_the_injected_clock(start: Start, clock: FakeClock) -> None:
    """The scheduler's times refer to the injected clock, not to the system's."""
    watcher = start(clock)
    asked: SimpleQueue[datetime] = SimpleQueue()

    def next_due(after: datetime) -> datetime:
        asked.put(after)
        return after + timedelta(days=365)

    watcher.add("job", lambda: None, next_due=next_due)
    watcher.add("later", lambda: None, first=clock() + timedelta(days=1))
    watcher.scheduler.resume()
    finished = watcher.finished.get(timeout=WITHIN)
    assert abs(finished.due_at - clock()) < timedelta(seconds=WITHIN)
    assert abs(asked.get(timeout=WITHIN) - clock()) < timedelta(seconds=WITHIN)
    # The other job is not due by this clock, which is in the past of the system's.
    watcher.scheduler.run_at("later", clock())
    assert watcher.finished.get(timeout=WITHIN).job == "later"


def test_a_job_that_was_missed_runs_once(start: Start) -> None:
    """A job runs once, however many of its runs were missed and however late it is."""
    watcher = start()
    watcher.add("job", lambda: None, first=utc_now() - timedelta(days=3))
    watcher.scheduler.resume()
    due_at = watcher.finished.get(timeout=WITHIN).due_at
    assert utc_now() - due_at > timedelta(days=2)
    watcher.add("other", lambda: None)
    assert watcher.finished.get(timeout=WITHIN).job == "other"


def test_a_job_that_is_under_way_overruns(start: Start, gate: Gate) -> None:
    """A job that is due while it is queued or under way is reported, and not run."""
    watcher = start()
    watcher.add("job", gate)
    watcher.scheduler.resume()
    gate.runs.get(timeout=WITHIN)
    watcher.add("queued", lambda: None, next_due=every(timedelta(milliseconds=1)))
    assert watcher.overruns.get(timeout=WITHIN) == "queued"
    watcher.scheduler.run_at("job", utc_now())
    while watcher.overruns.get(timeout=WITHIN) != "job":
        pass
    assert watcher.finished.empty()
    watcher.scheduler.postpone("queued", utc_now() + timedelta(hours=1))
    gate.open()
    assert [watcher.finished.get(timeout=WITHIN).job for _ in range(2)] == ["job", "queued"]


def test_a_pool_has_its_own_threads(start: Start, gate: Gate) -> None:
    """Jobs that occupy all threads of one pool do not delay those of another."""
    watcher = start()
    watcher.scheduler.open_pool("slow", 2)
    for number in range(8):
        watcher.add(f"slow {number}", gate, pool="slow")
    watcher.add("quick", lambda: None)
    watcher.scheduler.resume()
    assert watcher.finished.get(timeout=WITHIN).job == "quick"
    assert len({gate.runs.get(timeout=WITHIN) for _ in range(2)}) == 2
    watcher.scheduler.run_at("quick", utc_now())
    assert watcher.finished.get(timeout=WITHIN).job == "quick"
    assert gate.runs.empty()
    gate.open()
    assert len([watcher.finished.get(timeout=WITHIN) for _ in range(8)]) == 8


def test_a_pool_is_replaced_under_its_jobs(start: Start, gate: Gate) -> None:
    """A run under way ends in the old pool, the next one runs in the new pool."""
    watcher = start()
    watcher.add("job", gate)
    watcher.scheduler.resume()
    old = gate.runs.get(timeout=WITHIN)
    watcher.scheduler.open_pool("pool", 1)
    gate.open()
    assert watcher.finished.get(timeout=WITHIN).result == "ended"
    watcher.scheduler.run_at("job", utc_now())
    assert watcher.finished.get(timeout=WITHIN).result == "ended"
    assert gate.runs.get(timeout=WITHIN) != old


def test_a_pool_is_closed_after_its_jobs_were_removed(start: Start, logged: Any) -> None:
    """Removing jobs and their pool leaves the others alone, and logs no error."""
    watcher = start()
    watcher.scheduler.open_pool("other", 1)
    watcher.add("leaves", lambda: None, pool="other")
    watcher.add("stays", lambda: None)
    watcher.scheduler.remove("leaves")
    watcher.scheduler.close_pool("other")
    watcher.scheduler.resume()
    assert watcher.finished.get(timeout=WITHIN).job == "stays"
    assert not logged


def test_postponing_never_makes_a_job_earlier(start: Start) -> None:
    """A job that is due later than the time it is postponed to stays as it is."""
    watcher = start()
    soon = utc_now() + timedelta(minutes=5)
    watcher.add("postponed", lambda: None, first=soon)
    watcher.add("unaffected", lambda: None, first=soon + timedelta(hours=1))
    watcher.scheduler.postpone("postponed", soon + timedelta(minutes=30))
    watcher.scheduler.postpone("unaffected", soon)
    watcher.scheduler.resume()
    due = {job.id: job.next_run_time for job in watcher.scheduler._scheduler.get_jobs()}  # noqa: SLF001  the protocol does not return due times
    assert abs(due["postponed"] - soon - timedelta(minutes=30)) < timedelta(seconds=1)
    assert abs(due["unaffected"] - soon - timedelta(hours=1)) < timedelta(seconds=1)


def test_hastening_never_makes_a_job_later(start: Start) -> None:
    """A job that is due earlier than the time it is hastened to stays as it is."""
    watcher = start()
    soon = utc_now() + timedelta(minutes=5)
    watcher.add("hastened", lambda: None, first=soon + timedelta(hours=1))
    watcher.add("unaffected", lambda: None, first=soon)
    watcher.scheduler.hasten("hastened", soon)
    watcher.scheduler.hasten("unaffected", soon + timedelta(hours=1))
    watcher.scheduler.resume()
    due = {job.id: job.next_run_time for job in watcher.scheduler._scheduler.get_jobs()}  # noqa: SLF001  the protocol does not return due times
    assert abs(due["hastened"] - soon) < timedelta(seconds=1)
    assert abs(due["unaffected"] - soon) < timedelta(seconds=1)


def test_a_job_is_rescheduled_by_its_own_function(start: Start) -> None:
    """After `reschedule` a job is due when its function says so now."""
    watcher = start()
    interval = timedelta(hours=1)
    watcher.add("job", lambda: None, next_due=lambda after: after + interval)
    watcher.scheduler.resume()
    watcher.finished.get(timeout=WITHIN)
    interval = timedelta(milliseconds=1)
    watcher.scheduler.reschedule("job")
    assert watcher.finished.get(timeout=WITHIN).job == "job"


def test_an_exception_is_logged_with_its_traceback(start: Start, logged: Any) -> None:
    """A job that raises is an error in the log, and the job runs again when it is due."""
    watcher = start()
    attempts = [1, 2]

    def fail_once() -> str:
        if attempts.pop() == 2:
            raise RuntimeError("a bug")
        return "ran"

    watcher.add("job", fail_once, next_due=every(timedelta(milliseconds=1)))
    watcher.scheduler.resume()
    assert watcher.finished.get(timeout=WITHIN).result == "ran"
    entry = logged[0]
    assert entry["event"] == "daemon.failed"
    assert entry["error"].startswith('Job "job (trigger: scheduled by tagsync, next run at: ')
    kind, error, traceback = entry["exc_info"]
    assert (kind, str(error)) == (RuntimeError, "a bug")
    assert traceback is not None


def test_nothing_runs_after_a_stop(gate: Gate) -> None:
    """Stopping does not wait for a job that is under way, whose result still arrives."""
    watcher = Watcher()
    watcher.add("job", gate)
    watcher.scheduler.resume()
    gate.runs.get(timeout=WITHIN)
    watcher.scheduler.stop()
    assert watcher.finished.empty()
    gate.open()
    assert watcher.finished.get(timeout=WITHIN).job == "job"


def test_only_this_module_imports_apscheduler() -> None:
    """The rest of tagsync does not depend on the library."""
    users = set()
    for path in Path(tagsync.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "apscheduler" for name in names):
                users.add(path.name)
    assert users == {"scheduler.py"}


def test_every_is_an_interval_after_the_last_time() -> None:
    """The job is due one interval after the given time."""
    noon = datetime(2026, 5, 3, 12, tzinfo=UTC)
    assert every(timedelta(minutes=5))(noon) == noon + timedelta(minutes=5)
