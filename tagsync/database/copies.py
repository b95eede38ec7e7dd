"""Copy a database while other processes write to it, and replace a database that none has open."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from tagsync.database import migrations, schema
from tagsync.database.connection import BUSY_TIMEOUT, Connection, connect_beside, reading
from tagsync.database.durability import sync_path
from tagsync.database.new_file import link_or_rename
from tagsync.database.skipped_events import SkippedEvents, skip_events
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import DatabaseInUse, DatabaseLocked, StoreError, UnusableDatabase

_STEP: Final = 1000
"""Number of pages to copy at once. Between two steps an interrupt is noticed."""

_UNFINISHED: Final = ("-wal", "-journal")
"""The endings of the files beside a database that have a part of its content."""


@contextmanager
def snapshot(path: Path) -> Iterator[Connection]:
    """Open a database in a read transaction, which other processes may write beside.

    All that is read through it is the state at its beginning. Until it ends, the WAL can only grow.

    Raises:
        UnusableDatabase: If the file is missing or not a database, or belongs to another program or
            to another version of tagsync.
        StoreError: If the file cannot be read.
    """
    if not path.exists():
        raise UnusableDatabase(f"there is no database at {path}: run tagsync sync first")
    may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    with _reading_as_writer(path) if may_write else reading(path) as db:
        migrations.check_current(db, str(path))
        yield db


def copy(source: Connection, path: Path, target: Path) -> None:
    """Copy a database into an empty file, with SQLite's online backup.

    The backup begins anew whenever another process commits, unless the source is in a read
    transaction. The copy is one file without a WAL.

    Args:
        source: A connection in a read transaction, such as `snapshot` opens.
        path: The empty file.
        target: The name that it will have, for messages.

    Raises:
        StoreError: If the copy cannot be written or the source cannot be read.
    """
    with translate_sqlite_errors(target), closing(sqlite3.connect(path)) as db:
        # A copy that is not completed is removed, so that it needs neither a journal nor syncs.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        source.backup(db, pages=_STEP, sleep=0)
        db.execute("PRAGMA journal_mode = DELETE")


def prepare(path: Path, name: Path) -> list[SkippedEvents]:
    """Make the copy of a database ready for use in its place.

    It gets this version's schema and a new ``database_id``, and each destination of notifications
    begins with the next event.

    Args:
        path: The copy of a file that `migrations.check` accepts. No other process uses it.
        name: The file that it was copied from, for messages.

    Returns:
        The events that the destinations will therefore not be sent.

    Raises:
        StoreError: If the copy is damaged or cannot be written.
    """
    with translate_sqlite_errors(name), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")
        migrations.migrate(db, str(name))
        db.execute(f"UPDATE info SET database_id = {schema.RANDOM_ID}")  # noqa: S608  constant
        return skip_events(db)


@contextmanager
def exclusive(path: Path) -> Iterator[Connection]:
    """Open a database that no other process has open, and keep all others out.

    The WAL is first copied into the file. Another process that opens the file meanwhile waits.

    Raises:
        DatabaseInUse: If another process has it open.
        StoreError: If the file cannot be read or written.
    """
    with translate_sqlite_errors(path):
        db = sqlite3.connect(path, isolation_level=None, timeout=0, factory=Connection)
        with closing(db):
            try:
                with translate_sqlite_errors(path):
                    # Leaving the WAL mode needs the file exclusively.
                    db.execute("PRAGMA journal_mode = DELETE")
                    db.execute("BEGIN EXCLUSIVE")
            except DatabaseLocked as error:
                raise DatabaseInUse(
                    f"{path} is open in another process: stop every tagsync and every other program"
                    " that reads it, then try again"
                ) from error
            yield db


def keep_aside(path: Path) -> Path | None:
    """Give a database a second name, with the ending ``.before-restore``, and return that name.

    A WAL or a journal that is left belongs to that name from then on. If a file has the name
    already, a number is appended. Without a database the result is None.

    Raises:
        StoreError: If the file system refuses.
    """
    try:
        endings = [each for each in ("", *_UNFINISHED) if os.path.lexists(f"{path}{each}")]
        if not endings:
            return None
        kept = _free_name(path)
        for ending in endings:
            link_or_rename(Path(f"{path}{ending}"), Path(f"{kept}{ending}"))
        sync_path(path.parent)
        for ending in (*_UNFINISHED, "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be kept under another name ({error.strerror}): check the permissions"
            " and the free space"
        ) from error
    return kept


def _free_name(path: Path) -> Path:
    number = 1
    while True:
        name = Path(f"{path}.before-restore{f'-{number}' if number > 1 else ''}")
        others = [Path(f"{name}{ending}") for ending in _UNFINISHED]
        if not any(map(os.path.lexists, others)):
            if not os.path.lexists(name):
                return name
            if path.exists() and name.samefile(path):
                # A restore was killed before it replaced the database: only the name is left.
                name.unlink()
                return name
        number += 1


@contextmanager
def _reading_as_writer(path: Path) -> Iterator[Connection]:
    """Open a read transaction that holds back checkpoints, with the right to write.

    Unlike a read-only connection, it can recover a WAL and remove it when it is closed last.
    """
    with closing(connect_beside(path)) as db, translate_sqlite_errors(path):
        try:
            migrations.check(db, str(path))
            db.execute("BEGIN")
            yield db
            db.rollback()
        finally:
            # The connection that is closed last checkpoints the WAL.
            with suppress(StoreError), WriterLock(path, BUSY_TIMEOUT):
                db.close()
