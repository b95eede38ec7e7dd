"""Make committed transactions durable, so that a power cut cannot undo them."""

import os
from pathlib import Path

from tagsync.errors import StoreError


def flush_to_disk(database: Path) -> None:
    """Wait until everything that was committed so far is on the disk.

    A commit in WAL mode with ``synchronous = NORMAL`` survives the death of the process, but a
    power cut may undo it until the WAL is synced. A head that was logged must not be undone.

    Raises:
        StoreError: If the disk reports an error.
    """
    try:
        # Never the database file itself: closing a second descriptor of it would release SQLite's
        # locks (https://sqlite.org/howtocorrupt.html, 2.2), and a checkpoint syncs it anyway.
        for path in (Path(f"{database}-wal"), database.parent):
            sync_path(path)
    except OSError as error:
        raise StoreError(f"{database} cannot be written to the disk: {error.strerror}") from error


def sync_path(path: Path) -> None:
    """Wait until a file or folder is on the disk. A missing file is ignored.

    Raises:
        OSError: If the disk reports an error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
