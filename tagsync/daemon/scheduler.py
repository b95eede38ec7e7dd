"""The scheduler: runs jobs when they are due, in thread pools.

This is the only module that uses APScheduler. The rest of the daemon knows the protocol
`Scheduler`, which `tests.support.scheduler` implements without threads and without real time.
"""

import logging
from collections.abc import Callable, Collection, Set
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog
from apscheduler.events import (
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    JobExecutionEvent,
    JobSubmissionEvent,
)
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from tagsync.clock import Clock, utc_now
from tagsync.registries.lanes import LanePool

NextDue = Callable[[datetime], datetime]
"""A function that takes a time, and returns a job's next due time after it.

The scheduler holds its own lock during the call. The function must therefore not wait for a lock
that a thread may hold while it calls the scheduler.
"""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Finished(msgspec.Struct, frozen=True):
    """A finished run of a job.

    Attributes:
        job: The job's name.
        due_at: When this run was due.
        result: The job's return value.
    """

    job: str
    due_at: datetime
    result: object


class Scheduler(Protocol):
    """The interface between the daemon and its scheduler. All methods are thread-safe.

    If one or more runs of a job were missed, the job runs once, as soon as possible. A job is never
    started while its last run is queued or under way in the same pool.
    """

    def start(
        self, on_finished: Callable[[Finished], None], on_overrun: Callable[[str], None]
    ) -> None:
        """Accept jobs, but do not run them before `resume` is called.

        Args:
            on_finished: Called in the job's thread when a run has returned and the next one may
                start. Not called if the job raises an exception, which is logged.
            on_overrun: Called with the job's name if the job is due while its last run is queued
                or under way.
        """

    def resume(self) -> None:
        """Begin to run jobs."""

    def stop(self) -> None:
        """Start no more jobs. Does not wait for those that are under way."""

    def open_pool(self, pool: str, threads: int, patience: float | None = None) -> None:
        """Add a thread pool, or replace the pool of this name.

        If a pool is replaced, its jobs use the new pool from now on. Runs that are queued or under
        way end in the old pool.

        Args:
            pool: Its name.
            threads: Number of runs at the same time, without those that hang.
            patience: Seconds after which a run that waits for its server hangs; see
                `tagsync.registries.lanes`. None if no run hangs.
        """

    def close_pool(self, pool: str) -> None:
        """Remove a pool that no job uses any more. Does not wait for runs under way."""

    def add(
        self, job: str, run: Callable[[], object], next_due: NextDue, pool: str, first: datetime
    ) -> None:
        """Add a job.

        Args:
            job: A unique name.
            run: The work.
            next_due: Returns when the job is due after its first run.
            pool: Name of the pool whose threads run the job.
            first: When the job is due for the first time.
        """

    def remove(self, job: str) -> None:
        """Remove a job. A run that is queued or under way is not cancelled."""

    def reschedule(self, job: str) -> None:
        """Call a job's ``next_due`` again, because its result has changed."""

    def run_at(self, job: str, at: datetime) -> None:
        """Run a job at a given time, instead of at the time when it is due next."""

    def hasten(self, job: str, at: datetime) -> None:
        """Run a job at a given time. No effect if it is due earlier anyway."""

    def set_hanging(self, job: str, *, hanging: bool) -> None:
        """Set whether a job is known to hang, so that its next runs do not keep others waiting."""

    def postpone(self, job: str, until: datetime) -> None:
        """Delay a job's next run to a given time. No effect if it is due later anyway."""

    def next_due_in(self, pools: Collection[str]) -> datetime | None:
        """Return when the next job of these pools is due, or None if they have no job."""


def every(interval: timedelta) -> NextDue:
    """Return a `NextDue` for a job that runs once per interval."""
    return lambda after: after + interval


class ThreadScheduler:
    """The scheduler of a real daemon: APScheduler with one executor for each pool."""

    def __init__(self, clock: Clock = utc_now) -> None:
        """Create a scheduler that does not run yet.

        Args:
            clock: The clock of all times that this class takes and returns.
        """
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._generation = 0
        # Not guarded: each operation on a set is atomic.
        self._hanging: set[str] = set()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            # Run a missed job once, however late it is and however often it was missed.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(
        self, on_finished: Callable[[Finished], None], on_overrun: Callable[[str], None]
    ) -> None:
        """See `Scheduler.start`."""

        def finished(event: JobExecutionEvent) -> None:
            due_at = event.scheduled_run_time - self._lead()
            on_finished(Finished(event.job_id, due_at, event.retval))

        def overrun(event: JobSubmissionEvent) -> None:
            on_overrun(event.job_id)

        _forward_errors()
        self._scheduler.add_listener(finished, EVENT_JOB_EXECUTED)
        self._scheduler.add_listener(overrun, EVENT_JOB_MAX_INSTANCES)
        # Start paused. Otherwise each of thousands of new jobs would wake the scheduler.
        self._scheduler.start(paused=True)

    def resume(self) -> None:
        """See `Scheduler.resume`."""
        self._scheduler.resume()

    def stop(self) -> None:
        """See `Scheduler.stop`."""
        self._scheduler.shutdown(wait=False)

    def open_pool(self, pool: str, threads: int, patience: float | None = None) -> None:
        """See `Scheduler.open_pool`."""
        self._generation += 1
        old = self._pools.get(pool)
        executor = _LaneExecutor(LanePool(threads, patience), self._hanging)
        new = _Pool(f"{pool} {self._generation}", executor)
        self._pools[pool] = new
        self._scheduler.add_executor(new.executor, new.alias)
        if old is not None:
            for job in self._scheduler.get_jobs():
                if job.executor == old.alias:
                    job.modify(executor=new.alias)
            self._shut_down(old)

    def close_pool(self, pool: str) -> None:
        """See `Scheduler.close_pool`."""
        self._shut_down(self._pools.pop(pool))

    def add(
        self, job: str, run: Callable[[], object], next_due: NextDue, pool: str, first: datetime
    ) -> None:
        """See `Scheduler.add`."""
        self._scheduler.add_job(
            run,
            _Trigger(next_due, self._lead),
            id=job,
            name=job,
            executor=self._pools[pool].alias,
            next_run_time=first + self._lead(),
        )

    def remove(self, job: str) -> None:
        """See `Scheduler.remove`."""
        self._scheduler.remove_job(job)
        self._hanging.discard(job)

    def reschedule(self, job: str) -> None:
        """See `Scheduler.reschedule`."""
        self._scheduler.reschedule_job(job, trigger=self._scheduler.get_job(job).trigger)

    def run_at(self, job: str, at: datetime) -> None:
        """See `Scheduler.run_at`."""
        self._scheduler.modify_job(job, next_run_time=at + self._lead())

    def hasten(self, job: str, at: datetime) -> None:
        """See `Scheduler.hasten`."""
        latest = at + self._lead()
        if self._scheduler.get_job(job).next_run_time > latest:
            self._scheduler.modify_job(job, next_run_time=latest)

    def set_hanging(self, job: str, *, hanging: bool) -> None:
        """See `Scheduler.set_hanging`."""
        (self._hanging.add if hanging else self._hanging.discard)(job)

    def postpone(self, job: str, until: datetime) -> None:
        """See `Scheduler.postpone`."""
        earliest = until + self._lead()
        if self._scheduler.get_job(job).next_run_time < earliest:
            self._scheduler.modify_job(job, next_run_time=earliest)

    def next_due_in(self, pools: Collection[str]) -> datetime | None:
        """See `Scheduler.next_due_in`."""
        aliases = {self._pools[pool].alias for pool in pools}
        jobs = self._scheduler.get_jobs()
        due = [job.next_run_time for job in jobs if job.executor in aliases]
        return min(due) - self._lead() if due else None

    def _lead(self) -> timedelta:
        """Return how far the system clock is ahead of the clock given to this class.

        APScheduler reads the system clock, so this is added to all times that it gets.
        """
        # Read our clock first: then the result is never too small, and no job runs too early.
        now = self._clock()
        return utc_now() - now

    def _shut_down(self, pool: "_Pool") -> None:
        self._scheduler.remove_executor(pool.alias, shutdown=False)
        pool.executor.shutdown(wait=False)


class _LaneExecutor(BasePoolExecutor):  # type: ignore[misc]  # APScheduler 3 has no types
    """An APScheduler executor that runs jobs in a `LanePool`."""

    def __init__(self, pool: LanePool, hanging: Set[str]) -> None:
        super().__init__(self)
        self._lanes = pool
        self._hanging = hanging

    def submit(self, function: Callable[..., Any], job: Any, *arguments: Any) -> Future[Any]:
        """Submit a run of a job. The base class calls this method of its pool, which is self."""
        run = partial(function, job, *arguments)
        return self._lanes.submit(run, hanging=job.id in self._hanging)

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  APScheduler's
        """Start no more runs after those that are queued."""
        self._lanes.close()


class _Pool(NamedTuple):
    """A thread pool, and its name in APScheduler."""

    alias: str
    executor: _LaneExecutor


class _Trigger(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """An APScheduler trigger that calls a `NextDue`. Its times are never in the past."""

    def __init__(self, next_due: NextDue, lead: Callable[[], timedelta]) -> None:
        self._next_due = next_due
        self._lead = lead

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return when the job is due next after ``now``, by APScheduler's clock."""
        lead = self._lead()
        return self._next_due(max(previous or now, now) - lead) + lead

    def __str__(self) -> str:
        return "scheduled by tagsync"


class _ErrorForwarder(logging.Handler):
    """Logs APScheduler's errors with their traceback.

    It ignores APScheduler's warnings, because listeners receive the same facts as events.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log.error("daemon.failed", error=record.getMessage(), exc_info=record.exc_info)


def _forward_errors() -> None:
    logger = logging.getLogger("apscheduler")
    logger.propagate = False
    logger.handlers = [_ErrorForwarder(logging.ERROR)]
