"""Connections to a damaged or locked database: a clear error or a clean recovery."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from random import Random
from threading import Event

import pytest

from tagsync.cli.check import check_permissions
from tagsync.database.connection import (
    WAL_SIZE,
    Connection,
    connect,
    connect_beside,
    connect_for_reading,
    reading,
)
from tagsync.database.store import Store
from tagsync.database.usage import measure_disk
from tagsync.errors import StoreError
from tagsync.models import Image, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole, record
from tests.support.registries import Scripted


@pytest.fixture
def killed_database(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path, tmp_path: Path
) -> Path:
    """A copy of a database whose ten polls are in the WAL only."""
    for number in range(10):
        scripted.then(*(f"v{tag}" for tag in range(number + 1)))
        poll(job, store, clock=clock)
        clock.advance(minutes=5)
    folder = tmp_path / "left"
    folder.mkdir()
    for name in (database.name, f"{database.name}-wal"):
        shutil.copy(database.parent / name, folder / name)
    return folder / database.name


def tags_in(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM tags").fetchone()[0])


def test_wal_is_recovered_after_a_kill(killed_database: Path) -> None:
    """Commits that are in the WAL only are there after the next opening."""
    Store.open(killed_database).close()
    assert tags_in(killed_database) == 10
    assert_history_is_whole(killed_database)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damage", ["cut off", "altered"])
def test_damaged_wal_is_recovered_up_to_the_damage(
    damage: str, seed: int, killed_database: Path, job: Job, scripted: Scripted, clock: FakeClock
) -> None:
    """A damaged WAL is recovered up to the damage; the next poll records the rest."""
    wal = killed_database.with_name(f"{killed_database.name}-wal")
    content = bytearray(wal.read_bytes())
    # The first commits create the schema; those of the polls follow.
    place = Random(seed).randrange(len(content) // 2, len(content))
    if damage == "cut off":
        del content[place:]
    else:
        content[place] ^= 0x55
    wal.write_bytes(content)
    with Store.open(killed_database) as store:
        assert_history_is_whole(killed_database)
        assert tags_in(killed_database) < 11
        scripted.then(*(f"v{tag}" for tag in range(10)))
        assert poll(job, store, clock=clock).outcome == "ok"
    assert_history_is_whole(killed_database)
    assert tags_in(killed_database) == 10


@pytest.fixture
def unfinished_database(database: Path, tmp_path: Path) -> Path:
    """A copy of a database whose journal holds a transaction that was cut off."""
    connect(database).close()
    left = tmp_path / "unfinished.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")  # writes to the file before the commit
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE unfinished (value)")
        connection.executemany("INSERT INTO unfinished VALUES (?)", [("x" * 1000,)] * 100)
        for ending in ("", "-journal"):
            shutil.copy(f"{database}{ending}", f"{left}{ending}")
        connection.execute("ROLLBACK")
    return left


def open_for_reading(path: Path) -> AbstractContextManager[Connection]:
    return closing(connect_for_reading(path))


@pytest.mark.parametrize("open_database", [open_for_reading, reading])
def test_unfinished_transaction_is_rolled_back_before_reading(
    open_database: Callable[[Path], AbstractContextManager[Connection]], unfinished_database: Path
) -> None:
    """A reader finds the database as it was before a transaction that was cut off."""
    with open_database(unfinished_database) as db:
        query = "SELECT count(*) FROM sqlite_master WHERE name = ?"
        assert db.execute(query, ("unfinished",)).fetchone() == (0,)
        assert db.execute(query, ("changes",)).fetchone() == (1,)
    assert not Path(f"{unfinished_database}-journal").exists()


@contextmanager
def coming_and_going(path: Path) -> Iterator[None]:
    """Create an empty file and remove it, again and again, as processes do with a WAL."""
    ended = Event()

    def create_and_remove() -> None:
        while not ended.is_set():
            path.touch()
            path.unlink()

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(create_and_remove)
        try:
            yield
        finally:
            ended.set()
            working.result()


def test_wal_may_be_removed_at_any_moment(database: Path) -> None:
    """A reader works while other processes open and close the database."""
    connect(database).close()
    with coming_and_going(Path(f"{database}-wal")):
        for _ in range(500):
            with reading(database) as db:
                assert db.execute("SELECT count(*) FROM changes").fetchone() == (0,)
            assert measure_disk(database).wal == 0


def test_check_ignores_a_file_that_is_removed_meanwhile(database: Path) -> None:
    """A WAL that another process removes during the check is not one that cannot be read."""
    connect(database).close()
    wal = Path(f"{database}-wal")
    wal.touch()

    def remove_wal(file: Path) -> bool:
        wal.unlink(missing_ok=True)
        return file.exists()

    assert check_permissions(database, remove_wal).result == "ok"
    assert check_permissions(database, lambda _: False).result == "failed"


@pytest.mark.usefixtures("store")
def test_connection_for_reading_cannot_write(database: Path) -> None:
    """A store's connection for reading cannot write."""
    with closing(connect_beside(database)) as db:
        assert db.execute("SELECT count(*) FROM repositories").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM repositories")


def test_wal_that_grew_during_a_read_shrinks_again(
    job: Job, store: Store, clock: FakeClock, database: Path
) -> None:
    """A WAL that a long read made grow is as small as before after two transactions."""
    wal = database.with_name(f"{database.name}-wal")
    manifest = " " * 2**20
    tags = {f"v{n}": Tag(f"v{n}", f"sha256:{n}") for n in range(WAL_SIZE // 2**20 + 2)}
    images = {
        tag.digest: Image(tag.digest, manifest=manifest) for tag in tags.values() if tag.digest
    }
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tags").fetchone()
        record(store, job, clock, tags, images)
        record(store, job, clock, {}, {})
        assert wal.stat().st_size > WAL_SIZE
    # After the first transaction the WAL is copied, and the second one restarts it.
    for tags in ({"x": Tag("x")}, {}):
        record(store, job, clock, tags, {})
    assert wal.stat().st_size <= WAL_SIZE


def test_error_about_a_damaged_file_is_one_line(store: Store, database: Path) -> None:
    """Damaged bytes that SQLite quotes in an error are escaped."""
    store.close()
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute(
            "UPDATE sqlite_master SET name = 'tags' || char(10, 27) || '[2J', sql = 'CREATE no'"
            " WHERE name = 'tags'"
        )
        other.commit()
    with pytest.raises(StoreError, match=r"damaged .*\[2J.*restore it") as caught:
        Store.open(database)
    assert str(caught.value).isprintable()


def test_database_that_stays_locked_raises_store_error(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> None:
    """A poll that waits too long for a lock raises StoreError; the next one succeeds."""
    scripted.then("a")
    poll(job, store, clock=clock)
    with (
        closing(sqlite3.connect(database, isolation_level=None)) as other,
        Store.open(database, busy_timeout=0.05) as impatient,
    ):
        other.execute("BEGIN IMMEDIATE")
        scripted.then("a", "b")
        with pytest.raises(StoreError, match="locked for too long"):
            poll(job, impatient, clock=clock)
        other.execute("ROLLBACK")
        assert tags_in(database) == 1
        scripted.then("a", "b")
        assert poll(job, impatient, clock=clock).added == 1
    assert_history_is_whole(database)
