"""What is watched, and how it is."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from tagsync.models import Repository, Watch
from tagsync.polling.poll import Poll
from tagsync.registries import Registry
from tagsync.schedule import stale


class Source(msgspec.Struct, frozen=True):
    """A registry, and how it may be asked.

    Attributes:
        concurrency: how many of its repositories may be polled at once.
        requests_per_second: how fast first polls follow each other.
    """

    registry: Registry
    concurrency: int
    requests_per_second: float


class Plan(msgspec.Struct, frozen=True):
    """What the daemon is to do.

    Attributes:
        sources: by the registry's name. A source that is the same as before stays as it is.
        watches: in the order in which the first that matches has a repository.
    """

    sources: Mapping[str, Source]
    watches: tuple[Watch, ...]


class Watched:
    """A repository under watch, and how it is."""

    def __init__(self, repository: Repository, watch: Watch, source: Source, since: str) -> None:
        self.repository = repository
        self.watch = watch
        self.source = source
        self.since = since
        self.last_complete_at: str | None = None
        self.tags = 0
        self.failures = 0
        self.passing = False
        self.detail: str | None = None
        self.polling = False
        self.overran = False
        self.rests_until: datetime | None = None

    @property
    def id(self) -> str:
        """The full name."""
        return self.repository.full_name

    def is_stale(self, now: datetime) -> bool:
        """Return whether there was no complete listing for too long."""
        return stale(self.watch, self.last_complete_at or self.since, now)

    def take(self, poll: Poll, at: str) -> None:
        """Notes what a poll came to."""
        self.detail = poll.detail
        if poll.outcome == "failed":
            self.failures += 1
            self.passing = poll.error is not None and poll.error.transient
            return
        self.failures = 0
        if poll.outcome == "ok":
            self.tags = poll.tags or 0
        if poll.outcome != "held":
            # Where it was dropped somebody else has recorded a newer one.
            self.last_complete_at = at
