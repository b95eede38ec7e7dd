"""The database of the daemon: whether it is still the file that was opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

import structlog

from tagsync.database.store import Store
from tagsync.errors import ReplacedDatabase, StoreError

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class DaemonDatabase:
    """A database, until its file is deleted, replaced or restored. It is usable from any thread.

    Attributes:
        store: The database.
        lost: The sentence that says why it was lost. None while it is there.
        closing: Whether the daemon stops. Calls that are abandoned then find the database closed,
            as expected.
    """

    def __init__(self, store: Store) -> None:
        self.store: Final = store
        self.lost: str | None = None
        self.closing = False
        self._lock = Lock()

    def is_there(self) -> bool:
        """Return whether the database is still the file that was opened.

        Once it is not, the daemon polls no more, because it could record nothing.
        """
        if self.lost is None:
            try:
                self.store.check_files()
            except ReplacedDatabase as error:
                self.lose(error)
            except StoreError:
                # The file system gives an error. A poll tries to record, and logs the error.
                return True
        return self.lost is None

    def lose(self, error: ReplacedDatabase) -> None:
        """Log once that the database was deleted, replaced or restored."""
        with self._lock:
            if self.lost is not None:
                return
            self.lost = str(error)
        log.error("daemon.database_lost", error=self.lost)

    @contextmanager
    def errors_logged(self) -> Iterator[None]:
        """Log an error of the database within the block. The job goes on the next time it runs."""
        try:
            yield
        except ReplacedDatabase as error:
            self.lose(error)
        except StoreError as error:
            if not self.closing:
                log.error("daemon.failed", error=str(error))
