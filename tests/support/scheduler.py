"""A scheduler without threads and without real time, stepped by the test's clock."""

from collections import deque
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from tagsync.daemon.scheduler import Finished, NextDue
from tests.support.clock import FakeClock


class FakePool:
    """A number of threads. Each job that steps the scheduler occupies one meanwhile."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.busy = 0
        self.submitted: set[str] = set()
        self.queue: deque[tuple[FakeJob, datetime]] = deque()


class FakeJob:
    """A job, and when it is due next."""

    def __init__(
        self, name: str, run: Callable[[], object], next_due: NextDue, pool: FakePool, due: datetime
    ) -> None:
        self.name = name
        self.run = run
        self.next_due = next_due
        self.pool = pool
        self.due = due


class FakeScheduler:
    """Implements `tagsync.daemon.scheduler.Scheduler` in the thread that steps it.

    A job that is under way lasts as long as it advances the clock itself: whatever is due
    meanwhile runs within it, as other threads would run it beside it. An exception that a job
    raises ends the step, and so the test.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.pools: dict[str, FakePool] = {}
        self.running = False
        self.hanging: set[str] = set()
        self._clock = clock
        self._elapsed = 0.0

    # --- for tests --------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Seconds that have passed, whatever the clock was set to."""
        return self._elapsed

    def advance(self, **by: float) -> None:
        """Let time pass, and run each job when it is due."""
        until = self._clock() + timedelta(**by)
        self.run_due()
        while self.running and self.jobs:
            due = min(job.due for job in self.jobs.values())
            if due > until:
                break
            self._pass_to(due)
            self.run_due()
        self._pass_to(until)

    def run_due(self) -> None:
        """Run the jobs that are due now."""
        while self.running and self.jobs:
            job = min(self.jobs.values(), key=lambda job: job.due)
            if job.due > self._clock():
                return
            self._submit(job)

    def hang(self, **by: float) -> None:
        """Let time pass without running anything, as if the scheduler's thread hung."""
        self._pass_to(self._clock() + timedelta(**by))

    def report_overrun(self, job: str) -> None:
        """Report an overrun late, as another thread may, when the run has already ended."""
        self._on_overrun(job)

    # --- the protocol -----------------------------------------------------------------------------

    def start(
        self, on_finished: Callable[[Finished], None], on_overrun: Callable[[str], None]
    ) -> None:
        self._on_finished = on_finished
        self._on_overrun = on_overrun

    def resume(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False
        self.jobs.clear()

    def open_pool(self, pool: str, threads: int, patience: float | None = None) -> None:
        old, new = self.pools.get(pool), FakePool(threads)
        self.pools[pool] = new
        for job in self.jobs.values():
            if job.pool is old:
                job.pool = new

    def close_pool(self, pool: str) -> None:
        closed = self.pools.pop(pool)
        assert all(job.pool is not closed for job in self.jobs.values()), f"{pool} is in use"

    def add(
        self, job: str, run: Callable[[], object], next_due: NextDue, pool: str, first: datetime
    ) -> None:
        assert job not in self.jobs, f"{job} exists already"
        self.jobs[job] = FakeJob(job, run, next_due, self.pools[pool], first)

    def remove(self, job: str) -> None:
        del self.jobs[job]

    def reschedule(self, job: str) -> None:
        self.jobs[job].due = self.jobs[job].next_due(self._clock())

    def run_at(self, job: str, at: datetime) -> None:
        self.jobs[job].due = at

    def hasten(self, job: str, at: datetime) -> None:
        self.jobs[job].due = min(self.jobs[job].due, at)

    def set_hanging(self, job: str, *, hanging: bool) -> None:
        (self.hanging.add if hanging else self.hanging.discard)(job)

    def postpone(self, job: str, until: datetime) -> None:
        self.jobs[job].due = max(self.jobs[job].due, until)

    def next_due_in(self, pools: Collection[str]) -> datetime | None:
        wanted = [self.pools[name] for name in pools]
        return min((job.due for job in self.jobs.values() if job.pool in wanted), default=None)

    # --- inside -----------------------------------------------------------------------------------

    def _pass_to(self, moment: datetime) -> None:
        if moment > self._clock():
            self._elapsed += (moment - self._clock()).total_seconds()
            self._clock.now = moment

    def _submit(self, job: FakeJob) -> None:
        due, job.due = job.due, job.next_due(self._clock())
        if job.name in job.pool.submitted:
            self._on_overrun(job.name)
            return
        job.pool.submitted.add(job.name)
        job.pool.queue.append((job, due))
        self._drain(job.pool)

    def _drain(self, pool: FakePool) -> None:
        while pool.queue and pool.busy < pool.threads:
            job, due = pool.queue.popleft()
            pool.busy += 1
            try:
                result = job.run()
                pool.submitted.discard(job.name)
                self._on_finished(Finished(job.name, due, result))
            finally:
                pool.busy -= 1
