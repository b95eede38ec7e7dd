"""Log the heads of the hash chains, so that the log is a witness."""

from typing import Final

import structlog

from tagsync.clock import Clock, timestamp
from tagsync.daemon.database import DaemonDatabase
from tagsync.daemon.metrics import Metrics
from tagsync.database.hash_chain import Heads

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class HeadLog:
    """Logs each new head once.

    `tagsync sync` logs the heads after each pass. The daemon has no passes, so it logs them
    periodically.
    """

    def __init__(self, database: DaemonDatabase, metrics: Metrics, clock: Clock) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._last = (0, 0)

    def extend(self) -> None:
        """Log the heads if one is new.

        Like `sync`, it first ends all observations that can no longer grow; most of these end in
        the first seconds of a UTC day.
        """
        self._end_past_observations()
        self._log(self._read_new())

    def close(self) -> None:
        """Close the database, and log the last heads.

        They are logged last, because a log that takes no more lines must not keep the database
        open.
        """
        heads = self._read_new()
        self._database.store.close()
        self._log(heads)

    def _end_past_observations(self) -> None:
        if not self._database.is_there():
            return
        today = timestamp(self._clock())[:10]
        with self._database.errors_logged():
            store = self._database.store
            store.end_past_observations(today, lambda: not self._database.closing)

    def _read_new(self) -> Heads | None:
        """Return the heads once they are safe from a power cut. None if no head is new.

        None also if they cannot be read, or if the database is another one now. Without a new head
        nothing is flushed to the disk.
        """
        if not self._database.is_there():
            return None
        with self._database.errors_logged():
            store = self._database.store
            if _position(store.heads()) != self._last:
                return store.durable_heads()
        return None

    def _log(self, heads: Heads | None) -> None:
        """Log heads. If the line cannot be written, the next call logs them again."""
        # The database may have been deleted or replaced since the heads were read.
        if heads is None or self._database.lost is not None:
            return
        # A log method returns False if the line could not be written; see `tagsync.log`.
        if log.info("history.extended", **heads.log_fields()) is False:
            return
        self._last = _position(heads)
        self._metrics.set_heads_logged(self._clock())


def _position(heads: Heads) -> tuple[int, int]:
    """Return how many rows both chains have."""
    return heads.changes.change_id, heads.observations.ended
