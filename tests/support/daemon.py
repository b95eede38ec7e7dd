"""Helpers for tests of the daemon: a fake registry, plans, a fake service manager."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tagsync.clock import Clock, timestamp
from tagsync.daemon.service import Daemon
from tagsync.daemon.systemd import ServiceManager
from tagsync.daemon.watchlist import Plan, RegistryHandle
from tagsync.errors import RegistryError
from tagsync.models import EVERYTHING, Image, Listing, ListUse, Scope, Tag, Unchanged, Watch

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class FakeRegistry:
    """A registry that notes when it is polled, and whose answers the test decides.

    Attributes:
        polls: When each repository was polled.
        errors: The errors of a repository's next polls, one each. Later polls succeed.
        during: A function for each repository, called once while its next poll is under way.
        digests: The digest that the tag of each repository points to.
        discoveries: When the globs were expanded.
        found: The results or errors of the next discoveries, one each. The last one is repeated.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.polls: dict[str, list[datetime]] = defaultdict(list)
        self.errors: dict[str, list[RegistryError]] = defaultdict(list)
        self.during: dict[str, Callable[[], object]] = {}
        self.digests: dict[str, str] = {}
        self.discoveries: list[datetime] = []
        self.found: list[set[str] | RegistryError] = [set()]
        self.closed = False

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        assert not self.closed
        started_at = timestamp(self._clock())
        self.polls[repository].append(self._clock())
        self.during.pop(repository, lambda: None)()
        if self.errors[repository]:
            raise self.errors[repository].pop(0)
        digest = self.digests.get(repository, "sha256:1")
        return Listing(
            {"v1": Tag("v1", digest)},
            {digest: Image(digest)},
            started_at,
            timestamp(self._clock()),
            fingerprint=None,
        )

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        assert not self.closed
        self.discoveries.append(self._clock())
        answer = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(answer, RegistryError):
            raise answer
        return answer

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse | None:
        return None

    def close(self) -> None:
        self.closed = True


class FakeManager(ServiceManager):
    """A service manager that stores the messages, each as its name and its status."""

    def __init__(self, watchdog: timedelta | None = None) -> None:
        super().__init__({})
        self._watchdog = watchdog
        self.messages: list[tuple[str, str]] = []

    @property
    def watchdog(self) -> timedelta | None:
        return self._watchdog

    def ready(self, status: str) -> None:
        self.messages.append(("ready", status))

    def reloading(self) -> None:
        self.messages.append(("reloading", ""))

    def status(self, status: str) -> None:
        self.messages.append(("status", status))

    def heartbeat(self, status: str) -> None:
        self.messages.append(("heartbeat", status))

    def stopping(self) -> None:
        self.messages.append(("stopping", ""))


def plan(
    *watches: Watch, concurrency: int = 4, rate: float = 1000.0, **registries: FakeRegistry
) -> Plan:
    """A plan whose registries are named by the keywords."""
    handles = {name: RegistryHandle(each, concurrency, rate) for name, each in registries.items()}
    return Plan(handles, watches)


def watch(*repositories: str, registry: str = "a", interval: timedelta = MINUTE) -> Watch:
    return Watch(registry, repositories, interval=interval, discovery_interval=HOUR)


def watched_names(daemon: Daemon) -> dict[str, int]:
    """How many repositories of each registry a daemon watches."""
    return {each.registry: each.repositories for each in daemon.census()}
