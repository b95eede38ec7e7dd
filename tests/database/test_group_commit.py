"""Group commit: many writers share one transaction, each with its own result."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import pytest

from tagsync.database.connection import Connection
from tagsync.database.group_commit import GroupCommit
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import DatabaseLocked, StoreError
from tests.support.calls import raised_by

Write = Callable[[Connection], object]


class CountingConnection(Connection):
    """A connection that counts its transactions."""

    begun = 0

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        self.begun += sql.startswith("BEGIN")
        return cursor


class InterruptedConnection(Connection):
    """A connection on which Ctrl-C comes just after a transaction has begun."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        if sql.startswith("BEGIN"):
            raise KeyboardInterrupt
        return cursor


class AnnouncingQueue(deque[Any]):
    """A queue that announces each write that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.added = Semaphore(0)

    def append(self, item: Any) -> None:
        super().append(item)
        self.added.release()


@pytest.fixture
def db(database: Path) -> Iterator[CountingConnection]:
    with closing(
        sqlite3.connect(
            database,
            isolation_level=None,
            check_same_thread=False,
            factory=CountingConnection,
            timeout=0,
        )
    ) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kept (name TEXT UNIQUE)")
        yield connection


@pytest.fixture
def group_commit(db: CountingConnection, database: Path) -> GroupCommit:
    return GroupCommit(db, database, WriterLock(database, 0))


def insert(name: str) -> Write:
    def write(db: Connection) -> str:
        db.execute("INSERT INTO kept VALUES (?)", (name,))
        return name

    return write


def kept(db: Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM kept ORDER BY name")]


def run_together(group_commit: GroupCommit, *writes: Write) -> list[Future[object]]:
    """Let writes wait behind one that is running; return their futures."""
    queue = AnnouncingQueue()
    group_commit._queue = queue  # type: ignore[misc]  # noqa: SLF001  tells when a write waits
    running, go_on = Event(), Event()

    def first(_: Connection) -> None:
        running.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(len(writes) + 1) as pool:
        pool.submit(group_commit.run, first)
        assert running.wait(10)
        futures: list[Future[object]] = [pool.submit(group_commit.run, each) for each in writes]
        for _ in range(len(writes) + 1):
            assert queue.added.acquire(timeout=10)
        go_on.set()
    return futures


def test_single_write_is_committed(group_commit: GroupCommit, database: Path) -> None:
    """A write returns its result once it is committed."""
    assert group_commit.run(insert("a")) == "a"
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT name FROM kept").fetchall() == [("a",)]


def test_waiting_writes_share_a_transaction(
    group_commit: GroupCommit, db: CountingConnection
) -> None:
    """Writes that wait at the same time share a transaction, and each has its result."""
    names = [f"n{number}" for number in range(8)]
    futures = run_together(group_commit, *map(insert, names))
    assert [future.result() for future in futures] == names
    assert kept(db) == names
    assert db.begun == 2


def test_failed_write_fails_alone(group_commit: GroupCommit, db: CountingConnection) -> None:
    """A write that SQLite rejects is undone and raises; the others are committed."""

    def write(db: Connection) -> None:
        db.execute("INSERT INTO kept VALUES ('half')")
        db.execute("INSERT INTO kept VALUES ('half')")

    good, bad, other = run_together(group_commit, insert("a"), write, insert("b"))
    assert (good.result(), other.result()) == ("a", "b")
    with pytest.raises(StoreError, match="UNIQUE"):
        bad.result()
    assert kept(db) == ["a", "b"]
    assert db.begun == 2


def test_bug_in_a_write_is_raised_unchanged(
    group_commit: GroupCommit, db: CountingConnection
) -> None:
    """An exception that is not SQLite's is raised unchanged, to its own writer only."""

    def write(db: Connection) -> None:
        db.execute("INSERT INTO kept VALUES ('half')")
        raise ZeroDivisionError

    good, bad = run_together(group_commit, insert("a"), write)
    assert good.result() == "a"
    assert isinstance(bad.exception(), ZeroDivisionError)
    assert kept(db) == ["a"]


def test_lock_is_waited_for_once(
    group_commit: GroupCommit, db: CountingConnection, database: Path
) -> None:
    """If another process holds the lock, all waiting writes fail with the first one."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        queue = AnnouncingQueue()
        group_commit._queue = queue  # type: ignore[misc]  # noqa: SLF001  see run_together
        with group_commit._lock, ThreadPoolExecutor(4) as pool:  # noqa: SLF001  lets writes wait
            other.execute("BEGIN IMMEDIATE")
            futures = [pool.submit(group_commit.run, insert(f"n{n}")) for n in range(4)]
            for _ in futures:
                assert queue.added.acquire(timeout=10)
            group_commit._lock.release()  # noqa: SLF001  now they may run
            errors = [future.exception(timeout=10) for future in futures]
            group_commit._lock.acquire()  # noqa: SLF001  the block releases it again
        assert all(isinstance(error, DatabaseLocked) for error in errors)
        assert len(set(map(id, errors))) == 1
        other.execute("ROLLBACK")
    assert group_commit.run(insert("later")) == "later"
    assert kept(db) == ["later"]


def test_lost_transaction_fails_every_write(
    group_commit: GroupCommit, db: CountingConnection
) -> None:
    """If SQLite rolls back the whole transaction, every write of it fails."""

    def lose(db: Connection) -> None:
        db.execute("ROLLBACK")  # as SQLite does by itself on a full disk
        raise sqlite3.OperationalError("database or disk is full")

    futures = run_together(group_commit, insert("a"), lose, insert("b"))
    for future in futures:
        with pytest.raises(StoreError, match="full"):
            future.result()
    assert kept(db) == []
    assert group_commit.run(insert("later")) == "later"


def test_interrupt_leaves_no_transaction_open(database: Path) -> None:
    """After an interrupt, the connection has no open transaction."""
    with closing(
        sqlite3.connect(database, isolation_level=None, factory=InterruptedConnection)
    ) as db:
        group_commit = GroupCommit(db, database, WriterLock(database, 0))
        with pytest.raises(KeyboardInterrupt):
            group_commit.run(lambda _: None)
        assert not db.in_transaction


def test_interrupt_in_a_write_ends_the_batch(
    group_commit: GroupCommit, db: CountingConnection
) -> None:
    """An interrupt ends the whole batch: nothing is recorded, and no thread waits."""

    def interrupt(_: Connection) -> None:
        raise KeyboardInterrupt

    futures = run_together(group_commit, insert("a"), interrupt)
    assert [type(future.exception()) for future in futures] == [KeyboardInterrupt] * 2
    assert kept(db) == []
    assert raised_by(lambda: group_commit.run(insert("later"))) is None
