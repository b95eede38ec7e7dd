"""How much space the database takes, and how many log lines are pending."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from tagsync.database.connection import Connection, file_size

MAX_PENDING: Final = 100_000
"""Pending log lines are counted up to this number, so that counting takes milliseconds."""

# CROSS JOIN, so that SQLite reads the few repositories with pending lines first, not all changes.
_PENDING: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM repositories AS r
        CROSS JOIN changes AS c ON c.repository_id = r.id AND c.id >= r.unlogged_from
        WHERE r.unlogged_from IS NOT NULL LIMIT ?
    )
"""


class DiskUsage(NamedTuple):
    """Sizes in bytes.

    Attributes:
        database: The file of the database.
        wal: The file of the write-ahead log (WAL). 0 if there is none.
        free: Free space of the file system, as far as this user may use it.
        file_system: The whole file system.
    """

    database: int
    wal: int
    free: int
    file_system: int


def measure_disk(path: Path) -> DiskUsage:
    """Return the sizes of a database's files and of their file system.

    Raises:
        OSError: If the database is not there, or the file system gives an error.
    """
    file_system = os.statvfs(path)
    return DiskUsage(
        database=path.stat().st_size,
        wal=file_size(Path(f"{path}-wal")),
        free=file_system.f_bavail * file_system.f_frsize,
        file_system=file_system.f_blocks * file_system.f_frsize,
    )


def count_pending_lines(db: Connection) -> int:
    """Return the number of changes whose log lines are pending, at most `MAX_PENDING`.

    Each tag of a first listing counts, although the log has one line for all of them.
    """
    (count,) = db.execute(_PENDING, (MAX_PENDING,)).fetchone()
    return int(count)
