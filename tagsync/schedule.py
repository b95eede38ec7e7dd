"""Pure: when a repository is due, when it is stale, and how long to back off."""

import math
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zlib import crc32

from cronsim import CronSim

from tagsync.clock import parse_timestamp
from tagsync.models import Repository, Watch

STALE_AFTER: Final = 3
"""Number of intervals without a complete listing, after which it is stale."""

LONGEST_BACKOFF: Final = timedelta(minutes=15)
"""Default upper limit of `backoff`, unless the first delay is already longer."""


def spacing(watch: Watch, at: datetime) -> timedelta:
    """Return the planned time between two polls of a watch, around a given time.

    With ``cron`` polls need not be evenly spaced: a weekend without polls is not a gap.
    """
    if watch.cron is None:
        return watch.interval
    # Cron fires at whole minutes, and the iterator omits the minute that it starts at.
    minute_after = at.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest, before = islice(CronSim(watch.cron, minute_after, reverse=True), 2)
    return latest - before


def next_due(watch: Watch, repository: Repository, after: datetime) -> datetime:
    """Return when a repository is due next, strictly after a time, without jitter.

    With ``interval``, each repository has a fixed offset within the interval, derived from its
    name. Polls are therefore spread evenly, and a restart does not move them.
    """
    if watch.cron is not None:
        return next(CronSim(watch.cron, after.astimezone(UTC)))
    interval = watch.interval.total_seconds()
    offset = crc32(repository.full_name.encode()) / 2**32 * interval
    turns = math.floor((after.timestamp() - offset) / interval) + 1
    due = datetime.fromtimestamp(turns * interval + offset, UTC)
    # Rounding to microseconds may give `after` itself.
    return due if due > after else due + watch.interval


def stale(watch: Watch, last_complete_at: str | None, now: datetime) -> bool:
    """Return whether the last complete listing is over `STALE_AFTER` intervals old.

    Args:
        watch: The watch that covers the repository.
        last_complete_at: When it was last listed completely, or since when the daemon has been
            waiting for the first listing. None if it was never listed.
        now: The current time.
    """
    if last_complete_at is None:
        return True
    last = parse_timestamp(last_complete_at)
    if last - now > STALE_AFTER * spacing(watch, now):
        # The clock is far behind the record, so the age of the listing is unknown.
        return True
    if watch.cron is None:
        return now - last > STALE_AFTER * watch.interval
    *_, third = islice(CronSim(watch.cron, last), STALE_AFTER)
    return now > third


def backoff(failures: int, first: timedelta, longest: timedelta = LONGEST_BACKOFF) -> timedelta:
    """Return how long to wait after failures in a row: twice as long each time.

    Args:
        failures: At least one.
        first: The delay after the first failure.
        longest: Upper limit, unless ``first`` is longer.
    """
    factor: int = 2 ** min(failures - 1, 32)
    return min(first * factor, max(first, longest))
