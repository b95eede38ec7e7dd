"""The watchlist: which repositories the daemon polls, and the state of each.

This module does no input or output and reads no clock. The caller passes the current time, holds a
lock, and carries out the differences that `Watchlist` returns. A reload compares the old and the
new plan. It does not disturb repositories and discoveries that both plans contain.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Final

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.state import Freshness
from tagsync.models import Repository, Watch, watch_of
from tagsync.notify.targets import Rule
from tagsync.polling.discovery import EMPTY_AFTER
from tagsync.polling.jobs import Poll
from tagsync.registries import Registry
from tagsync.schedule import backoff, next_due, spacing, stale

_FIRST_DISCOVERY_BACKOFF: Final = timedelta(seconds=30)
"""Backoff after a discovery's first failure.

It doubles with each further failure, up to the interval between two discoveries.
"""

HINT_SPACING: Final = timedelta(seconds=5)
"""Shortest time between the end of a poll and the next poll because of a push hint.

If the poll took longer, this is its duration.
"""

DISCOVERY_HINT_SPACING: Final = timedelta(minutes=1)
"""Shortest time between the end of a discovery and the next one because of a push hint."""

Recorded = Mapping[Repository, Freshness]
"""How fresh the record of each recorded repository is."""


class RegistryHandle(msgspec.Struct, frozen=True):
    """An open registry and the limits of its use.

    Attributes:
        concurrency: How many of the registry's repositories may be polled at the same time.
        requests_per_second: How many polls are started per second if more are due at once.
        patience: Seconds after which a poll that waits for one answer of the registry hangs. Such
            polls do not count in ``concurrency``.
    """

    registry: Registry
    concurrency: int
    requests_per_second: float
    patience: float = 3.0


class Plan(msgspec.Struct, frozen=True):
    """The daemon's configuration: registries, and which repositories to watch.

    Attributes:
        registries: By configured name. A registry stays open if its handle equals the previous one.
        watches: A repository belongs to the first watch that covers it.
        verify: Time between two verifications of the database. Zero means none.
        rules: The destinations of notifications.
    """

    registries: Mapping[str, RegistryHandle]
    watches: tuple[Watch, ...]
    verify: timedelta = timedelta()
    rules: tuple[Rule, ...] = ()


class _Hinted:
    """A job that push hints bring forward, but not before a given time.

    Attributes:
        hinted: Whether there was a hint since the last run began.
        hintable_from: The earliest time for a run because of a hint. None before the first run.
    """

    def __init__(self) -> None:
        self.hinted = False
        self.hintable_from: datetime | None = None

    def note_hint(self) -> bool:
        """Note a hint. Return False if the run that an earlier hint caused serves it, too."""
        first = not self.hinted
        self.hinted = True
        return first

    def hint_due(self, now: datetime) -> datetime:
        """Return when to run because of a hint."""
        return max(now, self.hintable_from or now)


class WatchedRepository(_Hinted):
    """A repository that is polled, and the results of its polls so far.

    Attributes:
        watch: The watch that covers the repository. A reload may replace the watch.
        watched_since: When the daemon began to watch it.
        failures: Number of failed polls in a row.
        transient: Whether the last failure was a transient error.
        polled: Whether a poll has ended since the daemon began to watch it.
        polling: Whether a poll is under way.
        alternating: Whether two states of the repository take turns in its listings.
        held: Whether the newest listing since the start was held.
        distrusts_list: Whether the registry's own list is not used, because HEAD contradicted it.
        overran: Whether the repository was due again while its poll was queued or under way.
        backoff_until: No poll may begin before this time. None if the last poll did not fail.
    """

    def __init__(self, repository: Repository, watch: Watch, now: datetime) -> None:
        super().__init__()
        self.repository: Final = repository
        self.name: Final = repository.full_name
        self.watch = watch
        self.watched_since: Final = timestamp(now)
        self.last_complete_at: str | None = None
        self.tags = 0
        self.failures = 0
        self.transient = False
        self.detail: str | None = None
        self.alternating = False
        self.polled = False
        self.held = False
        self.distrusts_list = False
        self.polling = False
        self.overran = False
        self.backoff_until: datetime | None = None

    def note_recorded(self, fresh: Freshness) -> None:
        """Note what is recorded of the repository."""
        self.last_complete_at, self.tags, self.alternating = fresh

    def is_stale(self, now: datetime) -> bool:
        """Return whether the last complete listing is too old; see `schedule.stale`."""
        return stale(self.watch, self.last_complete_at or self.watched_since, now)

    def is_known_stale(self, now: datetime) -> bool:
        """Return whether the repository is stale although the daemon has looked at it.

        After a long stop each repository is stale until its first poll, which says nothing about
        its registry. If that poll does not end, three intervals have to pass.
        """
        looked = self.polled or stale(self.watch, self.watched_since, now)
        return looked and self.is_stale(now)

    def next_due(self, after: datetime, random: Random) -> datetime:
        """Return when to poll next: the time by the schedule plus a random jitter."""
        jitter = random.uniform(0, self.watch.jitter.total_seconds())
        return next_due(self.watch, self.repository, after) + timedelta(seconds=jitter)

    def poll_interval(self, now: datetime) -> timedelta:
        """Return the longest time to expect between this poll and the next."""
        return max(spacing(self.watch, now), self._backoff(now))

    def begin_poll(self, now: datetime) -> bool:
        """Note that a poll begins. Return False if no poll may begin now."""
        if self.backoff_until is not None and now < self.backoff_until:
            # The scheduler started the poll before it could be postponed.
            return False
        if self.polling:
            # A poll is under way in a pool that a reload has replaced. Poll again when it ends.
            self.overran = True
            return False
        self.polling = True
        self.overran = False
        self.hinted = False
        return True

    def hint_due(self, now: datetime) -> datetime:
        """Return when to poll because of a hint. A hint does not shorten a backoff."""
        return max(super().hint_due(now), self.backoff_until or now)

    def note_result(self, poll: Poll, now: datetime) -> bool:
        """Note the result of a poll, and how long to back off if it failed.

        Returns:
            Whether this poll did not fail, but the poll before it did.
        """
        self.polled = True
        self.detail = poll.detail
        self.hintable_from = now + max(HINT_SPACING, timedelta(seconds=poll.seconds))
        if poll.outcome == "failed":
            self.failures += 1
            self.transient = poll.error is not None and poll.error.transient
            retry_after = timedelta(seconds=(poll.error.retry_after if poll.error else None) or 0)
            self.backoff_until = now + max(retry_after, self._backoff(now))
            return False
        recovered = self.failures > 0
        self.failures = 0
        self.backoff_until = None
        if poll.outcome != "dropped":
            self.alternating = "alternating" in poll.reasons
            self.held = poll.outcome == "held"
            self.distrusts_list = poll.distrust is not None
        if poll.outcome == "ok":
            self.tags = poll.tags or 0
        if poll.outcome != "held":
            # If this listing was dropped, another process has just recorded a newer one.
            self.last_complete_at = timestamp(now)
        return recovered

    def _backoff(self, now: datetime) -> timedelta:
        """Return how long to back off. Zero if only the last poll failed."""
        if self.failures <= 1:
            return timedelta()
        return backoff(self.failures, spacing(self.watch, now))


class Discovery(_Hinted):
    """The repeated expansion of the globs of one watch.

    Attributes:
        failures: Number of failed discoveries in a row.
        matched_at: When the globs last matched a repository. None if they never did.
        logged_empty: Whether the log says that the globs match nothing.
        ended: Whether a discovery has ended since the daemon began with it.
    """

    def __init__(self, name: str, watch: Watch, matched_at: datetime | None = None) -> None:
        super().__init__()
        self.name: Final = name
        self.watch: Final = watch
        self.failures = 0
        self.matched_at = matched_at
        self.logged_empty = False
        self.ended = False

    def is_empty(self, now: datetime) -> bool:
        """Return whether the globs have matched nothing since the start, or for a day.

        The first discovery has to end before this is known.
        """
        if self.watch.allow_empty or not self.ended:
            return False
        return self.matched_at is None or now - self.matched_at > EMPTY_AFTER

    def note_found(self, found: Iterable[Repository], now: datetime) -> None:
        """Note the repositories that a discovery has found."""
        if any(self.watch.discovers(repository) for repository in found):
            self.matched_at = now
            self.logged_empty = False

    def note_result(self, *, failed: bool) -> timedelta | None:
        """Note whether a discovery failed, and return how long to wait before a retry.

        Returns:
            None if it did not fail.
        """
        self.ended = True
        if not failed:
            self.failures = 0
            return None
        self.failures += 1
        longest = self.watch.discovery_interval
        return backoff(self.failures, min(_FIRST_DISCOVERY_BACKOFF, longest), longest)


class Difference(msgspec.Struct, frozen=True):
    """The repositories that a change of the watchlist concerns.

    Attributes:
        rescheduled: Repositories that stay on the watchlist, but are due at other times.
    """

    added: tuple[WatchedRepository, ...] = ()
    removed: tuple[WatchedRepository, ...] = ()
    rescheduled: tuple[WatchedRepository, ...] = ()


class PlanDifference(msgspec.Struct, frozen=True):
    """Everything that a new plan changes.

    Attributes:
        opened: Names of registries that are new, or whose handle has changed.
        closed: Names of registries that have left the plan.
        retired: Open registries that the new plan no longer uses. The caller closes them.
        started: Discoveries of new watches, and of all watches of registries that were opened.
        stopped: Discoveries that have left the plan or were replaced.
        repositories: The repositories that are added, removed or rescheduled.
    """

    opened: frozenset[str]
    closed: frozenset[str]
    retired: frozenset[Registry]
    started: tuple[Discovery, ...]
    stopped: tuple[Discovery, ...]
    repositories: Difference


class Watchlist:
    """The repositories and discoveries of the plan that is in force."""

    def __init__(self) -> None:
        """Create a watchlist with an empty plan."""
        self.plan = Plan({}, ())
        self._watched: dict[str, WatchedRepository] = {}
        self._discovered: set[Repository] = set()
        self._discoveries: dict[Watch, Discovery] = {}
        self._discoveries_started = 0

    def __len__(self) -> int:
        """Return the number of repositories."""
        return len(self._watched)

    def __iter__(self) -> Iterator[WatchedRepository]:
        """Iterate over the repositories."""
        return iter(self._watched.values())

    def get(self, name: str) -> WatchedRepository | None:
        """Return the repository of this full name, or None if it is not watched."""
        return self._watched.get(name)

    def discovery_of(self, repository: Repository) -> Discovery | None:
        """Return the discovery that would find an unknown repository, or None."""
        watch = watch_of(repository, self.plan.watches)
        return None if watch is None else self._discoveries.get(watch)

    def has(self, watched: WatchedRepository) -> bool:
        """Return whether a repository is still watched."""
        return self._watched.get(watched.name) is watched

    def runs(self, discovery: Discovery) -> bool:
        """Return whether a discovery is still part of the plan."""
        return self._discoveries.get(discovery.watch) is discovery

    @property
    def discoveries(self) -> Iterable[Discovery]:
        """The discoveries of the plan."""
        return self._discoveries.values()

    def by_registry(self) -> dict[str, list[WatchedRepository]]:
        """Return the repositories of each registry of the plan."""
        members: dict[str, list[WatchedRepository]] = {name: [] for name in self.plan.registries}
        for watched in self:
            members[watched.repository.registry].append(watched)
        return members

    def apply_plan(self, plan: Plan, recorded: Recorded, now: datetime) -> PlanDifference:
        """Replace the plan and return the differences from the old one."""
        before, self.plan = self.plan, plan
        opened = frozenset(
            name
            for name, handle in plan.registries.items()
            if before.registries.get(name) != handle
        )
        started, stopped = self._update_discoveries(opened, recorded)
        return PlanDifference(
            opened,
            closed=frozenset(before.registries.keys() - plan.registries.keys()),
            retired=frozenset(_registries(before) - _registries(plan)),
            started=started,
            stopped=stopped,
            repositories=self._update(recorded, now),
        )

    def add_discovered(
        self, found: Iterable[Repository], recorded: Recorded, now: datetime
    ) -> Difference:
        """Watch the repositories that a discovery has found, and return the difference."""
        self._discovered.update(found)
        return self._update(recorded, now)

    def forget_if_gone(self, watched: WatchedRepository, poll: Poll) -> bool:
        """Stop watching a repository if its registry says that it does not exist.

        A repository that the configuration names without a glob is still watched, so that it is
        reported as missing.

        Returns:
            Whether the repository was removed.
        """
        if not poll.gone or self._is_named(watched.repository):
            return False
        self._discovered.discard(watched.repository)
        del self._watched[watched.name]
        return True

    def backing_off(self, registry: str) -> list[WatchedRepository]:
        """Return the repositories of a registry that back off after a transient error."""
        return [
            watched
            for watched in self
            if watched.repository.registry == registry
            and watched.failures > 1
            and watched.transient
        ]

    def stagger(
        self, repositories: Iterable[WatchedRepository], now: datetime
    ) -> list[tuple[WatchedRepository, datetime]]:
        """Return a start time for each repository.

        The start times for one registry are as far apart as its request rate requires.
        """
        earlier: Counter[str] = Counter()
        starts = []
        for watched in repositories:
            registry = watched.repository.registry
            rate = self.plan.registries[registry].requests_per_second
            starts.append((watched, now + timedelta(seconds=earlier[registry] / rate)))
            earlier[registry] += 1
        return starts

    def _is_named(self, repository: Repository) -> bool:
        return any(repository in watch.named for watch in self.plan.watches)

    def _update(self, recorded: Recorded, now: datetime) -> Difference:
        """Watch every named, discovered or recorded repository that a watch covers."""
        watches = self.plan.watches
        candidates = {repository for watch in watches for repository in watch.named}
        candidates |= self._discovered | recorded.keys()
        wanted = {
            repository.full_name: (repository, watch)
            for repository in sorted(candidates)
            if (watch := watch_of(repository, watches)) is not None
        }
        removed = tuple(self._watched.pop(name) for name in self._watched.keys() - wanted.keys())
        added: list[WatchedRepository] = []
        rescheduled: list[WatchedRepository] = []
        for name, (repository, watch) in wanted.items():
            if (watched := self._watched.get(name)) is None:
                watched = self._watched[name] = WatchedRepository(repository, watch, now)
                watched.note_recorded(recorded.get(repository, Freshness()))
                added.append(watched)
            else:
                before, watched.watch = watched.watch, watch
                if _timing(before) != _timing(watch):
                    watched.backoff_until = None
                    rescheduled.append(watched)
        return Difference(tuple(added), removed, tuple(rescheduled))

    def _update_discoveries(
        self, opened: frozenset[str], recorded: Recorded
    ) -> tuple[tuple[Discovery, ...], tuple[Discovery, ...]]:
        """Replace the discoveries. Return those that start, and those that stop."""
        before = self._discoveries
        self._discoveries = {
            watch: before[watch]
            if watch in before and watch.registry not in opened
            else self._new_discovery(watch, recorded)
            for watch in self.plan.watches
            if watch.globs
        }
        kept = {discovery.name for discovery in self.discoveries}
        known = {discovery.name for discovery in before.values()}
        started = tuple(each for each in self.discoveries if each.name not in known)
        return started, tuple(each for each in before.values() if each.name not in kept)

    def _new_discovery(self, watch: Watch, recorded: Recorded) -> Discovery:
        self._discoveries_started += 1
        name = f"discovery {self._discoveries_started} of {watch.registry}"
        # A recorded repository existed when it was last listed completely.
        listed = [
            complete_at
            for repository, (complete_at, *_) in recorded.items()
            if complete_at is not None and watch.discovers(repository)
        ]
        return Discovery(name, watch, parse_timestamp(max(listed)) if listed else None)


def _registries(plan: Plan) -> set[Registry]:
    return {handle.registry for handle in plan.registries.values()}


def _timing(watch: Watch) -> tuple[timedelta, str | None, timedelta]:
    return watch.interval, watch.cron, watch.jitter
