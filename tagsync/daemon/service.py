"""The polling service: poll every repository on its own schedule until stopped.

`Daemon` connects two parts. The scheduler runs polls and discoveries in threads. Each registry has
its own thread pool, so a slow or broken registry does not delay the others; within a registry,
`tagsync.registries.lanes` does the same for its repositories. The watchlist holds the
state of each repository, and decides what has to change after a poll or a reload. The daemon then
makes these changes.

The main thread only waits for requests. SIGTERM and SIGINT stop the daemon, SIGHUP reloads the
configuration.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from queue import Empty, SimpleQueue
from random import Random
from threading import Condition
from typing import Final, Literal, NamedTuple

import msgspec
import structlog

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.daemon.database import DaemonDatabase
from tagsync.daemon.head_log import HeadLog
from tagsync.daemon.health import HEARTBEAT, Census, census, faults, problems, summarize
from tagsync.daemon.metrics import HintResult, Metrics
from tagsync.daemon.registry_use import RegistryUse
from tagsync.daemon.scheduler import Finished, Scheduler, ThreadScheduler, every
from tagsync.daemon.stopping import end_after_signal, ends_within
from tagsync.daemon.systemd import ServiceManager
from tagsync.daemon.verifier import Verifier
from tagsync.daemon.verify_runner import Runner
from tagsync.daemon.watchlist import (
    DISCOVERY_HINT_SPACING,
    Difference,
    Discovery,
    Plan,
    PlanDifference,
    Recorded,
    RegistryHandle,
    WatchedRepository,
    Watchlist,
)
from tagsync.database.store import Store
from tagsync.errors import ReplacedDatabase, StoreError, TagsyncError
from tagsync.models import Repository
from tagsync.notify.status import DestinationStatus, failing_for_long, statuses
from tagsync.notify.workers import Workers
from tagsync.polling import log_lines
from tagsync.polling.discovery import discover, log_empty
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll

Request = Literal["stop", "reload"]
"""A request to the daemon, from a signal or from a test."""

_HEARTBEAT_JOB: Final = "daemon:heartbeat"
_WITNESS_JOB: Final = "daemon:witness"
_MEASURE_JOB: Final = "daemon:measure"
_STALE_JOB: Final = "daemon:stale"
_VERIFY_JOB: Final = "daemon:verify"
"""Names of the daemon's own jobs and of their pools. No registry has such a name."""

_MEASURE_INTERVAL: Final = timedelta(minutes=1)
"""Time between two measurements of the database."""

_STALE_INTERVAL: Final = timedelta(minutes=1)
"""Time between two searches for repositories that have become stale."""

_POLLS_TIMEOUT: Final = 2.2
"""How long `Daemon.stop` waits for polls that are under way, in seconds."""

_CLOSE_TIMEOUT: Final = 1.5
"""How long `Daemon.stop` then waits for the last transaction, in seconds."""

_STEP_TIMEOUT: Final = 0.2
"""How long `Daemon.stop` waits for each line of the log and for the scheduler, in seconds."""

_CLOCK_CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks of the clock."""

_CLOCK_STEP: Final = timedelta(seconds=5)
"""A longer step back means that the clock was set back.

A shorter step is a correction, for example by NTP, and is ignored.
"""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Daemon:
    """The service. It polls the repositories of a plan until it is stopped."""

    def __init__(
        self,
        plan: Plan,
        reload: Callable[[], Plan],
        store: Store,
        metrics: Metrics,
        manager: ServiceManager,
        *,
        verifications: Runner | None = None,
        workers: Workers | None = None,
        scheduler: Scheduler | None = None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        """Create a daemon that does not run yet.

        Args:
            plan: The plan to start with.
            reload: Loads the configuration again and returns its plan. If it raises a
                `TagsyncError`, the daemon keeps the current plan.
            store: The database in which polls are recorded. `stop` closes it.
            metrics: Counts the polls.
            manager: The service manager to notify.
            verifications: Runs verifications of the database. None if the daemon runs none.
            workers: Send the notifications of the plan. None for workers in real time.
            scheduler: Runs the jobs. None for threads and real time.
            clock: Returns the current time.
            monotonic: Returns seconds that a change of the system clock does not affect.
            random: Random numbers for the jitter.
        """
        self._first_plan = plan
        self._reload_plan = reload
        self._store = store
        self._database = DaemonDatabase(store)
        self._head_log = HeadLog(self._database, metrics, clock)
        self._metrics = metrics
        self._manager = manager
        self._scheduler = scheduler or ThreadScheduler(clock)
        self._clock = clock
        self._monotonic = monotonic
        self._random = random or Random()  # noqa: S311  jitter may be predictable
        self._workers = workers or Workers(store.outbox, clock=clock)
        self._verifier = Verifier(store, verifications, clock, monotonic) if verifications else None
        self._requests: SimpleQueue[Request] = SimpleQueue()
        # Guards all attributes below. Waiting threads are notified when a poll or a discovery ends.
        self._changed = Condition()
        self._watchlist = Watchlist()
        self._in_use = RegistryUse()
        self._stopping = False
        self._settled = False
        self._rejected: str | None = None
        self._last_heartbeat = monotonic()
        self._clock_offset = self._read_clock_offset()
        self._first_round_at: datetime | None = None
        self._destinations: list[DestinationStatus] = []

    def run(self) -> bool:
        """Run until SIGTERM or SIGINT. Must be called in the main thread.

        If the daemon has not stopped a few seconds after the signal, the process is ended.

        Returns:
            The result of `stop`.

        Raises:
            StoreError: If the database cannot be read.
        """
        for number, what in _SIGNALS.items():
            signal.signal(number, lambda *_, what=what: self.request(what))
        end_after_signal([number for number, what in _SIGNALS.items() if what == "stop"])
        self.start()
        self.run_loop()
        return self.stop()

    def start(self) -> None:
        """Start polling in the scheduler's threads.

        Raises:
            StoreError: If the database cannot be read.
        """
        self._metrics.collect_from(self.census)
        self._metrics.collect_destinations_from(lambda: self._destinations)
        self._metrics.set_heads_logged(self._clock())
        self._scheduler.start(self._on_finished, self._on_overrun)
        self.apply_plan(self._first_plan)
        now = self._clock()
        heartbeat = min(HEARTBEAT, (self._manager.watchdog or HEARTBEAT * 2) / 2)
        # The heartbeat must not wait for the database, so the logger of heads has its own thread.
        for job, run, interval in (
            (_HEARTBEAT_JOB, self._send_heartbeat, heartbeat),
            (_WITNESS_JOB, self._head_log.extend, HEARTBEAT),
            (_MEASURE_JOB, self._measure, _MEASURE_INTERVAL),
            (_STALE_JOB, self._report_stale, _STALE_INTERVAL),
        ):
            self._add_own_job(job, run, interval, now)
        if self._verifier is not None:
            self._verifier.load()
            self._show_verification()
            self._add_own_job(_VERIFY_JOB, self._verify, HEARTBEAT, now)
        # The first job sends a heartbeat, and READY=1 has to be the manager's first message.
        self._manager.ready(self.summary())
        self._scheduler.resume()
        log.info("daemon.started", version=version("tagsync"), **self._size(), **self._round())

    def _add_own_job(
        self, job: str, run: Callable[[], object], interval: timedelta, first: datetime
    ) -> None:
        self._scheduler.open_pool(job, 1)
        self._scheduler.add(job, run, every(interval), job, first=first)

    def request(self, what: Request) -> None:
        """Ask the daemon to stop or reload. Any thread or signal handler may call this."""
        self._requests.put(what)

    def run_loop(self) -> None:
        """Handle requests until one says ``stop``. Check the clock in between."""
        while self.handle_request():
            pass

    def handle_request(self) -> bool:
        """Wait for a request for a moment and handle it. Without one, check clock and status.

        Returns:
            Whether to go on. False after a request to stop.
        """
        match self._next_request():
            case "stop":
                return False
            case "reload":
                self._reload()
            case None:
                self.check_clock()
                self.refresh_status()
        return True

    def _next_request(self) -> Request | None:
        """Return the most urgent of the requests that wait, and drop the others.

        One reload serves all requests to reload that came before it. A request to stop does not
        wait for any of them.

        Returns:
            None if no request comes within `_CLOCK_CHECK_INTERVAL`.
        """
        waiting: set[Request] = set()
        with suppress(Empty):
            waiting.add(self._requests.get(timeout=_CLOCK_CHECK_INTERVAL))
            while True:
                waiting.add(self._requests.get_nowait())
        if "stop" in waiting:
            return "stop"
        return "reload" if waiting else None

    def stop(self) -> bool:
        """Stop within five seconds.

        Wait for polls that are under way, then for the last transaction, each for a part of this
        time. A log that takes no more lines delays the stop only for a moment.

        Returns:
            True if all polls and the last transaction have ended, and the log is written. False if
            a poll still waits for a registry that does not answer, if the last transaction is not
            complete, or if the log does not take the lines. The results of the polls that have not
            ended will not be recorded.
        """
        self._manager.stopping()
        with self._changed:
            self._stopping = self._database.closing = True
        if self._verifier is not None:
            self._verifier.stop()
        self._workers.stop()
        said = ends_within(_STEP_TIMEOUT, lambda: log.info("daemon.stopping"))
        # The scheduler's thread may be writing to the log, too.
        ended = ends_within(_STEP_TIMEOUT, self._scheduler.stop)
        with self._changed:
            end = time.monotonic() + _POLLS_TIMEOUT
            self._changed.wait_for(lambda: not self._in_use.calls, _POLLS_TIMEOUT)
            abandoned = self._in_use.calls
        ended &= self._join_workers(end - time.monotonic())
        # Closing waits for the transaction that is under way. Nothing can be recorded afterwards.
        closed = ends_within(_CLOSE_TIMEOUT, self._head_log.close)
        said &= ends_within(
            _STEP_TIMEOUT, lambda: log.info("daemon.stopped", abandoned_polls=abandoned)
        )
        return said and ended and closed and not abandoned

    def _join_workers(self, seconds: float) -> bool:
        """Wait for messages that are being sent. Return whether all workers have ended."""
        left = max(0.0, seconds)
        ended: list[bool] = []
        # Giving up a lease may wait for the database.
        in_time = ends_within(left + _STEP_TIMEOUT, lambda: ended.append(self._workers.join(left)))
        return in_time and all(ended)

    # --- state ------------------------------------------------------------------------------------

    def census(self) -> list[Census]:
        """Return counts of the repositories of each registry."""
        with self._changed:
            return census(self._watchlist, self._clock())

    def health(self) -> list[str]:
        """Return one sentence for each problem. The list is empty if all is well."""
        causes = self.liveness() + self._workers.problems()
        causes += failing_for_long(self._destinations, self._clock())
        with self._changed:
            return causes + problems(self._watchlist, self._clock())

    def liveness(self) -> list[str]:
        """Return one sentence for each problem that a restart may solve."""
        self._database.is_there()
        silent = self._monotonic() - self._last_heartbeat
        return faults(silent, self._database.lost)

    def summary(self) -> str:
        """Return the status line for ``systemctl status``."""
        last = self._verifier.last if self._verifier else None
        status = summarize(self.census(), self._rejected, self._database.lost, last)
        expected = self._first_round_at
        if expected is None or expected <= self._clock() or self._database.lost is not None:
            return status
        return f"{status} The first round is expected to be complete at {timestamp(expected)}."

    def _round(self) -> dict[str, int | str | None]:
        """Return what is watched, and when each known repository will have been polled once."""
        expected = self._first_round_at
        return {
            "watches": len(self._watchlist.plan.watches),
            "first_round_at": None if expected is None else timestamp(expected),
        }

    def refresh_status(self) -> None:
        """Send the status line, until every first poll and discovery has ended.

        It changes within seconds then. Later, only each heartbeat sends it.
        """
        if self._settled:
            return
        self._settled = all(each.settled for each in self.census())
        self._manager.status(self.summary())

    def _size(self) -> dict[str, int]:
        return {
            "registries": len(self._watchlist.plan.registries),
            "repositories": len(self._watchlist),
        }

    # --- plans ------------------------------------------------------------------------------------

    def apply_plan(self, plan: Plan) -> None:
        """Replace the plan. Repositories and discoveries that both plans have are kept.

        Raises:
            ConfigError: If a destination of notifications is wrong.
            StoreError: If the database cannot be read. The current plan then stays in force.
        """
        recorded = self._store.freshness()
        self._workers.apply(plan.rules)
        with self._changed:
            now = self._clock()
            difference = self._watchlist.apply_plan(plan, recorded, now)
            for name in difference.opened:
                self._metrics.add_registry(name)
                handle = plan.registries[name]
                self._scheduler.open_pool(name, handle.concurrency, handle.patience)
            self._change_jobs(difference, now)
            for name in difference.closed:
                self._scheduler.close_pool(name)
            self._in_use.retire(difference.retired)

    def _reload(self) -> None:
        """Reload the configuration. If it is invalid, keep the current plan."""
        self._manager.reloading()
        try:
            self.apply_plan(self._reload_plan())
        except TagsyncError as error:
            self._rejected = str(error)
            log.error("config.rejected", error=self._rejected)
        else:
            self._rejected = None
            log.info("config.reloaded", **self._size())
        self._settled = False
        self._metrics.set_reload(failed=self._rejected is not None)
        self._manager.ready(self.summary())

    def _change_jobs(self, difference: PlanDifference, now: datetime) -> None:
        self._change_polls(difference.repositories, now)
        for discovery in difference.stopped:
            self._scheduler.remove(discovery.name)
        for discovery in difference.started:
            watch = discovery.watch
            run = partial(self._discover, discovery)
            interval = every(watch.discovery_interval)
            self._scheduler.add(discovery.name, run, interval, watch.registry, first=now)

    def _change_polls(self, difference: Difference, now: datetime) -> None:
        for watched in difference.removed:
            self._scheduler.remove(watched.name)
        for watched in difference.rescheduled:
            self._scheduler.reschedule(watched.name)
        for watched, start in self._watchlist.stagger(difference.added, now):
            self._first_round_at = max(start, self._first_round_at or start)
            self._scheduler.add(
                watched.name,
                partial(self._poll, watched),
                partial(watched.next_due, random=self._random),
                watched.repository.registry,
                first=start,
            )
        added, removed = len(difference.added), len(difference.removed)
        if added or removed:
            log.debug("daemon.watching", added=added, removed=removed, **self._size())

    def _schedule_soon(self, repositories: Iterable[WatchedRepository]) -> None:
        """Poll repositories soon, but no faster than the request rate of their registry."""
        for watched, start in self._watchlist.stagger(repositories, self._clock()):
            watched.backoff_until = None
            self._scheduler.run_at(watched.name, start)

    # --- polls ------------------------------------------------------------------------------------

    def _poll(self, watched: WatchedRepository) -> "_FinishedPoll | None":
        """Poll a repository. The scheduler runs this method as a job.

        Returns:
            None if the repository was not polled, because the daemon is stopping or has lost its
            database, or because the repository is no longer watched, backs off, or is already being
            polled.
        """
        if not self._database.is_there():
            return None
        started_at = self._clock()
        with self._changed:
            if self._stopping or not self._watchlist.has(watched):
                return None
            if not watched.begin_poll(started_at):
                return None
            handle = self._watchlist.plan.registries[watched.repository.registry]
            job = _job(watched, handle, started_at)
            self._in_use.begin(handle.registry)
        try:
            result = self._record_poll(job)
            with self._changed:
                recovered = watched.note_result(result, self._clock())
            return _FinishedPoll(watched, result, started_at, recovered)
        finally:
            with self._changed:
                watched.polling = False
                self._in_use.end(handle.registry)
                self._changed.notify_all()

    def _record_poll(self, job: Job) -> Poll:
        try:
            return poll(job, self._store, clock=self._clock)
        except ReplacedDatabase as error:
            self._database.lose(error)
            return Poll(job.repository, "failed", detail=str(error))
        except StoreError as error:
            # While the daemon stops, the database is closed before abandoned polls have ended.
            if not self._stopping:
                log_lines.write_failure(job.repository, str(error))
            return Poll(job.repository, "failed", detail=str(error))

    def _on_finished(self, finished: Finished) -> None:
        """Update the schedule after a poll. The repository's next poll may already run."""
        if not isinstance(finished.result, _FinishedPoll):
            return
        watched, result, started_at, recovered = finished.result
        delay = (started_at - finished.due_at).total_seconds()
        self._metrics.count_poll(result, max(0.0, delay))
        with self._changed:
            if self._stopping or not self._watchlist.has(watched):
                return
            if self._watchlist.forget_if_gone(watched, result):
                self._scheduler.remove(watched.name)
                return
            patience = self._watchlist.plan.registries[watched.repository.registry].patience
            hangs = result.outcome == "failed" and watched.transient and result.seconds > patience
            self._scheduler.set_hanging(watched.name, hanging=hangs)
            if watched.backoff_until is not None:
                self._scheduler.postpone(watched.name, watched.backoff_until)
            elif watched.overran:
                watched.overran = False
                self._scheduler.run_at(watched.name, self._clock())
            if watched.hinted:
                self._scheduler.hasten(watched.name, watched.hint_due(self._clock()))
            if recovered:
                # The registry answers again, so its other repositories can stop backing off.
                registry = watched.repository.registry
                self._schedule_soon(self._watchlist.backing_off(registry))

    def _on_overrun(self, name: str) -> None:
        """Note that a repository was due while its last poll was queued or under way."""
        with self._changed:
            watched = self._watchlist.get(name)
            if self._stopping or watched is None or watched.overran or watched.hinted:
                # After a hint, the poll that is queued or follows serves both.
                return
            watched.overran = True
            # After a failure, the repository is postponed anyway.
            if not watched.polling and not watched.failures:
                # The poll has either just ended or is waiting for a thread. Check in a second.
                self._scheduler.run_at(name, self._clock() + timedelta(seconds=1))
        registry = watched.repository.registry
        self._metrics.count_overrun(registry)
        log.warning("daemon.overrun", registry=registry, repository=name)

    # --- push hints -------------------------------------------------------------------------------

    def hint(self, registry: str, names: Iterable[str]) -> Counter[HintResult]:
        """Poll repositories at once, because a sender says that their tags have changed.

        The sender is not believed. A hint brings the next poll forward, within the limits of
        `watchlist.HINT_SPACING`, the request rate and the backoff. Later polls stay where they
        are. If a glob covers a name that is not watched, its discovery is brought forward.

        Args:
            registry: The registry's name in the configuration.
            names: Names of repositories within the registry. Any text is possible: it is only
                looked up.

        Returns:
            The number of names for each result.
        """
        results: Counter[HintResult] = Counter()
        soon: list[WatchedRepository] = []
        with self._changed:
            now = self._clock()
            for name in () if self._stopping else names:
                repository = Repository(registry, name)
                watched = self._watchlist.get(repository.full_name)
                if watched is None:
                    results[self._hint_discovery(repository, now)] += 1
                elif watched.note_hint():
                    results["accepted"] += 1
                    soon.append(watched)
                else:
                    results["coalesced"] += 1
            for watched, start in self._watchlist.stagger(soon, now):
                # If a poll is under way, another one is scheduled when it has ended.
                if not watched.polling:
                    self._scheduler.hasten(watched.name, max(start, watched.hint_due(now)))
        return results

    def _hint_discovery(self, repository: Repository, now: datetime) -> HintResult:
        discovery = self._watchlist.discovery_of(repository)
        if discovery is None:
            return "unwatched"
        if not discovery.note_hint():
            return "coalesced"
        self._scheduler.hasten(discovery.name, discovery.hint_due(now))
        return "discovery"

    # --- discovery --------------------------------------------------------------------------------

    def _discover(self, discovery: Discovery) -> None:
        """Expand the globs of a watch. The scheduler runs this method as a job."""
        watch = discovery.watch
        if not self._database.is_there():
            return
        with self._changed:
            if self._stopping or not self._watchlist.runs(discovery):
                return
            discovery.hinted = False
            registry = self._watchlist.plan.registries[watch.registry].registry
            self._in_use.begin(registry)
        try:
            found, failures = discover([watch], {watch.registry: registry})
        finally:
            with self._changed:
                self._in_use.end(registry)
                self._changed.notify_all()
        # Read before taking the lock, because another process may have locked the database.
        recorded = self._read_recorded(watch.registry)
        failed = bool(failures) or recorded is None
        self._metrics.count_discovery(watch.registry, failed=failed)
        with self._changed:
            if self._stopping or not self._watchlist.runs(discovery):
                return
            now = self._clock()
            discovery.note_found(found, now)
            self._schedule_discovery(discovery, now, failed=failed)
            if recorded is not None and not failed:
                self._change_polls(self._watchlist.add_discovered(found, recorded, now), now)
            report = not failed and not discovery.logged_empty and discovery.is_empty(now)
            discovery.logged_empty |= report
        if report:
            log_empty(watch)

    def _schedule_discovery(self, discovery: Discovery, now: datetime, *, failed: bool) -> None:
        """Back off after a failure, and serve a hint that came during the discovery."""
        retry_after = discovery.note_result(failed=failed)
        if retry_after is not None:
            self._scheduler.run_at(discovery.name, now + retry_after)
        spacing = max(DISCOVERY_HINT_SPACING, retry_after or DISCOVERY_HINT_SPACING)
        discovery.hintable_from = now + spacing
        if discovery.hinted:
            self._scheduler.hasten(discovery.name, discovery.hint_due(now))

    def _read_recorded(self, registry: str) -> Recorded | None:
        try:
            return self._store.freshness()
        except StoreError as error:
            log.error("discovery.failed", registry=registry, error=str(error))
            return None

    # --- the clock and the own jobs ---------------------------------------------------------------

    def check_clock(self) -> None:
        """Poll everything soon if the clock was set back since the last check.

        The scheduler compares due times with the clock. Without this check it would run nothing
        until the clock has caught up.
        """
        before, self._clock_offset = self._clock_offset, self._read_clock_offset()
        step = before - self._clock_offset
        if step <= _CLOCK_STEP:
            return
        log.warning("daemon.clock_set_back", seconds=round(step.total_seconds(), 3))
        with self._changed:
            self._schedule_soon(self._watchlist)
            now = self._clock()
            for discovery in self._watchlist.discoveries:
                self._scheduler.run_at(discovery.name, now)
            own_jobs = [_HEARTBEAT_JOB, _WITNESS_JOB, _MEASURE_JOB, _STALE_JOB]
            own_jobs += [_VERIFY_JOB] if self._verifier else []
            for job in own_jobs:
                self._scheduler.run_at(job, now)

    def _read_clock_offset(self) -> timedelta:
        """Return the clock minus the monotonic clock. It changes if the clock is set."""
        return self._clock() - datetime.fromtimestamp(0, UTC) - timedelta(seconds=self._monotonic())

    def _send_heartbeat(self) -> None:
        """Send a heartbeat. The scheduler runs this as a job, so it proves that jobs run."""
        self._last_heartbeat = self._monotonic()
        self._manager.heartbeat(self.summary())

    def _measure(self) -> None:
        """Update the gauges that need the disk or the database, so that no scrape waits for it."""
        if not self._database.is_there():
            return
        # The job that logs heads reads the same database, and logs its errors.
        with suppress(StoreError):
            self._metrics.set_disk_usage(self._store.disk_usage())
            self._metrics.set_pending_log_lines(self._store.pending_log_lines())
            self._metrics.set_open_immutable_changes(self._store.open_immutable_changes())
            self._measure_destinations()

    def _measure_destinations(self) -> None:
        if not self._watchlist.plan.rules:
            self._destinations = []
            return
        rules, now = self._watchlist.plan.rules, self._clock()
        self._destinations = statuses(self._store.outbox, rules, now)

    def _report_stale(self) -> None:
        """Write an event for each repository that has become stale, for the notifications."""
        if not self._database.is_there():
            return
        with self._changed:
            now = self._clock()
            stale = [watched for watched in self._watchlist if watched.is_known_stale(now)]
            watches = {watched.repository: watched.watch for watched in stale}
        with self._database.errors_logged():
            self._store.report_stale(watches, now)

    def _verify(self) -> None:
        """Verify the database if it is time. The scheduler runs this as a job."""
        if self._verifier is None or not self._database.is_there():
            return
        with self._database.errors_logged():
            self._verifier.run_if_due(self._watchlist.plan.verify, self._is_quiet)
        self._show_verification()

    def _show_verification(self) -> None:
        if self._verifier is not None and self._verifier.last is not None:
            self._metrics.set_verification(self._verifier.last)

    def _is_quiet(self, until: datetime) -> bool:
        """Return whether no poll or discovery is under way, or due until a time."""
        with self._changed:
            if self._in_use.calls:
                return False
            due = self._scheduler.next_due_in(self._watchlist.plan.registries)
        return due is None or due > until


class _FinishedPoll(NamedTuple):
    """The result of a job that polled a repository.

    Attributes:
        recovered: Whether this poll did not fail, but the poll before it did.
    """

    watched: WatchedRepository
    result: Poll
    started_at: datetime
    recovered: bool


def _job(watched: WatchedRepository, handle: RegistryHandle, now: datetime) -> Job:
    job = Job.of(watched.repository, watched.watch, handle.registry, now)
    interval = watched.poll_interval(now)
    return msgspec.structs.replace(job, interval=interval, failures=watched.failures)


_SIGNALS: Final[Mapping[signal.Signals, Request]] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGHUP: "reload",
}
