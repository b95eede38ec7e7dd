"""APScheduler's triggers and its log."""

import logging
from datetime import datetime, timedelta
from random import Random
from typing import Final

import structlog
from apscheduler.triggers.base import BaseTrigger

from tagsync.daemon.watchlist import Watched
from tagsync.schedule import next_due

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Jittered(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """Fires when a repository is due, a little later at random; what is past it leaves out."""

    def __init__(self, watched: Watched, random: Random) -> None:
        self._watched = watched
        self._random = random

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the next time."""
        after = max(previous or now, now)
        watch = self._watched.watch
        put_off = self._random.uniform(0, watch.jitter.total_seconds())
        return next_due(watch, self._watched.repository, after) + timedelta(seconds=put_off)


class Regular(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """Fires an interval after the last time; what is past it leaves out."""

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:  # noqa: ARG002  APScheduler's signature
        """Return the next time."""
        return now + self._interval


class _Complaints(logging.Handler):
    """Passes on what APScheduler says went wrong; that a poll overran is told by its event."""

    def emit(self, record: logging.LogRecord) -> None:
        log.error("daemon.failed", error=record.getMessage(), exc_info=record.exc_info)


def forward_complaints() -> None:
    """Log APScheduler's errors as ours."""
    logger = logging.getLogger("apscheduler")
    logger.propagate = False
    logger.handlers = [_Complaints(logging.ERROR)]
