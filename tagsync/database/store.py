"""The database, whose only writer this is, for the threads of a process.

They share two connections and take each in turn: one reads, the other writes in short transactions.
Other processes wait for these at most `tagsync.database.BUSY_TIMEOUT` seconds, as a store does for
theirs.
"""

from collections.abc import Collection, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final, Self

import msgspec

from tagsync.database.connection import (
    BUSY_TIMEOUT,
    Connection,
    connect,
    connect_beside,
    connect_for_reading,
    empty_database,
)
from tagsync.database.outcomes import Known
from tagsync.database.recorder import Head, Ledger, View, head_of, moment_of
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.models import GONE, Repository

_encode = msgspec.json.Encoder().encode


class _Shared:
    """A connection that threads take in turn.

    An interrupt in the main thread may come between the lock and whoever gives it back. The thread
    has it then, and has to be able to take it once more to close the connection.
    """

    def __init__(self, db: Connection, path: Path) -> None:
        self._db: Final = db
        self._path: Final = path
        self._lock: Final = RLock()

    def close(self) -> None:
        """Waits for the transaction in hand, then closes the connection for good."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self, begin: str) -> Iterator[Connection]:
        """All that is done in it, or nothing.

        Raises:
            StoreError: something in it failed.
        """
        with self._lock, translate_sqlite_errors(self._path):
            try:
                # An interrupt may come when it has just begun.
                self._db.execute(begin)
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    @contextmanager
    def asked(self) -> Iterator[Connection]:
        """For one question, which needs no transaction."""
        with self._lock, translate_sqlite_errors(self._path):
            yield self._db


class Store:
    """The database, open for writing."""

    def __init__(self, reader: _Shared, writer: _Shared) -> None:
        """Takes over the connections; use `open`."""
        self._reader = reader
        self._writer = writer

    @classmethod
    def open(cls, path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Self:
        """Opens the database, creating and migrating it as needed.

        Args:
            path: the file.
            busy_timeout: seconds to wait for another process's transaction.

        Raises:
            UnusableDatabase: the file is no database, another program's, or a newer tagsync's.
            StoreError: it cannot be read or written.
        """
        writer = _Shared(connect(path, busy_timeout), path)
        try:
            return cls(_Shared(connect_beside(path, busy_timeout), path), writer)
        except BaseException:
            writer.close()
            raise

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Opens the database so that nothing can be written; where there is none yet, an empty one.

        Raises:
            UnusableDatabase, StoreError: as `open`.
        """
        there = path.exists() and path.stat().st_size
        shared = _Shared(connect_for_reading(path) if there else empty_database(), path)
        return cls(shared, shared)

    def close(self) -> None:
        """Waits for the transactions in hand, then closes the database for good."""
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def repositories(self) -> list[Repository]:
        """Every repository that was ever polled, but those whose registry says they are gone."""
        with self._reader.asked() as db:
            rows = db.execute(
                "SELECT registry, name FROM repositories AS r WHERE instr(coalesce((SELECT detail"
                " FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1), ''), ?)"
                " <> 1",
                (GONE,),
            ).fetchall()
        return [Repository(*row) for row in rows]

    def freshness(self) -> dict[Repository, tuple[str | None, int]]:
        """The same repositories, each with when it was last listed in full and its tags then."""
        with self._reader.asked() as db:
            rows = db.execute(
                "SELECT registry, name, last_complete_at,"
                " (SELECT count(*) FROM tags WHERE repository_id = r.id)"
                " FROM repositories AS r"
            ).fetchall()
            known = {Repository(*row[:2]): (moment_of(row[2]), int(row[3])) for row in rows}
        # Another process may have recorded a further one meanwhile.
        return {r: known[r] for r in self.repositories() if r in known}

    def head(self) -> Head:
        """The newest change of all repositories."""
        with self._reader.asked() as db:
            return head_of(db)

    def known(self, repository: Repository) -> Known:
        """What is recorded of a repository as a whole."""
        with self._reader.asked() as db:
            return View(db, repository).known

    def with_manifest(self, digests: Collection[str]) -> Set[str]:
        """Those of the digests whose manifest is recorded."""
        with self._reader.asked() as db:
            rows = db.execute(
                "SELECT digest FROM images WHERE manifest IS NOT NULL"
                " AND digest IN (SELECT value FROM json_each(?))",
                (_encode(list(digests)).decode(),),
            ).fetchall()
        return {digest for (digest,) in rows}

    @contextmanager
    def reading(self, repository: Repository) -> Iterator[View]:
        """One consistent view of a repository's records."""
        with self._reader.transaction("BEGIN") as db:
            yield View(db, repository)

    @contextmanager
    def recording(self) -> Iterator[Ledger]:
        """One write transaction: all of it is kept, or none.

        Raises:
            StoreError: it could not be begun or committed; nothing of it was kept.
        """
        with self._writer.transaction("BEGIN IMMEDIATE") as db:
            yield Ledger(db)

    def acknowledge(self, repositories: Collection[Repository], through: int) -> None:
        """Notes that log lines were written; see `Ledger.acknowledge`."""
        with self.recording() as ledger:
            ledger.acknowledge(repositories, through)
