"""Group commit: writes that wait at the same time share one transaction.

Each write runs in its own savepoint. If a write fails, only that write is undone, and each caller
gets the result or the error of its own write. The writes need no thread of their own: the first
waiting thread that gets the lock runs all writes in the queue. The other threads then find their
writes finished.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import RLock
from typing import Any, Final, TypeVar, cast

from tagsync.database.connection import Connection
from tagsync.database.file_identity import FileIdentity
from tagsync.database.hash_chain import read_heads
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError

ResultT = TypeVar("ResultT")


class _Write:
    """One write in the queue. It is finished when it is committed or has an error."""

    def __init__(self, function: Callable[[Connection], Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False

    def run(self, db: Connection, path: Path) -> None:
        """Run the write in a savepoint. If it fails, undo it and keep its error.

        Raises:
            StoreError: If SQLite has rolled back the whole transaction, as it does on a full disk.
        """
        try:
            with translate_sqlite_errors(path):
                db.execute("SAVEPOINT write")
                self.result = self.function(db)
                db.execute("RELEASE write")
        except Exception as error:
            if not db.in_transaction:
                raise
            db.execute("ROLLBACK TO write")
            db.execute("RELEASE write")
            self.error = error


class GroupCommit:
    """Runs writes from many threads on one connection, several in each transaction."""

    def __init__(
        self,
        db: Connection,
        path: Path,
        writer_lock: AbstractContextManager[object],
        identity: FileIdentity | None = None,
    ) -> None:
        """Use an open connection.

        Args:
            db: Open for writing.
            path: The file, for messages.
            writer_lock: Held during each transaction and while the connection is closed.
            identity: Checked in each transaction. None for a database that is not a file.
        """
        self._db: Final = db
        self._path: Final = path
        self._writer_lock: Final = writer_lock
        self._identity: Final = identity
        self._queue: Final[deque[_Write]] = deque()
        # Re-entrant: if KeyboardInterrupt is raised between acquire and release, the same thread
        # still has to be able to close the connection.
        self._lock: Final = RLock()

    def run(self, function: Callable[[Connection], ResultT]) -> ResultT:
        """Run a write, wait for its commit, and return its result.

        An exception that the function raises is passed on to the caller.

        Raises:
            StoreError: If SQLite could not run or commit the write. No part of it is stored then.
        """
        write = _Write(function)
        self._queue.append(write)
        with self._lock:
            if not write.finished:
                self._run_queue()
        if write.error is not None:
            raise write.error
        return cast("ResultT", write.result)

    def close(self) -> None:
        """Wait for the running transaction, then close the connection."""
        with self._lock:
            # The connection that is closed last checkpoints the WAL. Without the lock it is closed
            # all the same.
            with suppress(StoreError):
                self._check_files()
                with self._writer_lock:
                    self._db.close()
            self._db.close()

    def _run_queue(self) -> None:
        """Run all writes in the queue in one transaction."""
        batch: list[_Write] = []
        try:
            self._check_files()
            with self._writer_lock, translate_sqlite_errors(self._path):
                # Within `try`, because an interrupt may come right after the transaction began.
                self._db.execute("BEGIN IMMEDIATE")
                batch = self._take_all()
                if self._identity is not None:
                    self._identity.check(self._db)
                for write in batch:
                    write.run(self._db, self._path)
                self._commit()
        except BaseException as error:
            self._db.rollback()
            # More writes may be in the queue by now. They fail, too: after a timeout each of them
            # would wait for the same lock again.
            batch += self._take_all()
            for write in batch:
                write.error = error
            if not isinstance(error, StoreError):
                raise
        finally:
            for write in batch:
                write.finished = True

    def _check_files(self) -> None:
        # Before the lock, which would create its file beside a database that is gone.
        if self._identity is not None:
            self._identity.check_files()

    def _commit(self) -> None:
        if self._identity is None:
            self._db.execute("COMMIT")
            return
        heads = read_heads(self._db)
        self._db.execute("COMMIT")
        self._identity.committed(heads)

    def _take_all(self) -> list[_Write]:
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._queue.popleft())
        return taken
