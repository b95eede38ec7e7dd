"""Thread-safe access to the database: one connection to read and one to write.

Threads use the read connection one after the other; their writes share transactions (see
`tagsync.database.group_commit`). A process waits at most
`tagsync.database.connection.BUSY_TIMEOUT` seconds for another process's transaction.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock, RLock
from typing import Final, Self, TypeVar

from tagsync.database import acceptances, observations, recorder, stale_events
from tagsync.database.acceptances import Acceptance
from tagsync.database.connection import (
    BUSY_TIMEOUT,
    Connection,
    connect,
    connect_beside,
    connect_for_reading,
    empty_database,
)
from tagsync.database.decoding import check_timestamp
from tagsync.database.durability import flush_to_disk
from tagsync.database.file_identity import FileIdentity
from tagsync.database.group_commit import GroupCommit
from tagsync.database.hash_chain import Heads, read_heads
from tagsync.database.outbox import Outbox
from tagsync.database.outcomes import Damaged, Outcome, PendingLog
from tagsync.database.past import Past, read_flips, read_newest_flip, read_runs
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.database.state import (
    Freshness,
    RepositoryState,
    read_left_at,
    read_state,
    read_tags,
)
from tagsync.database.usage import DiskUsage, count_pending_lines, measure_disk
from tagsync.database.verifications import (
    Verification,
    insert_verification,
    read_last_verification,
)
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import DamagedRecord, StoreError
from tagsync.models import Change, Repository, Tag, Watch

ResultT = TypeVar("ResultT")

_ENDED_TOGETHER: Final = 500
"""How many observations one transaction ends. It takes a few milliseconds."""

_NOT_GONE: Final = """
    NOT EXISTS (
        SELECT 1 FROM observations WHERE outcome = 'ok' AND reasons = 'gone' AND id = (
            SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1
        )
    )
"""
"""SQL condition that excludes a repository if its newest observation says that it is gone."""

_IS_NAMED: Final = "typeof(registry) = 'text' AND typeof(name) = 'text'"
"""SQL condition that excludes a row whose name is damaged, because no repository can be polled."""

_REPOSITORIES: Final = f"""
    SELECT registry, name FROM repositories AS r WHERE {_IS_NAMED} AND {_NOT_GONE}
"""  # noqa: S608  constants
_FRESHNESS: Final = f"""
    SELECT registry, name, last_complete_at,
           (SELECT count(*) FROM tags WHERE repository_id = r.id),
           coalesce((SELECT instr(reasons, 'alternating') FROM observations
                     WHERE repository_id = r.id AND outcome <> 'failed'
                     ORDER BY id DESC LIMIT 1), 0)
    FROM repositories AS r WHERE {_IS_NAMED} AND {_NOT_GONE}
"""  # noqa: S608  constants


class Store:
    """The database, open for writing."""

    def __init__(
        self,
        reader: Connection,
        writer: Connection,
        path: Path,
        writer_lock: AbstractContextManager[object],
        identity: FileIdentity | None = None,
    ) -> None:
        """Use two open connections. Other modules call `open` or `open_for_reading`."""
        self._reader: Final = reader
        self._path: Final = path
        # Re-entrant: if KeyboardInterrupt is raised between acquire and release, close() still has
        # to work in the same thread.
        self._reading: Final = RLock()
        self._identity: Final = identity
        # Closing deletes the WAL, and no check may report this as a replacement.
        self._checking: Final = Lock()
        self._closing = False
        self._group_commit: Final = GroupCommit(writer, path, writer_lock, identity)

    @classmethod
    def open(cls, path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Self:
        """Open the database; create and migrate it as needed.

        Args:
            path: The file.
            busy_timeout: Seconds to wait for another process's transaction.

        Raises:
            UnusableDatabase: If the file is not a database, or belongs to another program or to a
                newer tagsync, or if this SQLite lacks FTS5.
            StoreError: If the file cannot be read or written.
        """
        lock = WriterLock(path, busy_timeout)
        # Without the lock, a restore could replace the file between its opening and its identity.
        with lock, ExitStack() as stack:
            writer = stack.enter_context(closing(connect(path, busy_timeout)))
            reader = stack.enter_context(closing(connect_beside(path, busy_timeout)))
            with translate_sqlite_errors(path):
                identity = FileIdentity(writer, path)
            stack.pop_all()
        return cls(reader, writer, path, lock, identity)

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open the database read-only, or an empty one in memory if the file is missing.

        Raises:
            UnusableDatabase: If the file is not a database, or belongs to another program or to a
                newer tagsync.
            StoreError: If the file cannot be read.
        """
        exists = path.exists() and path.stat().st_size
        connection = connect_for_reading(path) if exists else empty_database()
        return cls(connection, connection, path, nullcontext())

    def close(self) -> None:
        """Wait for the running transactions, then close the database."""
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
        """Return every repository that was polled and still exists, as far as is known."""
        with self._read() as db:
            return [Repository(*row) for row in db.execute(_REPOSITORIES).fetchall()]

    def freshness(self) -> dict[Repository, Freshness]:
        """Return how fresh the record of each repository of `repositories` is.

        A repository with a damaged row counts as never listed. Its next poll reports the damage.
        """
        with self._read() as db:
            rows = db.execute(_FRESHNESS).fetchall()
        return {Repository(*row[:2]): _freshness(*row[2:]) for row in rows}

    def heads(self) -> Heads:
        """Return the heads of both hash chains, of all repositories."""
        with self._read() as db:
            return read_heads(db)

    def durable_heads(self) -> Heads:
        """Return the heads of both hash chains once they are safe from a power cut.

        A head that is logged is a promise: `tagsync verify --head` must find it ever after.

        Raises:
            StoreError: If the database cannot be read, or the disk reports an error.
        """
        heads = self.heads()
        flush_to_disk(self._path)
        return heads

    def disk_usage(self) -> DiskUsage:
        """Return the sizes of the database's files and of their file system.

        Raises:
            StoreError: If the file system gives an error.
        """
        try:
            return measure_disk(self._path)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error

    def pending_log_lines(self) -> int:
        """Return how many changes have pending log lines; see `count_pending_lines`.

        Raises:
            StoreError: If the database cannot be read.
        """
        with self._read() as db:
            return count_pending_lines(db)

    def state(self, repository: Repository) -> RepositoryState:
        """Return the recorded state of a repository, without its tags."""
        with self._read() as db:
            return read_state(db, repository)

    def tags(self, repository: Repository) -> dict[str, Tag]:
        """Return the stored tags of a repository, by name."""
        with self._read() as db:
            return read_tags(db, repository)

    def left_at(self, repository: Repository, tag: str, digest: str) -> str | None:
        """Return when a tag was observed to have left a digest; see `state.read_left_at`."""
        with self._read() as db:
            return read_left_at(db, repository, tag, digest)

    def past(self, repository: Repository, flips: Sequence[Change], since: str, runs: int) -> Past:
        """Return the recorded past of a repository, as far as a decision needs it.

        Args:
            repository: The repository.
            flips: The changes of the listing that add, delete or move a tag.
            since: Older flips are not read.
            runs: Maximum number of runs to read; see `tagsync.database.past.read_runs`.
        """
        with self._read() as db:
            return Past(
                read_runs(db, repository, runs) if runs else (),
                read_flips(db, repository, flips, since) if flips else (),
                read_newest_flip(db, repository, since) if runs else None,
            )

    def with_manifest(self, digests: Collection[str]) -> Set[str]:
        """Return the given digests whose verified manifest is recorded."""
        with self._read() as db:
            rows = db.execute(
                "SELECT digest FROM images WHERE verified = 1"
                " AND digest IN (SELECT value FROM json_each(?))",
                (json.dumps(list(digests)),),
            ).fetchall()
        return {digest for (digest,) in rows}

    def record(
        self,
        repository: Repository,
        outcome: Outcome,
        seen: RepositoryState,
        interval: timedelta,
        immutable: Sequence[str] = (),
    ) -> PendingLog | None:
        """Record the outcome of one poll; see `tagsync.database.recorder.record`.

        Raises:
            ReplacedDatabase: If the database is no longer the file that was opened.
            StoreError: If the outcome could not be recorded. No part of it is stored then.
        """
        return self._write(
            lambda db: recorder.record(
                db, repository, outcome, seen=seen, interval=interval, immutable=immutable
            )
        )

    def record_damage(self, repository: Repository, damage: Damaged, interval: timedelta) -> None:
        """Record a failure; see `tagsync.database.recorder.record_damage`.

        Raises:
            StoreError: If the failure could not be recorded.
        """
        self._write(lambda db: recorder.record_damage(db, repository, damage, interval))

    def report_stale(self, watches: Mapping[Repository, Watch], now: datetime) -> None:
        """Write an event for each repository that has become stale.

        See `tagsync.database.stale_events.report_stale`. If no event is due, nothing is written.

        Args:
            watches: Repositories that may be stale, each with its watch.
            now: The current time.

        Raises:
            ReplacedDatabase: If the database is no longer the file that was opened.
            StoreError: If the database could not be read or written.
        """
        if not watches:
            return
        with self._read() as db:
            is_due = stale_events.has_unreported(db, watches, now)
        if is_due:
            self._write(lambda db: stale_events.report_stale(db, watches, now))

    def end_past_observations(self, today: str, go_on: Callable[[], bool] = lambda: True) -> None:
        """End all observations whose UTC day is over, in several short transactions.

        Args:
            today: The current UTC day, as ``YYYY-MM-DD``.
            go_on: Called before each transaction. If it returns False, the rest stays for later.

        Raises:
            StoreError: If the database could not be read or written.
        """
        while go_on() and self._has_past_observations(today):
            self._write(lambda db: observations.end_past(db, today, _ENDED_TOGETHER))

    def _has_past_observations(self, today: str) -> bool:
        with self._read() as db:
            return observations.has_past(db, today)

    def first_listing_at(self) -> str | None:
        """Return the end of the first complete listing, or None before it.

        Raises:
            DamagedRecord: If it is not a time that tagsync wrote.
        """
        with self._read() as db:
            (first,) = db.execute("SELECT min(first_observed_at) FROM repositories").fetchone()
            return check_timestamp(first, "the first listing")

    def last_verification(self) -> Verification | None:
        """Return the last verification; see `tagsync.database.verifications`.

        Raises:
            DamagedRecord: If its row is not what tagsync wrote.
        """
        with self._read() as db:
            return read_last_verification(db)

    def record_verification(self, verification: Verification) -> None:
        """Record the result of a verification.

        Raises:
            ReplacedDatabase: If the database is no longer the file that was opened.
            StoreError: If the result could not be recorded.
        """
        self._write(lambda db: insert_verification(db, verification))

    def accept(self, changes: Sequence[int], acceptance: Acceptance) -> None:
        """Record that a person accepted changes of immutable tags: all of them, or none.

        Raises:
            RefusedAcceptance: If one of the changes cannot be accepted.
            ReplacedDatabase: If the database is no longer the file that was opened.
            StoreError: If the acceptances could not be recorded.
        """
        self._write(lambda db: acceptances.accept(db, changes, acceptance))

    def open_immutable_changes(self) -> int:
        """Return how many changes of immutable tags were not accepted.

        Raises:
            StoreError: If the database cannot be read.
        """
        with self._read() as db:
            return acceptances.count_open(db)

    @property
    def outbox(self) -> Outbox:
        """The events and the destinations of the notifications."""
        return Outbox(self._read, self._write, partial(flush_to_disk, self._path))

    def would_drop(self, repository: Repository, outcome: Outcome, seen: RepositoryState) -> bool:
        """Return whether `record` would drop the outcome, for a dry run."""
        return recorder.is_overtaken(outcome, self.state(repository), seen)

    def acknowledge(self, repository: Repository, through: int) -> None:
        """Record that log lines were written; see `tagsync.database.recorder.acknowledge`.

        Raises:
            StoreError: If the acknowledgement could not be recorded. The lines stay pending then.
        """
        self._write(lambda db: recorder.acknowledge(db, repository, through))

    def _write(self, function: Callable[[Connection], ResultT]) -> ResultT:
        return self._group_commit.run(function)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._reading, translate_sqlite_errors(self._path):
            yield self._reader


def _freshness(last_complete_at: object, tags: int, alternating: int) -> Freshness:
    try:
        last = check_timestamp(last_complete_at, "a repository")
    except DamagedRecord:
        return Freshness()
    return Freshness(last, tags, bool(alternating))
