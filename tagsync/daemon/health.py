"""The health of the daemon: counts, and sentences for ``/healthz`` and systemd."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.daemon.watchlist import Discovery, WatchedRepository, Watchlist
from tagsync.database.verifications import Verification

HEARTBEAT: Final = timedelta(seconds=10)
"""Longest time between two heartbeats of a scheduler that works."""

_REPORTED: Final = 20
"""Maximum number of repositories that an answer of ``/healthz`` names for each problem."""


class Census(msgspec.Struct, frozen=True):
    """Counts over the repositories of one registry.

    Attributes:
        failing: Repositories whose last poll failed.
        stale: Repositories without a complete listing for three intervals.
        empty: Watches whose globs match nothing.
        oldest: Each repository has a last complete listing; this is the time of the oldest. None if
            no repository was ever listed completely.
        held: Repositories whose newest listing since the start was held.
        distrusted: Repositories whose registry's own list HEAD contradicted, so it is not used.
        unpolled: Repositories whose first poll has not ended.
        undiscovered: Watches whose first discovery has not ended.
    """

    registry: str
    repositories: int
    tags: int
    failing: int
    stale: int
    empty: int
    oldest: datetime | None
    held: int = 0
    distrusted: int = 0
    unpolled: int = 0
    undiscovered: int = 0

    @property
    def settled(self) -> bool:
        """Whether every first poll and discovery has ended."""
        return not self.unpolled and not self.undiscovered


def census(watchlist: Watchlist, now: datetime) -> list[Census]:
    """Return the counts of each registry of the plan."""
    empty = Counter(each.watch.registry for each in _empty(watchlist, now))
    new = Counter(each.watch.registry for each in watchlist.discoveries if not each.ended)
    return [
        _count(name, some, empty[name], new[name], now)
        for name, some in watchlist.by_registry().items()
    ]


def faults(silent: float, database: str | None) -> list[str]:
    """Return one sentence for each fault of the daemon itself, which a restart may repair.

    Args:
        silent: Seconds since the last heartbeat.
        database: The error if the database was deleted, replaced or restored.
    """
    sentences = []
    if silent > 3 * HEARTBEAT.total_seconds():
        sentences.append(f"the scheduler has not run any job for {silent:.0f} s")
    if database is not None:
        sentences.append(database)
    return sentences


def problems(watchlist: Watchlist, now: datetime) -> list[str]:
    """Return one sentence for each problem with what is watched. Empty if there is none.

    Args:
        watchlist: The repositories and discoveries.
        now: The current time.
    """
    empty = [_describe_empty(discovery) for discovery in _empty(watchlist, now)]
    stale = sorted(_describe(watched) for watched in watchlist if watched.is_stale(now))
    alternating = sorted(_describe_alternating(each) for each in watchlist if each.alternating)
    sentences = empty[:_REPORTED] + stale[:_REPORTED] + alternating[:_REPORTED]
    if len(empty) > _REPORTED:
        sentences.append(f"{len(empty) - _REPORTED} more watches match nothing")
    if len(stale) > _REPORTED:
        sentences.append(f"{len(stale) - _REPORTED} more repositories are stale")
    if len(alternating) > _REPORTED:
        sentences.append(f"{len(alternating) - _REPORTED} more repositories alternate")
    return sentences


def summarize(
    counts: Sequence[Census],
    rejected: str | None,
    database: str | None = None,
    verification: Verification | None = None,
) -> str:
    """Return the status line for ``systemctl status``.

    Args:
        counts: The counts of each registry.
        rejected: The error of the last reload. None if it succeeded, or before the first reload.
        database: The error if the database was deleted, replaced or restored.
        verification: The last verification. None if there was none.
    """
    if database is not None:
        return f"Nothing is recorded: {database}."
    remarks = [
        f"{count} {what}"
        for count, what in (
            (sum(each.undiscovered for each in counts), "watches not expanded yet"),
            (sum(each.unpolled for each in counts), "not polled yet"),
            (sum(each.failing for each in counts), "failing"),
            (sum(each.stale for each in counts), "stale"),
            (sum(each.empty for each in counts), "empty watches"),
        )
        if count
    ]
    if verification is not None and verification.result == "fault":
        remarks.append("the last verification found a fault")
    status = (
        f"Watching {sum(each.repositories for each in counts)} repositories"
        f" in {len(counts)} registries with {sum(each.tags for each in counts)} tags:"
        f" {', '.join(remarks) or 'all is well'}."
    )
    if rejected is None:
        return status
    return f"{status} The configuration was not reloaded: {rejected}."


def _empty(watchlist: Watchlist, now: datetime) -> list[Discovery]:
    return [discovery for discovery in watchlist.discoveries if discovery.is_empty(now)]


def _describe_empty(discovery: Discovery) -> str:
    watch, matched_at = discovery.watch, discovery.matched_at
    since = f"since {timestamp(matched_at)}" if matched_at else "since the daemon started"
    failed = "; its last discovery failed" if discovery.failures else ""
    return (
        f"the watch of {', '.join(watch.globs)} in registry {watch.registry} has matched no"
        f" repository {since}{failed}"
    )


def _describe(watched: WatchedRepository) -> str:
    detail = f"; {watched.detail}" if watched.detail else ""
    return (
        f"{watched.name} has had no complete listing for three intervals"
        f" (the last: {watched.last_complete_at or 'never'}{detail})"
    )


def _describe_alternating(watched: WatchedRepository) -> str:
    return (
        f"{watched.name} alternates between two states: replicas of its registry may disagree, see"
        " listings.alternating in the log"
    )


def _count(
    registry: str,
    members: Sequence[WatchedRepository],
    empty: int,
    undiscovered: int,
    now: datetime,
) -> Census:
    complete = [each.last_complete_at for each in members if each.last_complete_at]
    return Census(
        registry,
        repositories=len(members),
        tags=sum(each.tags for each in members),
        failing=sum(each.failures > 0 for each in members),
        stale=sum(each.is_stale(now) for each in members),
        held=sum(each.held for each in members),
        distrusted=sum(each.distrusts_list for each in members),
        empty=empty,
        unpolled=sum(not each.polled for each in members),
        undiscovered=undiscovered,
        oldest=parse_timestamp(min(complete)) if complete else None,
    )
