"""Group commit: writers that wait at the same time share one transaction.

Each write has a savepoint of its own, so that one that fails takes no other with it, and each
writer gets its own result or error. It needs no thread of its own: the waiting thread that gets the
lock first runs everything in the queue, and the others find their writes done.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any, Final, TypeVar, cast

from tagsync.database.connection import Connection
from tagsync.database.file_identity import FileIdentity
from tagsync.database.hash_chain import read_head
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError

ResultT = TypeVar("ResultT")


class _Write:
    """One write in the queue. It is finished once it has a result or an error."""

    def __init__(self, function: Callable[[Connection], Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False

    def run(self, db: Connection, path: Path) -> None:
        """Run in a savepoint; an error undoes this write only.

        Raises:
            StoreError: If SQLite has undone the whole transaction, as it does on a full disk.
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
    """Runs writes on one connection, many to a transaction."""

    def __init__(self, db: Connection, path: Path, identity: FileIdentity | None = None) -> None:
        """Take over a connection for writing.

        Args:
            db: The connection.
            path: The file.
            identity: Checked in each transaction. None for a database that is not a file.
        """
        self._db: Final = db
        self._path: Final = path
        self._identity: Final = identity
        self._queue: Final[deque[_Write]] = deque()
        # Re-entrant: KeyboardInterrupt may hit between acquire and release, and then the same
        # thread still has to be able to close the connection.
        self._lock: Final = RLock()

    def run(self, function: Callable[[Connection], ResultT]) -> ResultT:
        """Run a write and return its result once it is committed.

        Raises:
            StoreError: If SQLite could not run or commit it; nothing of it was recorded.
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
        """Wait for the running transaction, then close the connection for good."""
        with self._lock:
            self._db.close()

    def _run_queue(self) -> None:
        """Run everything that waits, in one transaction."""
        batch: list[_Write] = []
        try:
            with translate_sqlite_errors(self._path):
                # An interrupt may come when the transaction has just begun.
                self._db.execute("BEGIN IMMEDIATE")
                batch = self._take_all()
                if self._identity is not None:
                    self._identity.check(self._db)
                for write in batch:
                    write.run(self._db, self._path)
                self._commit()
        except BaseException as error:
            self._db.rollback()
            # Writes that came while this one waited for another process would wait as long again.
            batch += self._take_all()
            for write in batch:
                write.error = error
            if not isinstance(error, StoreError):
                raise
        finally:
            for write in batch:
                write.finished = True

    def _commit(self) -> None:
        if self._identity is None:
            self._db.execute("COMMIT")
            return
        head = read_head(self._db)
        self._db.execute("COMMIT")
        self._identity.committed(head)

    def _take_all(self) -> list[_Write]:
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._queue.popleft())
        return taken
