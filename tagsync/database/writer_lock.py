"""The writer's lock: one process at a time writes to the database and checkpoints it.

SQLite has a lock of its own for transactions. Before version 3.51.3 it may still lose a commit if
one process writes while another one checkpoints the WAL (https://sqlite.org/wal.html, "The
WAL-Reset Bug"). So every writer also holds this advisory lock (flock) from BEGIN to the end of the
checkpoint that a commit may start.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final, Self

from tagsync.database.lock_files import open_lock_file, unusable_lock
from tagsync.errors import DatabaseLocked

_SHORTEST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.05
"""Seconds between two attempts to get a lock that another process holds; doubled each time."""


class WriterLock:
    """A lock that processes share through a file beside the database.

    The caller makes sure that only one thread of the process uses it at a time.
    """

    def __init__(self, database: Path, timeout: float) -> None:
        """Open nothing yet.

        Args:
            database: The database file. The lock's file has the ending ``.writer-lock``.
            timeout: Seconds to wait for another process.
        """
        self._database: Final = database
        self._timeout: Final = timeout
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Get the lock.

        Raises:
            DatabaseLocked: If another process holds it for longer than the timeout.
            UnusableDatabase: If the file of the lock cannot be opened or locked.
        """
        descriptor = open_lock_file(self.path, self._database, os.O_RDONLY)
        try:
            self._wait(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            # Closing the only descriptor of the open file releases its lock (flock(2)).
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def path(self) -> Path:
        """The file of the lock. It is empty, and it stays when the database is closed."""
        return Path(f"{self._database}.writer-lock")

    def _wait(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._timeout
        wait = _SHORTEST_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise unusable_lock(self.path, self._database, error) from error
            else:
                return
            if time.monotonic() > deadline:
                raise DatabaseLocked(
                    f"another process kept {self._database} locked for too long: try again"
                )
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
