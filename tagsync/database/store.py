"""Thread-safe access to the database: one connection to read and one to write.

Threads take turns on the read connection; their writes share transactions (see
`tagsync.database.group_commit`). Each process waits at most
`tagsync.database.connection.BUSY_TIMEOUT` seconds for another one's transaction.
"""

import json
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Lock, RLock
from typing import Final, Self, TypeVar

from tagsync.database import recorder
from tagsync.database.connection import (
    BUSY_TIMEOUT,
    Connection,
    connect,
    connect_beside,
    connect_for_reading,
    empty_database,
)
from tagsync.database.file_identity import FileIdentity
from tagsync.database.group_commit import GroupCommit
from tagsync.database.hash_chain import Head, read_head
from tagsync.database.outcomes import Outcome, PendingLog
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.database.state import (
    HeldRun,
    RepositoryState,
    check_timestamp,
    decoding,
    read_held_run,
    read_state,
    read_tags,
)
from tagsync.models import Repository, Tag

ResultT = TypeVar("ResultT")

_NOT_GONE: Final = """
    NOT EXISTS (
        SELECT 1 FROM observations WHERE outcome = 'ok' AND reasons = 'gone' AND id = (
            SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1
        )
    )
"""
"""SQL condition: the registry did not say that the repository does not exist any more."""

_REPOSITORIES: Final = f"SELECT registry, name FROM repositories AS r WHERE {_NOT_GONE}"  # noqa: S608  a constant
_FRESHNESS: Final = f"""
    SELECT registry, name, last_complete_at,
           (SELECT count(*) FROM tags WHERE repository_id = r.id)
    FROM repositories AS r WHERE {_NOT_GONE}
"""  # noqa: S608  a constant


class Store:
    """The database, open for writing."""

    def __init__(
        self,
        reader: Connection,
        writer: Connection,
        path: Path,
        identity: FileIdentity | None = None,
    ) -> None:
        """Take over two connections; use `open`."""
        self._reader: Final = reader
        self._path: Final = path
        # Re-entrant: KeyboardInterrupt may hit between acquire and release, and close() still has
        # to work in the same thread.
        self._reading: Final = RLock()
        self._identity: Final = identity
        # Closing deletes the WAL, which is no reason for an alarm.
        self._checking: Final = Lock()
        self._closing = False
        self._group_commit: Final = GroupCommit(writer, path, identity)

    @classmethod
    def open(cls, path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Self:
        """Open the database; create and migrate it as needed.

        Args:
            path: The file.
            busy_timeout: Seconds to wait for another process's transaction.

        Raises:
            UnusableDatabase: If the file is not a database, or belongs to another program or to a
                newer tagsync.
            StoreError: If it cannot be read or written.
        """
        with ExitStack() as stack:
            writer = stack.enter_context(closing(connect(path, busy_timeout)))
            reader = stack.enter_context(closing(connect_beside(path, busy_timeout)))
            with translate_sqlite_errors(path):
                identity = FileIdentity(writer, path)
            stack.pop_all()
        return cls(reader, writer, path, identity)

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open the database read-only, or an empty one in memory if the file is missing.

        Raises:
            UnusableDatabase: As `open`.
            StoreError: As `open`.
        """
        exists = path.exists() and path.stat().st_size
        connection = connect_for_reading(path) if exists else empty_database()
        return cls(connection, connection, path)

    def close(self) -> None:
        """Wait for the running transactions, then close the database for good."""
        with self._checking:
            self._closing = True
        with self._reading:
            self._reader.close()
        self._group_commit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_files(self) -> None:
        """Check that the database is still the file that was opened.

        Raises:
            ReplacedDatabase: If it was deleted or replaced, or a write has found that another state
                of the database was restored into the file.
            StoreError: If the file system gives an error.
        """
        with self._checking:
            if self._identity is not None and not self._closing:
                self._identity.check_files()

    def repositories(self) -> list[Repository]:
        """Return every repository that was polled, except those that no longer exist."""
        with self._read() as db:
            return [Repository(*row) for row in db.execute(_REPOSITORIES).fetchall()]

    def freshness(self) -> dict[Repository, tuple[str | None, int]]:
        """Return the same repositories: when each was last listed in full, and its tags then."""
        with self._read() as db:
            rows = db.execute(_FRESHNESS).fetchall()
            with decoding("repositories"):
                return {Repository(*row[:2]): (check_timestamp(row[2]), row[3]) for row in rows}

    def head(self) -> Head:
        """Return the newest change of all repositories."""
        with self._read() as db:
            return read_head(db)

    def state(self, repository: Repository) -> RepositoryState:
        """Return what is recorded of a repository as a whole."""
        with self._read() as db:
            return read_state(db, repository)

    def tags(self, repository: Repository) -> dict[str, Tag]:
        """Return the stored tags of a repository, by name."""
        with self._read() as db:
            return read_tags(db, repository)

    def held_run(self, repository: Repository) -> HeldRun:
        """Return how many of the newest listings were held for the same deletions."""
        with self._read() as db:
            return read_held_run(db, repository)

    def with_manifest(self, digests: Collection[str]) -> Set[str]:
        """Return those of the digests whose manifest is recorded."""
        with self._read() as db:
            rows = db.execute(
                "SELECT digest FROM images WHERE manifest IS NOT NULL"
                " AND digest IN (SELECT value FROM json_each(?))",
                (json.dumps(list(digests)),),
            ).fetchall()
        return {digest for (digest,) in rows}

    def record(
        self, repository: Repository, outcome: Outcome, seen: RepositoryState, interval: timedelta
    ) -> PendingLog | None:
        """Record the outcome of one poll; see `tagsync.database.recorder.record`.

        Raises:
            ReplacedDatabase: If the database is not any more the file that was opened.
            StoreError: If it could not be recorded; nothing of it was.
        """
        return self._write(
            lambda db: recorder.record(db, repository, outcome, seen=seen, interval=interval)
        )

    def would_drop(self, repository: Repository, outcome: Outcome, seen: RepositoryState) -> bool:
        """Return whether `record` would drop the outcome, as a dry run reports it."""
        return recorder.is_overtaken(outcome, self.state(repository), seen)

    def acknowledge(self, repository: Repository, through: int) -> None:
        """Note that log lines were written; see `tagsync.database.recorder.acknowledge`.

        Raises:
            StoreError: If it could not be noted.
        """
        self._write(lambda db: recorder.acknowledge(db, repository, through))

    def _write(self, function: Callable[[Connection], ResultT]) -> ResultT:
        return self._group_commit.run(function)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._reading, translate_sqlite_errors(self._path):
            yield self._reader
