"""Jobs and options for polls, and the results of polls."""

from datetime import datetime, timedelta
from typing import Literal, Self

import msgspec

from tagsync.database.outcomes import Reason
from tagsync.errors import RegistryError
from tagsync.models import Repository, Watch
from tagsync.registries import Registry
from tagsync.schedule import spacing

PollOutcome = Literal["ok", "failed", "held", "dropped"]
"""How a poll ended. ``dropped``: another listing was recorded while this poll ran."""


class Job(msgspec.Struct, frozen=True):
    """One repository to poll.

    Attributes:
        interval: Planned time between two polls. After more than twice this time there is a gap in
            coverage.
        agreeing_listings: How many consecutive listings have to agree on a suspicious deletion.
        tags: Globs over the names of the tags to resolve.
        manifests: Whether to fetch manifests.
        discovered: Whether only discovery found the repository, and no watch names it exactly.
    """

    repository: Repository
    registry: Registry
    interval: timedelta
    agreeing_listings: int = 2
    tags: tuple[str, ...] = ("*",)
    manifests: bool = False
    discovered: bool = False

    @classmethod
    def of(cls, repository: Repository, watch: Watch, registry: Registry, at: datetime) -> Self:
        """Return the job to poll a repository according to its watch.

        Args:
            repository: The repository.
            watch: The watch that covers it.
            registry: The client for its registry.
            at: The time of the poll. With ``cron`` the interval depends on it.
        """
        return cls(
            repository,
            registry,
            spacing(watch, at),
            watch.agreeing_listings,
            watch.tags,
            watch.manifests,
            discovered=not watch.names(repository),
        )


class Options(msgspec.Struct, frozen=True):
    """How to poll.

    Attributes:
        accept_deletions: Accept every listing, however many tags it deletes.
        dry_run: Decide and log, but record nothing.
    """

    accept_deletions: bool = False
    dry_run: bool = False


class Poll(msgspec.Struct, frozen=True):
    """The result of one poll. In a dry run, it shows what would have been recorded.

    Attributes:
        tags: Number of tags in the listing. None if the poll got no listing.
        reasons: Words for why the poll failed or was held, or for what is unusual about the
            listing.
        detail: The reasons in a sentence.
        error: The registry's error, if the poll failed.
        recovered_from: Number of consecutive failed polls before this one, if this one did not
            fail.
        size: Total size of the response bodies, in bytes.
    """

    repository: Repository
    outcome: PollOutcome
    tags: int | None = None
    added: int = 0
    updated: int = 0
    deleted: int = 0
    reasons: tuple[Reason, ...] = ()
    detail: str | None = None
    error: RegistryError | None = None
    recovered_from: int = 0
    requests: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def gone(self) -> bool:
        """Whether this poll recorded that the repository no longer exists."""
        return self.outcome == "ok" and "gone" in self.reasons
