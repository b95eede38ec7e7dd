"""Files beside a database on which processes hold advisory locks (flock)."""

import os
from pathlib import Path

from tagsync.errors import UnusableDatabase


def open_lock_file(path: Path, database: Path, flags: int) -> int:
    """Open the file of a lock, and return its descriptor. A missing file is created.

    If root creates it, it gets the owner of the database, or else of the folder, so that a service
    without privileges can use it.

    Args:
        path: The file of the lock.
        database: The database.
        flags: ``os.O_RDONLY`` or ``os.O_RDWR``.

    Raises:
        UnusableDatabase: If the file cannot be opened.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(path, flags | os.O_EXCL, 0o666)
        except FileExistsError:
            return os.open(path, flags, 0o666)
        if os.geteuid() == 0:
            owner = (database if database.exists() else path.parent).stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise unusable_lock(path, database, error) from error
    return descriptor


def unusable_lock(path: Path, database: Path, error: OSError) -> UnusableDatabase:
    """Return the error about a lock that cannot be used."""
    return UnusableDatabase(
        f"{database} cannot be opened, because its lock {path} cannot be used ({error.strerror}):"
        " check that its folder exists, and the permissions"
    )
