"""How the repositories of each registry are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from tagsync.clock import parse_timestamp
from tagsync.daemon.watchlist import Watched

NAMED_IN_HEALTH: Final = 20
"""How many repositories an answer of bad health names."""


class Census(msgspec.Struct, frozen=True):
    """How the repositories of one registry are.

    Attributes:
        failing: whose last poll failed.
        stale: without a complete listing for three intervals.
        oldest: of the last complete listings the oldest; null where there is none.
    """

    registry: str
    repositories: int
    tags: int
    failing: int
    stale: int
    oldest: datetime | None


def census_of(registry: str, members: Sequence[Watched], now: datetime) -> Census:
    """Return the counts of a registry."""
    complete = [each.last_complete_at for each in members if each.last_complete_at]
    return Census(
        registry,
        repositories=len(members),
        tags=sum(each.tags for each in members),
        failing=sum(each.failures > 0 for each in members),
        stale=sum(each.is_stale(now) for each in members),
        oldest=parse_timestamp(min(complete)) if complete else None,
    )
