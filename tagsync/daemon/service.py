"""The service: every repository polled on its own schedule, for years.

APScheduler keeps the times; each registry has a pool of threads of its own, so that a slow or
broken one delays no other. `schedule` says when, `sync` does the work, and here is what holds them
together: what is watched, what is known of it, and what happens after a poll.

The main thread only waits for signals. SIGTERM and SIGINT stop the daemon, SIGHUP reloads the
configuration.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from queue import Empty, SimpleQueue
from random import Random
from threading import Condition, Thread
from typing import Final, Literal, NamedTuple

import structlog
from apscheduler.events import (
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    JobExecutionEvent,
    JobSubmissionEvent,
)
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.daemon.health import NAMED_IN_HEALTH, Census, census_of
from tagsync.daemon.metrics import Metrics
from tagsync.daemon.scheduler import Jittered, Regular, forward_complaints
from tagsync.daemon.systemd import ServiceManager
from tagsync.daemon.watchlist import Plan, Source, Watched
from tagsync.database.store import Store
from tagsync.errors import StoreError, TagsyncError
from tagsync.models import Repository, Watch, watch_of
from tagsync.polling.discovery import discover
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tagsync.schedule import rest, spacing

HEARTBEAT: Final = timedelta(seconds=10)
"""How often the scheduler gives a sign of life at least."""

_WITNESS: Final = "witness"
"""The threads that log the head of the chain."""

_FIRST_REST: Final = timedelta(seconds=30)
"""How long a discovery that failed rests at first; doubled each time, up to its interval."""

_PATIENCE: Final = 2.5
"""Seconds that polls in hand are given to end by themselves when the daemon stops."""

_LAST_WRITE: Final = 1.5
"""Seconds that the transaction in hand is given after that."""

_STEP: Final = timedelta(seconds=5)
"""By how much the clock has to jump back to be called set back."""

Order = Literal["stop", "reload"]
"""What the daemon can be told to do."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class _Polled(NamedTuple):
    """What a poll's job gives back: the poll, when it began, and whether it ended an outage."""

    watched: Watched
    poll: Poll
    began: datetime
    recovered: bool


class _Pool(NamedTuple):
    """The threads of a registry, and by what name the scheduler knows them."""

    alias: str
    threads: ThreadPoolExecutor


class Daemon:
    """Polls what a plan names until it is told to stop."""

    def __init__(
        self,
        plan: Plan,
        reload: Callable[[], Plan],
        store: Store,
        metrics: Metrics,
        manager: ServiceManager,
        *,
        clock: Clock = utc_now,
        random: Random | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            plan: what to begin with.
            reload: makes a new plan when it is asked for; a `TagsyncError` keeps the old one.
            store: where polls are recorded; closed when the daemon stops.
            metrics: told of every poll.
            manager: told how the daemon is.
            clock: gives the present.
            random: puts polls off within the jitter.
        """
        self._plan = plan
        self._reload = reload
        self._store = store
        self._metrics = metrics
        self._manager = manager
        self._clock = clock
        self._random = random or Random()  # noqa: S311  no secret depends on it
        self._orders: SimpleQueue[Order] = SimpleQueue()
        # Guards all that follows, and tells when a poll has ended.
        self._changed = Condition()
        self._watched: dict[str, Watched] = {}
        self._found: set[Repository] = set()
        self._discovery_failures: Counter[str] = Counter()
        self._pools: dict[str, _Pool] = {}
        self._generation = 0
        self._in_hand: Counter[Registry] = Counter()
        self._retired: set[Registry] = set()
        self._stopping = False
        self._complaint = ""
        self._beat = time.monotonic()
        self._head_logged = 0
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            # A sign of life must not wait for the database, which the other one reads.
            executors={"default": ThreadPoolExecutor(1), _WITNESS: ThreadPoolExecutor(1)},
            # Every poll that is late is made up, once.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._after_poll, EVENT_JOB_EXECUTED)
        self._scheduler.add_listener(self._note_overrun, EVENT_JOB_MAX_INSTANCES)

    def run(self) -> bool:
        """Works until SIGTERM or SIGINT; to be called in the main thread.

        Returns:
            As `stop`.

        Raises:
            StoreError: what is recorded already could not be read.
        """
        for number, order in _ORDERS.items():
            signal.signal(number, lambda *_, order=order: self.order(order))
        self.start()
        self.obey()
        return self.stop()

    def start(self) -> None:
        """Has everything polled from here on, in threads of its own.

        Raises:
            StoreError: what is recorded already could not be read.
        """
        forward_complaints()
        self._metrics.ask(self.census)
        # Paused, or each repository that is added would wake it.
        self._scheduler.start(paused=True)
        self.adopt(self._plan)
        beat = min(HEARTBEAT, (self._manager.watchdog or HEARTBEAT * 2) / 2)
        now = self._clock()
        self._scheduler.add_job(self._give_sign_of_life, Regular(beat), next_run_time=now)
        self._scheduler.add_job(
            self._log_head, Regular(HEARTBEAT), executor=_WITNESS, next_run_time=now
        )
        self._scheduler.resume()
        log.info("daemon.started", version=version("tagsync"), **self._size())
        self._manager.ready(self.summary())

    def census(self) -> list[Census]:
        """How the repositories of each registry are."""
        now = self._clock()
        with self._changed:
            members: dict[str, list[Watched]] = {name: [] for name in self._plan.sources}
            for watched in self._watched.values():
                members[watched.repository.registry].append(watched)
            return [census_of(name, some, now) for name, some in members.items()]

    def health(self) -> list[str]:
        """What is wrong, a sentence each: repositories without a complete listing for too long."""
        now = self._clock()
        with self._changed:
            wrong = [
                f"{watched.id} has had no complete listing for three intervals"
                f" (the last: {watched.last_complete_at or 'never'}"
                + (f"; {watched.detail})" if watched.detail else ")")
                for watched in self._watched.values()
                if watched.is_stale(now)
            ]
            silent = time.monotonic() - self._beat
        more = len(wrong) - NAMED_IN_HEALTH
        wrong = sorted(wrong)[:NAMED_IN_HEALTH] + ([f"and {more} more"] if more > 0 else [])
        if silent > 3 * HEARTBEAT.total_seconds():
            wrong.insert(0, f"the scheduler has stood still for {silent:.0f} s")
        return wrong

    def summary(self) -> str:
        """One sentence with counts, for ``systemctl status``."""
        census = self.census()
        counts = {
            "failing": sum(each.failing for each in census),
            "stale": sum(each.stale for each in census),
        }
        trouble = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        size = self._size()
        return (
            f"Watching {size['repositories']} repositories in {size['registries']} registries with"
            f" {sum(each.tags for each in census)} tags: {trouble or 'all is well'}."
            f"{self._complaint}"
        )

    # --- orders ----------------------------------------------------------------------------------

    def obey(self) -> None:
        """Carries orders out until one says stop; in between, minds the clock."""
        ahead = _offset(self._clock)
        while True:
            try:
                order = self._orders.get(timeout=1)
            except Empty:
                offset = _offset(self._clock)
                if offset < ahead - _STEP:
                    self._catch_up(ahead - offset)
                ahead = offset
                continue
            if order == "stop":
                return
            self._renew()

    def order(self, what: Order) -> None:
        """Gives an order, from any thread or signal handler."""
        self._orders.put(what)

    def stop(self) -> bool:
        """Finishes the transaction in hand, and stops within five seconds.

        Returns:
            Whether everything has ended; if not, threads still wait for a registry that does not
            answer. They hold nothing that should be recorded.
        """
        log.info("daemon.stopping")
        self._manager.stopping()
        with self._changed:
            self._stopping = True
        self._scheduler.shutdown(wait=False)
        with self._changed:
            self._changed.wait_for(lambda: not self._in_hand.total(), _PATIENCE)
            abandoned = self._in_hand.total()
        # Closing waits for the transaction in hand, and after it nothing can be written.
        closing = Thread(target=self._close_store, daemon=True)
        closing.start()
        closing.join(_LAST_WRITE)
        log.info("daemon.stopped", abandoned_polls=abandoned)
        return not abandoned and not closing.is_alive()

    def _renew(self) -> None:
        """Takes a new plan; one that is wrong leaves all as it was."""
        self._manager.reloading()
        try:
            self.adopt(self._reload())
        except TagsyncError as error:
            log.error("config.rejected", error=str(error))
            self._complaint = f" The configuration was not reloaded: {error}."
            self._metrics.reloaded(failed=True)
        else:
            self._complaint = ""
            self._metrics.reloaded(failed=False)
            log.info("config.reloaded", **self._size())
        self._manager.ready(self.summary())

    def _catch_up(self, by: timedelta) -> None:
        """Polls everything soon after the clock was set back.

        The scheduler goes by the clock, and would wait until it is as late again as it was.
        """
        log.warning("daemon.clock_set_back", seconds=round(by.total_seconds(), 3))
        with self._changed:
            self._spread(self._watched.values())
        for job in self._scheduler.get_jobs():
            if job.id not in self._watched:
                job.modify(next_run_time=self._clock())

    # --- what is watched -------------------------------------------------------------------------

    def adopt(self, plan: Plan) -> None:
        """Makes a plan the one in force: what did not change is not disturbed.

        Raises:
            StoreError: what is recorded already could not be read; the plan before is in force.
        """
        recorded = self._store.freshness()
        with self._changed:
            before, self._plan = self._plan, plan
            for name, source in plan.sources.items():
                self._metrics.expect(name)
                if name not in self._pools or before.sources.get(name) != source:
                    self._open_pool(name, source)
            self._watch(recorded)
            for name in self._pools.keys() - plan.sources.keys():
                self._close_pool(self._pools.pop(name))
            kept = {source.registry for source in plan.sources.values()}
            self._retired |= {source.registry for source in before.sources.values()} - kept
            self._close_retired()
        self._schedule_discoveries()

    def _open_pool(self, name: str, source: Source) -> None:
        """Gives a registry threads of its own; polls in hand end on those that it had."""
        self._generation += 1
        old = self._pools.get(name)
        pool = _Pool(f"{name} {self._generation}", ThreadPoolExecutor(source.concurrency))
        self._pools[name] = pool
        self._scheduler.add_executor(pool.threads, pool.alias)
        for watched in self._watched.values():
            if watched.repository.registry == name:
                watched.source = source
                self._scheduler.modify_job(watched.id, executor=pool.alias)
        if old is not None:
            self._close_pool(old)

    def _close_pool(self, pool: "_Pool") -> None:
        self._scheduler.remove_executor(pool.alias, shutdown=False)
        pool.threads.shutdown(wait=False)

    def _watch(self, recorded: Mapping[Repository, tuple[str | None, int]]) -> None:
        """Brings what is watched in line with the plan, what was found, and what is recorded."""
        candidates = {name for watch in self._plan.watches for name in watch.named}
        candidates |= self._found | recorded.keys()
        wanted = {
            repository.full_name: (repository, watch)
            for repository in sorted(candidates)
            if (watch := watch_of(repository, self._plan.watches)) is not None
        }
        removed = self._watched.keys() - wanted.keys()
        for name in removed:
            self._forget(name)
        added: list[Watched] = []
        for name, (repository, watch) in wanted.items():
            if (watched := self._watched.get(name)) is None:
                watched = self._begin(repository, watch)
                if known := recorded.get(repository):
                    watched.last_complete_at, watched.tags = known
                added.append(watched)
            elif watched.watch != watch:
                watched.watch, watched.rests_until = watch, None
                self._scheduler.reschedule_job(name, trigger=self._trigger(watched))
        self._spread(added)
        if added or removed:
            log.debug("daemon.watching", added=len(added), removed=len(removed), **self._size())

    def _begin(self, repository: Repository, watch: Watch) -> Watched:
        source = self._plan.sources[repository.registry]
        watched = Watched(repository, watch, source, timestamp(self._clock()))
        self._watched[watched.id] = watched
        self._scheduler.add_job(
            self._poll,
            self._trigger(watched),
            [watched],
            id=watched.id,
            executor=self._pools[repository.registry].alias,
        )
        return watched

    def _forget(self, name: str) -> None:
        del self._watched[name]
        self._scheduler.remove_job(name)

    def _trigger(self, watched: Watched) -> Jittered:
        return Jittered(watched, self._random)

    def _spread(self, some: Iterable[Watched]) -> None:
        """Has repositories polled at once, but no faster than their registry may be asked."""
        now = self._clock()
        places: Counter[str] = Counter()
        for watched in some:
            name = watched.repository.registry
            offset = timedelta(seconds=places[name] / watched.source.requests_per_second)
            places[name] += 1
            watched.rests_until = None
            self._scheduler.modify_job(watched.id, next_run_time=now + offset)

    # --- polls -----------------------------------------------------------------------------------

    def _poll(self, watched: Watched) -> _Polled | None:
        """The job of a repository; gives nothing back where it was not polled."""
        began = self._clock()
        with self._changed:
            if self._stopping:
                return None
            if watched.rests_until is not None and began < watched.rests_until:
                # The scheduler began it before it could be told to put it off.
                return None
            if watched.polling:
                # On threads that the registry had before a reload.
                watched.overran = True
                return None
            watched.polling = True
            watched.overran = False
            source, watch = watched.source, watched.watch
            self._in_hand[source.registry] += 1
            pause = max(spacing(watch, began), self._rest_of(watched))
        try:
            job = Job(
                watched.repository,
                source.registry,
                pause,
                watch.agreeing_listings,
                watch.tags,
                watch.manifests,
            )
            poll = self._sync(job)
            return _Polled(watched, poll, began, self._take(watched, poll))
        finally:
            with self._changed:
                watched.polling = False
                self._in_hand[source.registry] -= 1
                self._close_retired()
                self._changed.notify_all()

    def _sync(self, job: Job) -> Poll:
        try:
            return poll(job, self._store, clock=self._clock)
        except StoreError as error:
            # When the daemon stops, the database is closed under polls that were given up.
            if not self._stopping:
                about = {
                    "registry": job.repository.registry,
                    "repository": job.repository.full_name,
                }
                log.error("sync.failed", **about, error=str(error))
            return Poll(job.repository, "failed", detail=str(error))

    def _take(self, watched: Watched, poll: Poll) -> bool:
        """Notes what a poll came to, and how long the repository rests; tells of a recovery."""
        now = self._clock()
        with self._changed:
            recovered = watched.failures > 0 and poll.outcome != "failed"
            watched.take(poll, timestamp(now))
            asked = timedelta(seconds=(poll.error.retry_after if poll.error else None) or 0)
            pause = max(asked, self._rest_of(watched))
            watched.rests_until = now + pause if poll.outcome == "failed" else None
        return recovered

    def _after_poll(self, event: JobExecutionEvent) -> None:
        """What follows from a poll, in its own thread; the scheduler may start the next one."""
        if not isinstance(event.retval, _Polled):
            return
        watched, poll, began, recovered = event.retval
        delay = (began - event.scheduled_run_time).total_seconds()
        self._metrics.polled(poll, max(0.0, delay))
        with self._changed:
            if self._stopping or self._watched.get(watched.id) is not watched:
                return
            if poll.gone and poll.repository not in _named(self._plan.watches):
                self._found.discard(poll.repository)
                self._forget(watched.id)
            elif watched.rests_until is not None:
                self._put_off(watched, watched.rests_until)
            elif watched.overran:
                watched.overran = False
                self._scheduler.modify_job(watched.id, next_run_time=self._clock())
            if recovered:
                self._resume(poll.repository.registry)

    def _put_off(self, watched: Watched, until: datetime) -> None:
        """Leaves alone what keeps failing, or asked to be left alone."""
        due: datetime = self._scheduler.get_job(watched.id).next_run_time
        if due < until:
            self._scheduler.modify_job(watched.id, next_run_time=until)

    def _rest_of(self, watched: Watched) -> timedelta:
        """How long a repository rests after its failures: not at all after the first."""
        if watched.failures <= 1:
            return timedelta()
        return rest(watched.failures, spacing(watched.watch, self._clock()))

    def _resume(self, registry: str) -> None:
        """Polls soon what rested for a fault in passing, because its registry answers again."""
        self._spread(
            watched
            for watched in self._watched.values()
            if watched.repository.registry == registry and watched.failures > 1 and watched.passing
        )

    def _note_overrun(self, event: JobSubmissionEvent) -> None:
        """Remembers a poll that could not begin because the one before is still under way."""
        with self._changed:
            watched = self._watched.get(event.job_id)
            if watched is None or watched.overran:
                return
            watched.overran = True
            # What failed is put off as it should be.
            if not watched.polling and not watched.failures:
                # It ended just now, or waits for a thread: a moment later both are plain.
                soon = self._clock() + timedelta(seconds=1)
                self._scheduler.modify_job(watched.id, next_run_time=soon)
        self._metrics.overran(watched.repository.registry)
        log.warning("daemon.overrun", registry=watched.repository.registry, repository=watched.id)

    def _close_retired(self) -> None:
        """Closes the registries of former plans that no poll is using."""
        for registry in [each for each in self._retired if not self._in_hand[each]]:
            self._retired.discard(registry)
            registry.close()

    # --- discovery -------------------------------------------------------------------------------

    def _schedule_discoveries(self) -> None:
        """Gives each watch with globs a discovery of its own, the first at once."""
        wanted = {
            f"discovery of {watch.registry} {index}": watch
            for index, watch in enumerate(self._plan.watches)
            if watch.globs
        }
        for job in self._scheduler.get_jobs():
            if job.id.startswith("discovery of "):
                job.remove()
        for name, watch in wanted.items():
            self._scheduler.add_job(
                self._discover,
                Regular(watch.discovery_interval),
                [name, watch],
                id=name,
                executor=self._pools[watch.registry].alias,
                next_run_time=self._clock(),
            )

    def _discover(self, name: str, watch: Watch) -> None:
        with self._changed:
            if self._stopping or watch not in self._plan.watches:
                return
            registry = self._plan.sources[watch.registry].registry
            self._in_hand[registry] += 1
        try:
            found, failures = discover([watch], {watch.registry: registry})
        finally:
            with self._changed:
                self._in_hand[registry] -= 1
                self._close_retired()
                self._changed.notify_all()
        failed = bool(failures)
        # Read before the lock is taken: the database may keep us waiting for another process.
        recorded: dict[Repository, tuple[str | None, int]] = {}
        try:
            recorded = self._store.freshness()
        except StoreError as error:
            failed = True
            log.error("discovery.failed", registry=watch.registry, error=str(error))
        self._metrics.discovered(watch.registry, failed=failed)
        with self._changed:
            if self._stopping or watch not in self._plan.watches:
                return
            if failed:
                self._put_discovery_off(name, watch)
                return
            del self._discovery_failures[name]
            self._found |= found
            self._watch(recorded)

    def _put_discovery_off(self, name: str, watch: Watch) -> None:
        """Tries again soon at first, and later and later, up to the watch's own interval."""
        self._discovery_failures[name] += 1
        longest = watch.discovery_interval
        pause = rest(self._discovery_failures[name], min(_FIRST_REST, longest), longest)
        self._scheduler.modify_job(name, next_run_time=self._clock() + pause)

    # --- signs of life ---------------------------------------------------------------------------

    def _give_sign_of_life(self) -> None:
        """Runs as a job, so that it proves that the scheduler turns, whatever registries do."""
        self._beat = time.monotonic()
        self._manager.alive(self.summary())

    def _log_head(self) -> None:
        """Writes the head of the chain where it is a new one: the log is a witness of it.

        So does every pass of the one-shot way; a daemon has none that ends.
        """
        try:
            head = self._store.head()
        except StoreError as error:
            if not self._stopping:
                log.error("daemon.failed", error=str(error))
            return
        if head.change_id != self._head_logged:
            self._head_logged = head.change_id
            log.info("history.extended", head=head.hash, change_id=head.change_id)

    def _close_store(self) -> None:
        self._log_head()
        self._store.close()

    def _size(self) -> dict[str, int]:
        return {"registries": len(self._plan.sources), "repositories": len(self._watched)}


_ORDERS: Final[Mapping[signal.Signals, Order]] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGHUP: "reload",
}


def _named(watches: Iterable[Watch]) -> set[Repository]:
    return {repository for watch in watches for repository in watch.named}


def _offset(clock: Clock) -> timedelta:
    """How far the clock is ahead of one that nobody sets."""
    return clock() - datetime.fromtimestamp(0, UTC) - timedelta(seconds=time.monotonic())
