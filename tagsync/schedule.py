"""Pure: when a repository is due, when it is stale, and how long what keeps failing may rest."""

import math
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zlib import crc32

from cronsim import CronSim

from tagsync.clock import parse_timestamp
from tagsync.models import Repository, Watch

MISSED: Final = 3
"""After how many intervals without a complete listing a repository is stale."""

LONGEST_REST: Final = timedelta(minutes=15)
"""How long what keeps failing rests at most, unless its own interval is longer."""


def spacing(watch: Watch, at: datetime) -> timedelta:
    """How far apart the polls of a watch are meant to be around a moment.

    With ``cron`` they need not be evenly spaced: over a weekend without polls nothing was missed.
    """
    if watch.cron is None:
        return watch.interval
    # Cron's moments are whole minutes, and the iterator leaves out the one that it begins at.
    minute_after = at.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest, before = islice(CronSim(watch.cron, minute_after, reverse=True), 2)
    return latest - before


def next_due(watch: Watch, repository: Repository, after: datetime) -> datetime:
    """When a repository is due next, strictly after a moment, without jitter.

    With ``interval`` each repository has its own place in it, told by its name, so that polls are
    spread evenly and the times stay the same across restarts.
    """
    if watch.cron is not None:
        return next(CronSim(watch.cron, after.astimezone(UTC)))
    interval = watch.interval.total_seconds()
    place = crc32(repository.full_name.encode()) / 2**32 * interval
    turns = math.floor((after.timestamp() - place) / interval) + 1
    due = datetime.fromtimestamp(turns * interval + place, UTC)
    # Rounded to microseconds it may be the moment itself.
    return due if due > after else due + watch.interval


def stale(watch: Watch, last_complete_at: str | None, now: datetime) -> bool:
    """Whether a repository has had no complete listing for `MISSED` intervals.

    Args:
        watch: has the repository.
        last_complete_at: of its last complete listing, or since when it has been waited for; null
            where there never was one.
        now: the present.
    """
    if last_complete_at is None:
        return True
    last = parse_timestamp(last_complete_at)
    if last - now > MISSED * spacing(watch, now):
        # How long ago that was cannot be told while the clock is so far behind the record.
        return True
    if watch.cron is None:
        return now - last > MISSED * watch.interval
    *_, third = islice(CronSim(watch.cron, last), MISSED)
    return now > third


def rest(failures: int, shortest: timedelta, longest: timedelta = LONGEST_REST) -> timedelta:
    """How long to leave alone what failed so often in a row: twice as long each time.

    Args:
        failures: at least one.
        shortest: after the first of them.
        longest: where it ends, unless ``shortest`` is longer.
    """
    doubled: int = 2 ** min(failures - 1, 32)
    return min(shortest * doubled, max(shortest, longest))
