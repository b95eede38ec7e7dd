"""The daemon's lock: one daemon at a time has a database, and others learn that one is running."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from tagsync.database.lock_files import open_lock_file, unusable_lock
from tagsync.errors import DatabaseInUse

_LONGEST_ID: Final = 20
"""Number of bytes that are read of a process id."""


class DaemonLock:
    """A lock that a daemon holds while it lives, in a file with its process id.

    The lock is an advisory one (flock), which the kernel releases when the process ends. So the
    file of a daemon that was killed does not keep the next one from starting.
    """

    def __init__(self, database: Path) -> None:
        """Open nothing yet.

        Args:
            database: The database file. The lock's file has the ending ``.daemon-lock``. It is
                beside the file itself, also if the path is a symbolic link to it.
        """
        self._database: Final = database
        self.path: Final = Path(f"{os.path.realpath(database)}.daemon-lock")
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Get the lock at once, and write the id of this process into its file.

        Raises:
            DatabaseInUse: If a daemon holds it. The message names its process id.
            UnusableDatabase: If the file of the lock cannot be opened or locked.
        """
        descriptor = open_lock_file(self.path, self._database, os.O_RDWR)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        """Empty the file, which stays, and release the lock."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                holder = os.pread(descriptor, _LONGEST_ID, 0).strip().decode("ascii", "replace")
                raise DatabaseInUse(
                    f"{self._database} is in use by a daemon, process {holder or 'unknown'}: stop"
                    " that daemon first, or set store.path to another file"
                ) from error
            raise unusable_lock(self.path, self._database, error) from error
