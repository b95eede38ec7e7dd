"""Registries in memory: a scripted one, and an emulator polled into a store."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final

from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import Unreachable
from tagsync.models import EVERYTHING, Image, Listing, ListUse, Repository, Scope, Tag, Unchanged
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry, open_registry
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import NoCredential
from tagsync.registries.swr.api import REFUSALS, Swr
from tests.support.clock import FakeClock

REPOSITORY: Final = Repository("swr", "team/api")
"""The repository that most tests poll."""

INTERVAL: Final = timedelta(minutes=5)
"""The interval between two polls of a test."""


def open_at(endpoint: str) -> Registry:
    """Open an emulated SWR registry, without a credential."""
    return open_registry(
        endpoint,
        NoCredential(),
        timeout=5.0,
        retry_for=1.0,
        max_listing_bytes=2**26,
        requests_per_second=10_000.0,
        connections=1,
    )


class Scripted:
    """A registry whose listings and failures the test scripts."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.script: list[Listing | Unchanged | BaseException] = []

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        return set()

    def list_use(self, repository: str, scope: Scope = EVERYTHING) -> ListUse | None:
        return None

    def close(self) -> None:
        pass

    def then(self, *tags: Tag | str, pages: int = 1, **times: str) -> None:
        """Append a listing of these tags; a bare name gets an image named after it."""
        listed = [tag if isinstance(tag, Tag) else Tag(tag, f"sha256:{tag}") for tag in tags]
        images = {tag.digest: Image(tag.digest) for tag in listed if tag.digest}
        now = timestamp(self._clock.now)
        self.script.append(
            Listing(
                {tag.tag: tag for tag in listed},
                images,
                times.get("started_at", now),
                times.get("finished_at", now),
                fingerprint=None,
                pages=pages,
            )
        )


def poll_any_names(
    store: Store, clock: FakeClock, repository: Repository, tags: Mapping[str, str]
) -> None:
    """Poll a registry whose client leaves out no name, however hostile.

    Args:
        store: The database.
        clock: The time of the poll.
        repository: The repository.
        tags: For each name of a tag, a text that stands for its image.
    """
    registry = Scripted(clock)
    digests = {name: sha256(text.encode()).hexdigest() for name, text in tags.items()}
    registry.then(*(Tag(name, f"sha256:{digest}") for name, digest in digests.items()))
    poll(Job(repository, registry, INTERVAL), store, clock=clock)


def polls_at_minutes(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> Callable[..., None]:
    """Return a function that polls at a minute; the poll lists these tags, or fails without any."""

    def run(minute: float, *tags: Tag) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        if tags:
            scripted.then(*tags)
        else:
            scripted.script.append(Unreachable("no connection"))
        poll(job, store, clock=clock)

    return run


class World:
    """An emulated registry that is polled into a store, on a clock of the test."""

    def __init__(self, emulator: Emulator, store: Store, clock: FakeClock) -> None:
        self.emulator, self.clock, self._store = emulator, clock, store
        limits = Limits(5.0, 0.001, 2**24, 10_000.0, 1)
        self._client = Client(emulator.url, None, REFUSALS, limits)
        self._registry = Swr(self._client, 2**24, clock)

    def close(self) -> None:
        self._registry.close()

    def poll(self, *names: str, after: timedelta = INTERVAL) -> None:
        """Advance the clock, and poll these repositories."""
        self.clock.now += after
        for name in names:
            job = Job(Repository("swr", name), self._registry, INTERVAL)
            poll(job, self._store, clock=self.clock)

    def fail(self, name: str) -> None:
        """Poll a repository while its registry refuses access."""
        self.emulator.answer_next(403, {"errors": [{"errorCode": "SVCSTG.SWR.4030170"}]})
        self.poll(name)
