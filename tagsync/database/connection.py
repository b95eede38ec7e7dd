"""Connections to the database's file, and in plain words what SQLite says of it."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tagsync.database import schema
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError, UnusableDatabase

BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process's transaction."""

WAL_SIZE: Final = 64 * 2**20
"""Bytes beyond which a writer copies the WAL into the file, and to which it is cut then."""


class Connection(sqlite3.Connection):
    """SQLite's own connection, which also gives rows by the names of their columns.

    Where an interrupt left a transaction open, it may be undone after the connection was closed.
    """

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """The rows of an answer, as they are read."""
        cursor = self.execute(sql, parameters)
        columns = [column for column, *_ in cursor.description]
        return (dict(zip(columns, row, strict=True)) for row in cursor)

    def rollback(self) -> None:
        """Undoes the transaction; closing the connection has undone it already."""
        with suppress(sqlite3.ProgrammingError):
            super().rollback()


def connect(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    """Opens a database for writing, creating and migrating it as needed.

    Args:
        path: the file.
        busy_timeout: seconds to wait for another process's transaction.

    Raises:
        UnusableDatabase: the file is no database, another program's, or a newer tagsync's.
        StoreError: it cannot be read or written.
    """
    with translate_sqlite_errors(path):
        db = _open(str(path), uri=False, busy_timeout=busy_timeout)
        with _closing_on_failure(db):
            schema.migrate(db, str(path))
            _use_wal(db, busy_timeout)
            db.execute("PRAGMA synchronous = NORMAL")
            # What undoes a failed statement is kept in memory, and 16 MB of pages instead of 2: a
            # first import takes 7 % less time.
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute("PRAGMA cache_size = -16000")
            # Digests come in no order, so each poll touches their index all over, and each copying
            # of the WAL writes those pages anew: a first import of 100,000 tags takes 5 % less time
            # than with 16 MiB. A thread that copies would save 15 % more, but before SQLite 3.51.3
            # a commit may be lost where two connections copy at once (https://sqlite.org/wal.html,
            # "The WAL-Reset Bug").
            db.execute(f"PRAGMA journal_size_limit = {WAL_SIZE}")
            (page_size,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA wal_autocheckpoint = {WAL_SIZE // page_size}")
        return db


def connect_beside(path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Connection:
    """Opens a database that `connect` has opened once more, for questions alone.

    It is not opened as read-only, because whichever connection is closed last removes the WAL.

    Args:
        path: the file.
        busy_timeout: see `connect`.

    Raises:
        StoreError: it cannot be read.
    """
    with translate_sqlite_errors(path):
        db = _open(str(path), uri=False, busy_timeout=busy_timeout)
        with _closing_on_failure(db):
            db.execute("PRAGMA query_only = ON")
        return db


def connect_for_reading(path: Path) -> Connection:
    """Opens a database so that nothing can be written to it.

    Raises:
        UnusableDatabase: the file is no database, another program's, or a newer tagsync's.
        StoreError: it cannot be read.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        # WAL is read through an index in shared memory, a file beside the database. Who may not
        # make one can still read a database that nobody has open, for then there is no WAL.
        alone = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
        mode = "mode=ro&immutable=1" if alone else "mode=ro"
        db = _open(f"{path.absolute().as_uri()}?{mode}", uri=True)
        with _closing_on_failure(db):
            schema.check(db, str(path))
        return db


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Opens a database for questions, all of which see it as it is at this moment.

    No file is created. Beside somebody who has the database open it is read through their WAL.
    With nobody there it is read as a file that does not change, and if it did, that is said.

    Raises:
        UnusableDatabase: the file is no database, another program's, or a newer tagsync's.
        StoreError: it cannot be read, or changed meanwhile.
    """
    with translate_sqlite_errors(path):
        _check_readable(path)
        alone = not any(_has_content(Path(f"{path}{ending}")) for ending in ("-wal", "-journal"))
        if not alone and not Path(f"{path}-shm").exists() and not os.access(path.parent, os.W_OK):
            raise UnusableDatabase(
                f"{path} was left with unfinished files by a process that was killed or copied: let"
                " a user who may write its folder run tagsync status, and ask again"
            )
        before = _fingerprint(path)
        try:
            mode = "mode=ro&immutable=1" if alone else "mode=ro"
            with closing(_open(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
                schema.check(db, str(path))
                db.execute("BEGIN")
                yield db
        finally:
            # Whatever was read or went wrong means nothing if the file changed under it.
            if alone and _fingerprint(path) != before:
                raise StoreError(f"{path} was written to while it was read: ask again")


def empty_database() -> Connection:
    """A database in memory, as a new file would be."""
    db = _open(":memory:", uri=False)
    schema.migrate(db, "memory")
    return db


def _check_readable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise UnusableDatabase(
            f"{path} may not be read by this user: check its owner and permissions"
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
    """Sets the journal's mode, outside a transaction, for a file that is known to be ours.

    Where another process does the same SQLite says "busy" at once instead of waiting, so we wait.
    """
    if db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    import stamina  # noqa: PLC0415  30 ms, for which only a new database has a use

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
def _closing_on_failure(db: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise
