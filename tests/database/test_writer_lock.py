"""The lock that writers of several processes share, and what a power cut may undo."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tagsync.database import durability
from tagsync.database.durability import flush_to_disk
from tagsync.database.store import Store
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import DatabaseLocked, UnusableDatabase
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

OTHER_PROCESS = """
import sys
from pathlib import Path
from tagsync.database.writer_lock import WriterLock
with WriterLock(Path(sys.argv[1]), 10):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(database: Path) -> Iterator[None]:
    """Hold the lock in another process until the block is left."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        assert process.stdin is not None
        process.stdin.close()


def test_opening_waits_for_the_lock(database: Path) -> None:
    """A database that another process may be replacing is not opened."""
    Store.open(database).close()
    with (
        locked_by_another_process(database),
        pytest.raises(DatabaseLocked, match=r"kept .* locked for too long"),
    ):
        Store.open(database, busy_timeout=0.05)


def test_another_process_is_waited_for_in_vain(
    job: Job, scripted: Scripted, database: Path
) -> None:
    """A write fails in one sentence if another process holds the lock for too long."""
    with Store.open(database, busy_timeout=0.05) as store:
        with locked_by_another_process(database):
            scripted.then("a")
            with pytest.raises(DatabaseLocked, match=r"kept .* locked for too long"):
                poll(job, store)
        scripted.then("a")
        assert poll(job, store).outcome == "ok"


def test_the_lock_is_released_to_a_waiting_thread(database: Path) -> None:
    """A writer that waits gets the lock as soon as the other one releases it."""
    got_it = Event()

    def wait() -> None:
        with WriterLock(database, 10):
            got_it.set()

    with WriterLock(database, 0):
        thread = Thread(target=wait)
        thread.start()
        assert not got_it.is_set()
    thread.join(10)
    assert got_it.is_set()


def test_the_lock_is_held_for_the_whole_transaction(store: Store, database: Path) -> None:
    """No other process can get the lock between BEGIN and the end of COMMIT."""
    descriptor = os.open(f"{database}.writer-lock", os.O_RDONLY | os.O_CREAT)
    try:

        def write(_: object) -> None:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

        store._write(write)  # noqa: SLF001  a transaction that the test looks into
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_a_lock_that_cannot_be_opened_is_reported(database: Path) -> None:
    """An error of the lock's file names that file, and says what to check."""
    Path(f"{database}.writer-lock").mkdir()
    lock = WriterLock(database / "missing", 0)
    with pytest.raises(UnusableDatabase, match=r"writer-lock cannot be used .* check that"), lock:
        pass


def test_a_reader_creates_no_lock(database: Path) -> None:
    """A store that only reads leaves no file of a lock behind."""
    Store.open(database).close()
    lock = Path(f"{database}.writer-lock")
    lock.unlink()
    Store.open_for_reading(database).close()
    assert not lock.exists()


def test_a_durable_head_is_synced_first(
    job: Job, scripted: Scripted, store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head is returned after the WAL and the folder were synced, in this order."""
    scripted.then("a")
    poll(job, store)
    synced: list[Path] = []
    monkeypatch.setattr(durability, "sync_path", synced.append)
    assert store.durable_heads() == store.heads()
    assert synced == [Path(f"{database}-wal"), database.parent]


def test_a_durable_head_keeps_the_locks_of_sqlite(
    job: Job, scripted: Scripted, store: Store, database: Path
) -> None:
    """After a sync another process that closes the database still sees that it is open here.

    Otherwise it would remove the WAL, and with it everything that is recorded later.
    """
    read = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT 1 FROM tags').close()"
    for tags in ("a", "ab", "abc"):
        scripted.then(*tags)
        poll(job, store)
        store.durable_heads()
        subprocess.run([sys.executable, "-c", read, str(database)], check=True)
        assert Path(f"{database}-wal").exists()
    assert_history_is_whole(database)
    assert store.heads().changes.change_id == 3


def test_a_missing_wal_is_nothing_to_sync(database: Path) -> None:
    """After a checkpoint has removed the WAL, there is nothing to sync but the folder."""
    Store.open(database).close()
    flush_to_disk(database)
    assert not Path(f"{database}-wal").exists()
