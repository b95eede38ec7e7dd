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

BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process's transaction."""

WAL_SIZE: Final = 64 * 2**20
"""Bytes after which a writer copies the WAL into the database file and truncates it to this."""


class Connection(sqlite3.Connection):
    """SQLite's connection, with rows as dictionaries, and a rollback that may come after close.

    An interrupt may leave a transaction open and close the connection before it is rolled back.
    """

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a query as dictionaries, by column name."""
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
        StoreError: If it cannot be read or written.
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
            # Digests are random, so that each commit touches pages everywhere: rarer checkpoints
            # write them less often. A thread for checkpoints is unsafe before SQLite 3.51.3
            # (https://sqlite.org/wal.html, "The WAL-Reset Bug").
            db.execute(f"PRAGMA journal_size_limit = {WAL_SIZE}")
            (page_size,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA wal_autocheckpoint = {WAL_SIZE // page_size}")
        return db


def connect_beside(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    """Open a second connection, for reading, to a database that `connect` has opened.

    It is not opened read-only, because the connection that is closed last removes the WAL.

    Args:
        path: The file.
        busy_timeout: As in `connect`.

    Raises:
        StoreError: If it cannot be read.
    """
    with translate_sqlite_errors(path):
        db = _open(str(path), uri=False, busy_timeout=busy_timeout)
        with _close_on_failure(db):
            db.execute("PRAGMA query_only = ON")
        return db


def connect_for_reading(path: Path) -> Connection:
    """Open a database read-only.

    Raises:
        UnusableDatabase: If the file is not a database, or belongs to another program or to a
            newer tagsync.
        StoreError: If it cannot be read.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        # Reading a WAL needs a file of shared memory beside the database. Without permission to
        # create one, a database can still be read while no process has it open.
        alone = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
        mode = "mode=ro&immutable=1" if alone else "mode=ro"
        db = _open(f"{path.absolute().as_uri()}?{mode}", uri=True)
        with _close_on_failure(db):
            migrations.check(db, str(path))
        return db


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a database for queries that all see it as it is now; create no file.

    If another process has the database open, it is read through that process's WAL. If no process
    has it open, it is opened as immutable, and an error is raised if the file changes meanwhile.

    Raises:
        UnusableDatabase: If the file is not a database, or belongs to another program or to a
            newer tagsync.
        StoreError: If it cannot be read, or changed meanwhile.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        alone = not any(_has_content(Path(f"{path}{ending}")) for ending in ("-wal", "-journal"))
        if not alone and not Path(f"{path}-shm").exists() and not os.access(path.parent, os.W_OK):
            raise UnusableDatabase(
                f"{path} has unfinished files of a process that was killed, or of a copy: run"
                " tagsync status once as a user who can write its folder, then try again"
            )
        before = _fingerprint(path)
        try:
            mode = "mode=ro&immutable=1" if alone else "mode=ro"
            with closing(_open(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
                migrations.check(db, str(path))
                db.execute("BEGIN")
                yield db
        finally:
            # Results and errors are meaningless if the file changed while it was read.
            if alone and _fingerprint(path) != before:
                raise StoreError(f"{path} was written to while it was read: try again")


def empty_database() -> Connection:
    """Open a new database in memory."""
    db = _open(":memory:", uri=False)
    migrations.migrate(db, "memory")
    return db


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise UnusableDatabase(
            f"{path} cannot be read by this user: check its owner and permissions"
        )


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


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
    """Switch a database to WAL, outside a transaction.

    If another process does the same, SQLite reports "busy" at once instead of waiting, so retry.
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
