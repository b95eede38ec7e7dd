"""A database that is deleted, replaced or restored while it is open."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.database.store import Store
from tagsync.errors import ReplacedDatabase, StoreError
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.record import copy
from tests.support.registries import REPOSITORY, Scripted

Damage = Callable[[Path], None]


def delete(*endings: str) -> Damage:
    def damage(database: Path) -> None:
        for ending in endings:
            Path(f"{database}{ending}").unlink()

    return damage


def replace(database: Path) -> None:
    """Moves an older copy into the place of the database."""
    database.with_name("older.db").rename(database)


def restore(database: Path) -> None:
    """Writes an older copy into the open file, as SQLite's own tools do."""
    with (
        closing(sqlite3.connect(database.with_name("older.db"))) as older,
        closing(sqlite3.connect(database)) as current,
    ):
        older.backup(current)


def move_folder(database: Path) -> None:
    database.parent.rename(database.parent.with_name("elsewhere"))


DAMAGES = {
    "deleted": (delete("", "-wal", "-shm"), "was deleted or moved"),
    "only the file deleted": (delete(""), "was deleted or moved"),
    "only the WAL deleted": (delete("-wal"), "tagsync.db-wal was deleted or moved"),
    "only the shared memory deleted": (delete("-shm"), "tagsync.db-shm was deleted or moved"),
    "replaced": (replace, "was replaced by another file"),
    "restored": (restore, "no longer has change 2 as it was recorded"),
    "folder moved": (move_folder, "was deleted or moved"),
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "tagsync.db"


def job(scripted: Scripted) -> Job:
    return Job(REPOSITORY, scripted, timedelta(minutes=5))


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES.keys())
def test_nothing_is_written_into_another_database(
    database: Path, scripted: Scripted, damage: Damage, sentence: str
) -> None:
    """The next write fails, and so do all that follow, even if the right file is back."""
    for tags in ("a", "ab", "abc", "abcd"):
        scripted.then(*tags)
    with Store.open(database) as store:
        poll(job(scripted), store)
        with (
            closing(sqlite3.connect(database)) as current,
            closing(sqlite3.connect(database.with_name("older.db"))) as older,
        ):
            current.backup(older)
        poll(job(scripted), store)
        store.check_files()
        opened = os.open(database, os.O_RDONLY)
        before = os.fstat(opened).st_size
        damage(database)
        for _ in range(2):
            with pytest.raises(ReplacedDatabase) as raised:
                poll(job(scripted), store)
            assert sentence in str(raised.value)
            assert "restart tagsync" in str(raised.value)
        with pytest.raises(ReplacedDatabase):
            store.check_files()
        assert os.fstat(opened).st_size == before
        os.close(opened)


def test_a_restored_state_with_the_same_changes_is_noticed(
    database: Path, scripted: Scripted, clock: FakeClock
) -> None:
    """An older state that lacks no change, but an observation that has ended, is another state."""
    with Store.open(database) as store:

        def poll_next_day() -> None:
            clock.advance(days=1)
            scripted.then("a")
            poll(job(scripted), store, clock=clock)

        poll_next_day()
        copy(database, database.with_name("older.db"))
        poll_next_day()
        poll_next_day()
        restore(database)
        with pytest.raises(ReplacedDatabase, match="no longer has observation number 2"):
            poll_next_day()


def test_emptied_database_is_noticed(database: Path, scripted: Scripted) -> None:
    """A file that was cut to nothing, as by a copy onto a full disk, is not the database."""
    for tags in ("a", "ab", "abc"):
        scripted.then(*tags)
    with Store.open(database) as store:
        poll(job(scripted), store)
        store.check_files()
        os.truncate(database, 0)
        with pytest.raises(ReplacedDatabase, match=r"tagsync\.db was emptied"):
            store.check_files()
        for _ in range(2):
            with pytest.raises(StoreError):
                poll(job(scripted), store)
        assert database.stat().st_size == 0


def test_changes_of_another_process_are_not_a_replacement(
    database: Path, scripted: Scripted
) -> None:
    """Two processes that write the same file, and a checkpoint, keep its identity."""
    for tags in ("a", "ab", "abc"):
        scripted.then(*tags)
    with Store.open(database) as store:
        poll(job(scripted), store)
        with Store.open(database) as other:
            poll(job(scripted), other)
        with closing(sqlite3.connect(database)) as checkpoint:
            checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            checkpoint.execute("VACUUM")
        assert poll(job(scripted), store).added == 1
        store.check_files()


def test_a_link_that_leads_elsewhere_is_noticed(database: Path, tmp_path: Path) -> None:
    """The path may be a symbolic link; another target is another file."""
    other, link = tmp_path / "other.db", tmp_path / "link.db"
    other.touch()
    link.symlink_to(database)
    with Store.open(link) as store:
        store.check_files()
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(ReplacedDatabase, match="was replaced by another file"):
            store.check_files()


def test_a_file_system_that_fails_is_not_a_replacement(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file cannot be examined, that is an error, and the next check may succeed."""

    def fail(_: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with Store.open(database) as store:
        with monkeypatch.context() as patched:
            patched.setattr(os, "stat", fail)
            with pytest.raises(StoreError, match="cannot be examined") as raised:
                store.check_files()
        assert not isinstance(raised.value, ReplacedDatabase)
        store.check_files()


def test_a_closed_database_is_not_checked(database: Path) -> None:
    """Closing deletes the WAL and the shared memory, which is not a replacement."""
    store = Store.open(database)
    store.close()
    assert not Path(f"{database}-wal").exists()
    store.check_files()
