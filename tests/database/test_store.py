"""The store and its database: append-only tables, rejected files, and kills."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tagsync.audit.queries import Audit
from tagsync.database.connection import Connection
from tagsync.database.hash_chain import GENESIS, link
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import DamagedRecord, StoreError, UnusableDatabase
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.calls import raised_by
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole, record
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]


def alter(database: Path, sql: str) -> None:
    """Run SQL on a database, bypassing the store."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.fixture
def recorded(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> None:
    """A repository whose one tag and its image are recorded."""
    scripted.then("a")
    poll(job, store, clock=clock)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE changes SET tag = 'other'",
        "DELETE FROM changes",
        (
            "INSERT OR REPLACE INTO changes SELECT id, repository_id, 'other', kind, old_digest,"
            " new_digest, fields, not_before, observed_at, hash FROM changes"
        ),
        "UPDATE images SET manifest = '{}'",
        "DELETE FROM images",
    ],
)
def test_history_and_images_are_append_only(sql: str, database: Path) -> None:
    """Recorded changes and images cannot be updated, deleted or replaced."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        alter(database, sql)


@pytest.mark.usefixtures("recorded")
def test_replacing_an_image_changes_nothing(database: Path, query: Query) -> None:
    """REPLACE of an image, which fires no DELETE trigger, leaves it as it was."""
    before = query("SELECT * FROM images")
    alter(database, "INSERT OR REPLACE INTO images VALUES (7,'sha256:a',1,1,1,1,1,1,1)")
    assert query("SELECT * FROM images") == before


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("key", "value"), [("rowid", 1), ("rowid", 0), ("rowid", -5), ("id", 1), ("id", 0)]
)
def test_replacing_an_image_by_another_is_rejected(
    key: str, value: int, database: Path, query: Query
) -> None:
    """REPLACE by another image with the same id is rejected."""
    insert = f"INTO images (digest, first_observed_at, {key}) VALUES"
    if value != 1:
        alter(database, f"INSERT {insert} ('there', 't', {value})")
    before = query("SELECT * FROM images")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        alter(database, f"INSERT OR REPLACE {insert} ('b', 't', {value})")
    assert query("SELECT * FROM images") == before


def test_image_with_id_minus_one_blocks_no_insert(
    job: Job, scripted: Scripted, store: Store, database: Path, clock: FakeClock, query: Query
) -> None:
    """An image may have the id -1, which triggers see for an image without an id."""
    alter(
        database, "INSERT INTO images (id, digest, first_observed_at) VALUES (-1, 'sha256:-', 't')"
    )
    scripted.then("a")
    poll(job, store, clock=clock)
    assert query("SELECT digest FROM images WHERE id = 1") == [("sha256:a",)]


def test_store_closes_after_an_interrupt(database: Path, query: Query) -> None:
    """A store that is closed after an interrupt rolls back and releases its lock."""

    def interrupted() -> None:
        with Store.open(database) as store:
            group_commit = store._group_commit  # noqa: SLF001  an interrupt leaves it in this state
            group_commit._lock.acquire()  # noqa: SLF001
            group_commit._db.execute("BEGIN IMMEDIATE")  # noqa: SLF001
            group_commit._db.execute("DELETE FROM repositories")  # noqa: SLF001

    assert raised_by(interrupted) is None
    assert query("SELECT count(*) FROM observations") == [(0,)]
    with Store.open(database, busy_timeout=0) as store:
        store.acknowledge(REPOSITORY, 0)


BARE = {"sha256:bare": Image("sha256:bare", media_type="a/b")}
FILL = "UPDATE images SET manifest = '{}', verified = 1"


@pytest.fixture
def bare(job: Job, store: Store, clock: FakeClock) -> None:
    """An image recorded without its manifest, and one recorded with it."""
    tags = {"a": Tag("a", "sha256:bare"), "b": Tag("b", "sha256:full")}
    full = Image("sha256:full", manifest="{ }", verified=True)
    record(store, job, clock, tags, {**BARE, "sha256:full": full})


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE images SET manifest = '{}'",
        "UPDATE images SET manifest = '{}', verified = 0",
        "UPDATE images SET manifest = NULL, verified = 1",
        "UPDATE images SET manifest = x'7b7d', verified = 1",
        "UPDATE images SET verified = 1",
        "UPDATE images SET size = 7",
        "UPDATE images SET image_id = 'x'",
        f"{FILL}, digest = 'sha256:other'",
        f"{FILL}, first_observed_at = 'x'",
        f"{FILL}, id = id + 1",
        f"{FILL}, rowid = rowid + 100",
        f"UPDATE OR REPLACE {FILL.removeprefix('UPDATE ')}, rowid = rowid + 1",
        f"{FILL} WHERE digest = 'sha256:full' --",
        "UPDATE images SET manifest = NULL, verified = NULL WHERE digest = 'sha256:full' --",
        "DELETE FROM images",
    ],
)
def test_only_a_missing_manifest_is_filled_in(sql: str, database: Path, query: Query) -> None:
    """Every update of an image is rejected, except one that fills in its manifest."""
    before = query("SELECT rowid, * FROM images")
    sql = sql if sql.endswith("--") else f"{sql} WHERE digest = 'sha256:bare'"
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        alter(database, sql)
    assert query("SELECT rowid, * FROM images") == before


@pytest.mark.usefixtures("bare")
def test_missing_manifest_is_filled_in_once(
    job: Job, store: Store, clock: FakeClock, query: Query, database: Path
) -> None:
    """An image without a manifest gets it once, with the fields that it states."""
    before = query("SELECT first_observed_at FROM images WHERE digest = 'sha256:bare'")
    clock.advance(minutes=5)
    full = Image("sha256:bare", "sha256:id", "c/d", 2, 111, '{"x": 1}', verified=True)
    tags = {"a": Tag("a", "sha256:bare"), "b": Tag("b", "sha256:full")}
    record(store, job, clock, tags, {"sha256:bare": full})
    row = ("sha256:id", "c/d", 2, 111, '{"x": 1}', 1)
    columns = "image_id, media_type, schema, size, manifest, verified"
    assert query(f"SELECT {columns} FROM images WHERE digest = 'sha256:bare'") == [row]
    assert query("SELECT first_observed_at FROM images WHERE digest = 'sha256:bare'") == before
    assert store.with_manifest(["sha256:bare", "sha256:full", "x"]) == {
        "sha256:bare",
        "sha256:full",
    }
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        alter(database, f"{FILL} WHERE digest = 'sha256:bare'")


@pytest.mark.usefixtures("bare")
def test_unverified_manifest_is_not_filled_in(
    job: Job, store: Store, clock: FakeClock, query: Query
) -> None:
    """A manifest that does not hash to the digest is never filled in."""
    forged = Image("sha256:bare", manifest='{"x": 1}', verified=False)
    tags = {"a": Tag("a", "sha256:bare"), "b": Tag("b", "sha256:full")}
    record(store, job, clock, tags, {"sha256:bare": forged})
    tags |= {"new": Tag("new", "sha256:bare")}
    record(store, job, clock, tags, {"sha256:bare": forged})
    assert query("SELECT manifest, verified FROM images WHERE digest = 'sha256:bare'") == [
        (None, None)
    ]


def test_image_is_found_by_a_manifest_filled_in_later(
    job: Job, store: Store, clock: FakeClock, database: Path
) -> None:
    """A layer is found even if the manifest of its image was filled in later."""
    layers = [f"sha256:{character * 64}" for character in "abc"]
    texts = [json.dumps({"layers": [{"digest": layer}]}) for layer in layers]
    images = {
        digest: Image(digest, manifest=text, verified=True)
        for text in texts
        for digest in [f"sha256:{sha256(text.encode()).hexdigest()}"]
    }
    stayed, again, fresh = images
    tags = {"stayed": Tag("stayed", stayed), "again": Tag("again", again)}
    many = {f"sha256:{number:064x}": Image(f"sha256:{number:064x}") for number in range(50)}
    record(store, job, clock, tags, {stayed: Image(stayed), again: Image(again)})
    tags |= {digest: Tag(digest, digest) for digest in many}
    record(store, job, clock, tags, many)
    tags |= {"other": Tag("other", again), "fresh": Tag("fresh", fresh)}
    record(store, job, clock, tags, images)
    with Audit.open(database) as audit:
        found = [[row["tag"] for row in audit.find(layer)] for layer in layers]
        assert {row["detail"] for row in audit.verify() if row["result"] != "ok"} == set()
    assert found == [["stayed"], ["again", "other"], ["fresh"]]


def test_manifest_that_swr_sends_later_is_filled_in(
    store: Store, query: Query, connect: Callable[..., Registry]
) -> None:
    """A manifest that SWR omits at first is recorded when SWR sends it."""
    with Emulator() as swr:
        digest = swr.push("team/api", "v1", "one")
        registry = connect(swr.url)
        listed = registry.list_tags("team/api")
        assert isinstance(listed, Listing)
        whole = listed.images[digest].manifest
        swr.set_fields("team/api", "v1", manifest=None)
        job = Job(Repository("swr", "team/api"), registry, timedelta(minutes=5))
        assert poll(job, store).outcome == "ok"
        assert query("SELECT digest, manifest FROM images") == [(digest, None)]
        swr.set_fields("team/api", "v1", manifest=whole)
        assert poll(job, store).outcome == "ok"
    assert query("SELECT digest, manifest, verified FROM images") == [(digest, whole, 1)]
    assert query("SELECT count(*) FROM changes") == [(1,)]


def test_database_of_another_program_is_rejected(database: Path) -> None:
    """A database of another program is rejected and not changed."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    before = database.read_bytes()
    for opener in (Store.open, Store.open_for_reading):
        with pytest.raises(UnusableDatabase, match="another program"):
            opener(database)
    assert database.read_bytes() == before


def test_database_of_a_newer_version_is_rejected(database: Path) -> None:
    """A database with a migration that this version does not know is rejected."""
    Store.open(database).close()
    alter(
        database,
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('tagsync', 'from_the_future', 'now')",
    )
    for opener in (Store.open, Store.open_for_reading):
        with pytest.raises(UnusableDatabase, match="another tagsync, probably a newer one"):
            opener(database)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("text", ["CAST(X'ff' AS TEXT)", "X'ff'"])
def test_an_error_keeps_no_old_snapshot(database: Path, store: Store, text: str) -> None:
    """After a damaged row the next read sees what was written since, also if the error lives."""
    alter(database, f"UPDATE tags SET tag = {text}")
    with pytest.raises(DamagedRecord) as kept:
        store.tags(REPOSITORY)
    alter(database, "UPDATE tags SET tag = 'repaired'")
    assert list(store.tags(REPOSITORY)) == ["repaired"]
    assert kept.value.path == database


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE repositories DROP COLUMN hash",
        "DROP TABLE observations",
        "ALTER TABLE changes RENAME COLUMN hash TO hash2",
    ],
)
def test_database_with_another_schema_is_rejected(
    sql: str, database: Path, scripted: Scripted, job: Job
) -> None:
    """A file of tagsync that lacks a table or a column is refused, and the advice says why."""
    with Store.open(database) as store:
        scripted.then("a")
        poll(job, store)
    alter(database, sql)
    scripted.then("a", "b")
    with (
        pytest.raises(UnusableDatabase, match="does not have the schema of this tagsync"),
        Store.open(database) as store,
    ):
        poll(job, store)


def test_file_that_is_not_a_database_is_rejected(database: Path) -> None:
    """A file that is not a SQLite database is rejected and not changed."""
    database.write_text("notes " * 1000)
    with pytest.raises(UnusableDatabase, match="not a SQLite database"):
        Store.open(database)
    assert database.read_text() == "notes " * 1000


@pytest.mark.parametrize("opened", [Store.open, Store.open_for_reading, Audit.open])
def test_folder_instead_of_a_database_is_rejected(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[object]]
) -> None:
    """A folder in place of the database file is rejected and called a folder."""
    (tmp_path / "kept").touch()
    with pytest.raises(UnusableDatabase, match="is a folder: set store"), opened(tmp_path):
        pass


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    """A path in a missing folder is rejected with advice to check the folder."""
    with pytest.raises(StoreError, match="check that its folder exists"):
        Store.open(tmp_path / "missing" / "tagsync.db")


def test_concurrent_creation_applies_each_migration_once(tmp_path: Path) -> None:
    """Stores that create a database at the same time apply each migration once."""
    # A race shows only in some of the attempts.
    for number in range(25):
        database = tmp_path / f"{number}.db"
        with ThreadPoolExecutor(8) as pool:
            for store in pool.map(Store.open, [database] * 8):
                store.close()
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            applied = connection.execute("SELECT name FROM _sqlite_migrations").fetchall()
        assert applied
        assert len(set(applied)) == len(applied)


def test_hash_chain_is_as_documented() -> None:
    """The hash of a change is SHA-256 over the JSON that Python's `json` writes."""
    content = [7, "swr/team/ä", 'x"\\\x1f\x7f\u2028', "added", None, "sha256:1", "{}", None, "t"]
    text = json.dumps([GENESIS, *content], ensure_ascii=False, separators=(",", ":"))
    assert link(GENESIS, *content) == sha256(text.encode()).hexdigest()  # type: ignore[arg-type]  # a list has one type of item


def test_reader_does_not_wait_for_the_writer(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A reader sees the state before a transaction that is still open."""
    scripted.then("a")
    poll(job, store, clock=clock)

    def write(db: Connection) -> None:
        db.execute("UPDATE repositories SET failures = 1")
        assert query("SELECT failures FROM repositories") == [(0,)]

    store._write(write)  # noqa: SLF001  the test reads during a transaction
    assert query("SELECT failures FROM repositories") == [(1,)]


@pytest.mark.parametrize("table", ["images", "changes", "tags", "observations"])
def test_poll_is_recorded_whole_or_not_at_all(
    table: str,
    job: Job,
    scripted: Scripted,
    store: Store,
    database: Path,
    clock: FakeClock,
    query: Query,
) -> None:
    """If one write of a poll fails, nothing of the poll is recorded."""
    scripted.then("a")
    poll(job, store, clock=clock)
    everything = "SELECT * FROM {} ORDER BY 1, 2"
    tables = ("repositories", "images", "changes", "tags", "observations")
    before = [query(everything.format(name)) for name in tables]
    alter(
        database,
        f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    clock.advance(hours=1)
    scripted.then("a", "b")
    with pytest.raises(StoreError, match="full"):
        poll(job, store, clock=clock)
    assert [query(everything.format(name)) for name in tables] == before


@pytest.mark.processes
def test_database_is_whole_after_kills(tmp_path: Path, database: Path) -> None:
    """After SIGKILL at random moments, one pass completes the mirror and the log."""
    random = Random(7)
    config = tmp_path / "config.toml"
    lines: list[dict[str, Any]] = []
    with Emulator() as swr:
        config.write_text(
            f'[[registries]]\nname = "swr"\nendpoint = "{swr.url}"\n'
            '[[registries.watch]]\nrepositories = ["team/api"]\n'
        )
        command = [sys.executable, "-m", "tagsync", "--config", str(config), "sync"]
        for number in range(400):
            swr.push("team/api", f"v{number}", f"build {number}")
        subprocess.run(command, capture_output=True, check=True, timeout=30)
        killed = 0
        for attempt in range(8):
            for number in random.sample(range(400), 40):
                swr.push("team/api", f"v{number}", f"build {number} of round {attempt}")
            requests = len(swr.requests)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while len(swr.requests) == requests and process.poll() is None:
                time.sleep(0.001)
            try:
                # The transaction and its log lines take about this long, so that kills hit before,
                # during and after them.
                process.wait(timeout=random.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
            _, stderr = process.communicate()
            lines += _complete_lines(stderr)
            if database.exists():
                with closing(sqlite3.connect(database)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
        lines += _complete_lines(done.stderr)
        expected = swr.tags("team/api")
    assert_history_is_whole(database)
    with closing(sqlite3.connect(database)) as connection:
        assert dict(connection.execute("SELECT tag, digest FROM tags")) == expected
        recorded = {
            row[0]
            for row in connection.execute("SELECT id FROM changes WHERE not_before IS NOT NULL")
        }
    assert killed > 2
    assert len(recorded) > 200
    assert recorded <= {line.get("change_id") for line in lines}


def _complete_lines(stderr: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.split(b"\n")[:-1]]
