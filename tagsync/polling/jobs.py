"""Jobs and options for polls, and the results of polls."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, Self

import msgspec

from tagsync.database.outcomes import Alternation, Reason
from tagsync.errors import RegistryError
from tagsync.models import Change, Distrust, Repository, Watch
from tagsync.registries import Registry
from tagsync.schedule import spacing

PollOutcome = Literal["ok", "failed", "held", "dropped"]
"""How a poll ended.

``dropped`` means that another listing of the repository was recorded while the poll ran.
"""


_SHORTEST_AGREE_AFTER: Final = timedelta(minutes=1)
"""Shortest default of ``agree_after``."""


class Job(msgspec.Struct, frozen=True):
    """One repository to poll.

    Attributes:
        repository: The repository.
        registry: The client for the registry that has the repository.
        interval: Planned time between two polls. If the actual time is more than twice as long,
            there is a gap in coverage.
        agreeing_listings: How many consecutive listings have to agree before a suspicious deletion
            is recorded.
        agree_after: How far apart these listings have to be.
        tags: Globs over the names of the tags to resolve.
        exclude_tags: Globs over the names of the tags not to resolve.
        immutable: Globs over the names of the tags that must not move.
        manifests: Whether to fetch manifests.
        discovered: Whether only discovery found the repository, and no watch names it exactly.
        failures: Number of failed polls directly before this poll that the caller knows of. The
            database lacks those that it could not record itself, for instance on a full disk.
    """

    repository: Repository
    registry: Registry
    interval: timedelta
    agreeing_listings: int = 2
    agree_after: timedelta = timedelta()
    tags: tuple[str, ...] = ("*",)
    exclude_tags: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    manifests: bool = False
    discovered: bool = False
    failures: int = 0

    @classmethod
    def of(cls, repository: Repository, watch: Watch, registry: Registry, at: datetime) -> Self:
        """Return the job to poll a repository according to its watch.

        Args:
            repository: The repository.
            watch: The watch that covers the repository.
            registry: The client for the repository's registry.
            at: The time of the poll. If the watch uses ``cron``, the interval depends on this time,
                and so does the default of ``agree_after``.
        """
        interval = spacing(watch, at)
        agree_after = watch.agree_after
        if agree_after is None:
            agree_after = max(interval / 2, _SHORTEST_AGREE_AFTER)
        return cls(
            repository,
            registry,
            interval,
            watch.agreeing_listings,
            agree_after,
            watch.tags,
            watch.exclude_tags,
            watch.immutable,
            watch.manifests,
            discovered=not watch.names(repository),
        )


class Options(msgspec.Struct, frozen=True):
    """Options that apply to all polls of a command.

    Attributes:
        accept_deletions: Whether to accept every listing, even if it deletes suspiciously many
            tags or is stale.
        dry_run: Whether to record nothing. The outcome is still decided and logged.
    """

    accept_deletions: bool = False
    dry_run: bool = False


class Poll(msgspec.Struct, frozen=True):
    """The result of one poll, or in a dry run the result that a real poll would have.

    Attributes:
        repository: The repository that was polled.
        outcome: How the poll ended.
        tags: Number of tags in the listing. None if the poll got no listing.
        added: Number of added tags.
        updated: Number of updated tags.
        deleted: Number of deleted tags.
        moved: Number of updated tags that now point to another image.
        first: Whether the poll got the first complete listing of the repository.
        changes: In a dry run, the changes that a real poll would record. Otherwise empty.
        reasons: Fixed words that say why the poll failed or was held, or that name unusual
            properties of the listing.
        detail: A sentence that explains the reasons, or why the listing was dropped.
        counts_from: A listing that begins earlier than this time will not be recorded. None if the
            listing was not held.
        alternation: The alternation that the listing is part of, or ends. None if there is none.
        distrust: As in `Listing`.
        error: The registry's error. None if the poll did not fail.
        recovered_from: Number of consecutive failed polls directly before this poll. 0 if this poll
            failed or was dropped.
        requests: Number of requests, retries included. 0 if the poll failed.
        size: Total size of the response bodies, in bytes. 0 if the poll failed.
        seconds: Duration of the poll.
    """

    repository: Repository
    outcome: PollOutcome
    tags: int | None = None
    added: int = 0
    updated: int = 0
    deleted: int = 0
    moved: int = 0
    first: bool = False
    changes: Sequence[Change] = ()
    reasons: tuple[Reason, ...] = ()
    detail: str | None = None
    counts_from: str | None = None
    alternation: Alternation | None = None
    distrust: Distrust | None = None
    error: RegistryError | None = None
    recovered_from: int = 0
    requests: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def gone(self) -> bool:
        """Whether this poll recorded that the repository no longer exists."""
        return self.outcome == "ok" and "gone" in self.reasons
