"""Pure: when a repository is due or stale, and how long to back off."""

import math
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final
from zlib import crc32
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tagsync.clock import parse_timestamp
from tagsync.models import Repository, Watch

STALE_AFTER: Final = 3
"""A repository is stale after this number of intervals without a complete listing."""

LONGEST_BACKOFF: Final = timedelta(minutes=15)
"""Default upper limit of the delays that `backoff` returns."""

_MINUTE: Final = timedelta(minutes=1)

_CACHED: Final = 1024
"""Maximum number of cron expressions for which the last planned polls are remembered."""


def firings(cron: str, at: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Yield the times that a cron expression gives after a time, in UTC.

    Args:
        cron: Five fields, with ``CRON_TZ=ZONE`` before them if they are not in UTC.
        at: The time to start from. Its minute is left out.
        reverse: Whether to yield the times before ``at``, the latest first.

    Raises:
        cronsim.CronSimError: If a field is invalid.
        LookupError, ValueError, OSError: If the time zone is unknown.
    """
    prefix, fields = cron.split(maxsplit=1) if cron.startswith("CRON_TZ=") else ("", cron)
    zone: tzinfo = ZoneInfo(prefix.removeprefix("CRON_TZ=")) if prefix else UTC
    for firing in CronSim(fields, at.astimezone(zone), reverse=reverse):
        # Convert it: Python subtracts two times of one zone without regard to daylight saving.
        yield firing.astimezone(UTC)


def spacing(watch: Watch, at: datetime) -> timedelta:
    """Return the planned time between two polls of a repository, at a given time.

    With ``cron`` this is the time between the last two planned polls. It may vary: for instance, a
    weekend for which no polls are planned is not a gap in coverage.
    """
    if watch.cron is None:
        return watch.interval
    # Polls are planned at whole minutes, and CronSim leaves out the minute from which it starts.
    return _cron_spacing(watch.cron, _whole_minute(at) + _MINUTE)


@lru_cache(maxsize=_CACHED)
def _cron_spacing(cron: str, minute_after: datetime) -> timedelta:
    latest, before = islice(firings(cron, minute_after, reverse=True), 2)
    return latest - before


def next_due(watch: Watch, repository: Repository, after: datetime) -> datetime:
    """Return the next time later than ``after`` at which a repository is due.

    With ``interval``, each repository has a fixed offset within the interval, derived from its
    name. Polls are therefore spread evenly, and a restart does not move them. The jitter is not
    included.
    """
    if watch.cron is not None:
        return next(firings(watch.cron, after))
    interval = watch.interval.total_seconds()
    offset = crc32(repository.full_name.encode()) / 2**32 * interval
    turns = math.floor((after.timestamp() - offset) / interval) + 1
    due = datetime.fromtimestamp(turns * interval + offset, UTC)
    # Rounding to microseconds may give `after` itself.
    return due if due > after else due + watch.interval


def stale(watch: Watch, last_complete_at: str | None, now: datetime) -> bool:
    """Return whether the last complete listing is older than `STALE_AFTER` intervals.

    Args:
        watch: The watch that covers the repository.
        last_complete_at: Time of the last complete listing. For a repository without a complete
            listing, the daemon passes the time since when it has watched the repository, and other
            callers pass None.
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
    minute = _whole_minute(now)
    return last < _stale_before(watch.cron, minute if minute == now else minute + _MINUTE)


@lru_cache(maxsize=_CACHED)
def _stale_before(cron: str, minute: datetime) -> datetime:
    """Return the third of the last planned polls before a whole minute.

    A repository that was last listed before it has missed all three of them.
    """
    # Not in reverse, in which CronSim may give other times when clocks change.
    *_, start = islice(firings(cron, minute, reverse=True), 2 * STALE_AFTER)
    planned = takewhile(lambda firing: firing < minute, firings(cron, start - _MINUTE))
    return deque(planned, maxlen=STALE_AFTER)[0]


def _whole_minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def backoff(failures: int, first: timedelta, longest: timedelta = LONGEST_BACKOFF) -> timedelta:
    """Return how long to wait after consecutive failures; the delay doubles each time.

    Args:
        failures: Number of consecutive failures, at least 1.
        first: The delay after the first failure.
        longest: Upper limit of the delay. ``first`` is the limit if it is longer.
    """
    factor: int = 2 ** min(failures - 1, 32)
    return min(first * factor, max(first, longest))
