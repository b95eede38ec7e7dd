"""Open SQLite connections to the database file."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tagsync.database import migrations
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError, UnusableDatabase
from tagsync.permissions import group_advice

BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process's transaction."""

WAL_SIZE: Final = 64 * 2**20
"""Size of the write-ahead log (WAL) in bytes at which a writer copies it into the database file.

The file of the WAL is then truncated to this size.
"""


class Connection(sqlite3.Connection):
    """A SQLite connection with rows as dictionaries.

    `rollback` may be called after `close`, because an interrupt may close the connection before
    the code that began a transaction rolls it back.
    """

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield each row of a query as a dictionary from column names to values."""
        cursor = self.execute(sql, parameters)
        columns = [column for column, *_ in cursor.description]
        return (dict(zip(columns, row, strict=True)) for row in cursor)

    def rollback(self) -> None:
        """Roll back. Does nothing if the connection is already closed."""
        with suppress(sqlite3.ProgrammingError):
            super().rollback()


def connect(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    """Open a database for writing; create and migrate it as needed.

    Args:
        path: The file.
        busy_timeout: Seconds to wait for another process's transaction.

    Raises:
        UnusableDatabase: If the file is not a database, or belongs to another program or to a
            newer tagsync, or if this SQLite lacks FTS5.
        StoreError: If the file cannot be read or written.
    """
    with translate_sqlite_errors(path):
        db = _open(str(path), uri=False, busy_timeout=busy_timeout)
        with _close_on_failure(db):
            migrations.migrate(db, str(path))
            _use_wal(db, busy_timeout)
            db.execute("PRAGMA synchronous = NORMAL")
            # Keep the statement journal in memory and use a 16 MB page cache (default 2 MB): a
            # first import is 7 % faster.
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA cache_size = -16000")
            # Checkpoint rarely: digests are random, so each commit changes pages all over the file.
            # Checkpoints in a thread of their own would be unsafe before SQLite 3.51.3
            # (https://sqlite.org/wal.html, "The WAL-Reset Bug").
            db.execute(f"PRAGMA journal_size_limit = {WAL_SIZE}")
            (page_size,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA wal_autocheckpoint = {WAL_SIZE // page_size}")
        return db


def connect_beside(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    """Open a second connection, for reading, to a database that `connect` has opened.

    The connection is not opened read-only: if it is closed last, it has to remove the file of the
    WAL. SQLite refuses every statement that writes.

    Args:
        path: The file.
        busy_timeout: As in `connect`.

    Raises:
        StoreError: If the file cannot be read.
    """
    with translate_sqlite_errors(path):
        db = _open(str(path), uri=False, busy_timeout=busy_timeout)
        with _close_on_failure(db):
            db.execute("PRAGMA query_only = ON")
        return db


def connect_for_reading(path: Path) -> Connection:
    """Open a database read-only.

    If a process was killed while it created or migrated the database, its journal is rolled back
    first, unless this user cannot write to the database.

    Raises:
        UnusableDatabase: If the file is not a database, or belongs to another program or to a
            newer tagsync.
        StoreError: If the file cannot be read.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        _roll_back_journal(path)
        # To read a WAL, SQLite creates a file beside the database. Without the permission for that,
        # it can only read a database that no process has open.
        immutable = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
        mode = "mode=ro&immutable=1" if immutable else "mode=ro"
        db = _open(f"{path.absolute().as_uri()}?{mode}", uri=True)
        with _close_on_failure(db):
            migrations.check(db, str(path))
        return db


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a database read-only, so that all queries see it as it is now.

    This creates no file. If another process has the database open, SQLite also reads that process's
    WAL. Otherwise SQLite opens the file as immutable, and an error is raised if the file changes
    meanwhile. A journal is rolled back first, as in `connect_for_reading`.

    Raises:
        UnusableDatabase: If the file is not a database, or belongs to another program or to a
            newer tagsync.
        StoreError: If the file cannot be read, or if it changed meanwhile.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        _roll_back_journal(path)
        endings = ("-wal", "-journal")
        immutable = not any(file_size(Path(f"{path}{ending}")) for ending in endings)
        has_shm = Path(f"{path}-shm").exists()
        if not immutable and not has_shm and not os.access(path.parent, os.W_OK):
            raise UnusableDatabase(
                f"{path} has an unfinished WAL or journal, left by a process that was killed or by"
                " a copy: run tagsync status once as a user who can write to its folder, then try"
                " again"
            )
        before = _fingerprint(path)
        try:
            mode = "mode=ro&immutable=1" if immutable else "mode=ro"
            with closing(_open(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
                migrations.check(db, str(path))
                db.execute("BEGIN")
                yield db
        finally:
            # Results and errors are meaningless if the file changed while it was read.
            if immutable and _fingerprint(path) != before:
                raise StoreError(f"{path} was written to while it was read: try again")


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, or 0 if it is missing.

    The files beside a database may be removed at any time, by the process that closes it last.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def empty_database() -> Connection:
    """Open a new database in memory."""
    db = _open(":memory:", uri=False)
    migrations.migrate(db, "memory")
    return db


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        advice = group_advice(path) or "check its owner and permissions"
        raise UnusableDatabase(f"{path} cannot be read by this user: {advice}")


def _roll_back_journal(path: Path) -> None:
    """Roll back what a killed process, or a power cut, has left unfinished.

    A connection that is read-only cannot do so, and reports the database as not writable. If the
    journal belongs to a running process, this waits for it.
    """
    if file_size(Path(f"{path}-journal")) and os.access(path, os.W_OK):
        with closing(_open(str(path), uri=False)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _fingerprint(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open(database: str, *, uri: bool, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    return sqlite3.connect(
        database,
        uri=uri,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )


def _use_wal(db: Connection, busy_timeout: float) -> None:
    """Switch a database to WAL mode, outside a transaction.

    If another process does the same at this moment, SQLite reports "busy" at once instead of
    waiting. The switch is then retried.
    """
    if db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    import stamina  # noqa: PLC0415  30 ms that only a new database needs

    for attempt in stamina.retry_context(
        on=_is_busy,
        attempts=None,
        timeout=busy_timeout,
        wait_initial=0.01,
        wait_max=0.5,
        wait_jitter=0.05,
    ):
        with attempt:
            db.execute("PRAGMA journal_mode = WAL")


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


@contextmanager
def _close_on_failure(db: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise
