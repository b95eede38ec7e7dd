"""A database that fails: each failure a clear error or a clean recovery, never a wrong row."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from tagsync.clock import timestamp
from tagsync.database.connection import WAL_SIZE, connect_beside
from tagsync.database.store import Store
from tagsync.errors import StoreError
from tagsync.models import Image, Tag, Watch
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.schedule import stale
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole, record
from tests.support.registries import Scripted


@pytest.fixture
def left_by_a_kill(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path, tmp_path: Path
) -> Path:
    """A copy of a database and its WAL, of ten polls none of which is in the file itself yet."""
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


def test_a_wal_left_by_a_kill_is_taken_in(left_by_a_kill: Path) -> None:
    """What was committed and is in the WAL alone is all there after the next opening."""
    Store.open(left_by_a_kill).close()
    assert tags_in(left_by_a_kill) == 10
    assert_history_is_whole(left_by_a_kill)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damage", ["cut off", "altered"])
def test_a_damaged_wal_gives_an_earlier_whole(
    damage: str, seed: int, left_by_a_kill: Path, job: Job, scripted: Scripted, clock: FakeClock
) -> None:
    """A WAL that ends early or has a wrong bit is taken in up to there; the next poll has all."""
    wal = left_by_a_kill.with_name(f"{left_by_a_kill.name}-wal")
    content = bytearray(wal.read_bytes())
    # The first commits are the schema's; what lies after them are the polls.
    place = Random(seed).randrange(len(content) // 2, len(content))
    if damage == "cut off":
        del content[place:]
    else:
        content[place] ^= 0x55
    wal.write_bytes(content)
    with Store.open(left_by_a_kill) as store:
        assert_history_is_whole(left_by_a_kill)
        assert tags_in(left_by_a_kill) < 11
        scripted.then(*(f"v{tag}" for tag in range(10)))
        assert poll(job, store, clock=clock).outcome == "ok"
    assert_history_is_whole(left_by_a_kill)
    assert tags_in(left_by_a_kill) == 10


@pytest.mark.usefixtures("store")
def test_the_connection_that_asks_cannot_write(database: Path) -> None:
    """Of the store's connections only one can write, so that a question never changes a record."""
    with closing(connect_beside(database)) as db:
        assert db.execute("SELECT count(*) FROM repositories").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM repositories")


def test_a_wal_that_somebody_made_grow_is_cut(
    job: Job, store: Store, clock: FakeClock, database: Path
) -> None:
    """While somebody reads, the WAL cannot be begun anew; afterwards it is as small as before."""
    wal = database.with_name(f"{database.name}-wal")
    manifest = " " * 2**20
    tags = {f"v{n}": Tag(f"v{n}", f"sha256:{n}") for n in range(WAL_SIZE // 2**20 + 2)}
    images = {
        tag.digest: Image(tag.digest, manifest=manifest) for tag in tags.values() if tag.digest
    }
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM tags").fetchone()
        record(store, job, clock, tags, images)
        record(store, job, clock, {}, {})
        assert wal.stat().st_size > WAL_SIZE
    # One transaction after which all is copied, and one that begins the WAL anew.
    for tags in ({"x": Tag("x")}, {}):
        record(store, job, clock, tags, {})
    assert wal.stat().st_size <= WAL_SIZE


def test_what_a_damaged_file_makes_sqlite_say_is_one_line(store: Store, database: Path) -> None:
    """SQLite quotes the bytes that it stumbles over, which may be line breaks and escapes."""
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


def test_a_database_that_stays_locked_is_said(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> None:
    """Who waits longer than the timeout is told so; the poll is not recorded, the next one is."""
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


def test_freshness_is_not_believed_from_a_clock_far_behind(clock: FakeClock) -> None:
    """What was seen years from now says nothing of when, and is stale, either side of the clock."""
    watch = Watch("swr", ("team/api",), interval=timedelta(minutes=5))
    for ahead, expected in ((0, False), (14, False), (16, True), (10**6, True), (-16, True)):
        at = timestamp(clock.now + timedelta(minutes=ahead))
        assert stale(watch, at, clock.now) == expected
