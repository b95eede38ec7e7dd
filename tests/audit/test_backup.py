"""Backup and restore: what is copied, what is verified, and what is refused."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from threading import Event, Thread

import pytest

from tagsync.audit.backup import back_up, restore
from tagsync.audit.queries import Audit
from tagsync.database import copies
from tagsync.database.connection import reading
from tagsync.database.daemon_lock import DaemonLock
from tagsync.database.hash_chain import Heads, read_heads
from tagsync.database.new_file import NewFile
from tagsync.database.store import Store
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import (
    DatabaseInUse,
    DatabaseLocked,
    RefusedBackup,
    StoreError,
    UnusableDatabase,
)
from tagsync.models import Image, Tag
from tagsync.polling.jobs import Job
from tests.support.audit import altered_copy
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole, query, record

Recorder = Callable[..., Heads]
ALTERED = "UPDATE changes SET observed_at = '2026-05-03T12:00:00.001Z' WHERE id = 1"


@pytest.fixture
def scribe(job: Job, clock: FakeClock) -> Recorder:
    """Record listings into a database, one day after the other, and return the heads."""

    def run(database: Path, *digests: str) -> Heads:
        with Store.open(database) as store:
            for digest in digests:
                image = Image(f"sha256:{digest}")
                record(store, job, clock, {"v1": Tag("v1", image.digest)}, {image.digest: image})
                clock.advance(days=1)
            return store.heads()

    return run


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """The path of a backup that does not exist yet, in a folder of its own."""
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "backup.db"


def heads_of(database: Path) -> Heads:
    with reading(database) as db:
        return read_heads(db)


def id_of(database: Path) -> str:
    ((found,),) = query(database, "SELECT database_id FROM info")
    return str(found)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- backup ---------------------------------------------------------------------------------------


def test_backup_is_one_whole_file(scribe: Recorder, database: Path, backup: Path) -> None:
    """A backup has the heads and the id of the database, and all that it had recorded."""
    heads = scribe(database, "a", "b", "c")
    assert heads.observations.ended == 2
    before = database.read_bytes()
    assert back_up(database, backup) == heads == heads_of(backup)
    assert names_in(backup.parent) == {"backup.db"}
    assert_history_is_whole(backup)
    assert id_of(backup) == id_of(database)
    assert database.read_bytes() == before


def test_backup_has_what_only_the_wal_has(
    scribe: Recorder, database: Path, backup: Path, store: Store
) -> None:
    """While another process has the database open, its WAL is a part of the backup."""
    heads = scribe(database, "a", "b")
    assert Path(f"{database}-wal").stat().st_size
    assert back_up(database, backup) == heads == heads_of(backup) == store.heads()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_backup_has_the_permissions_of_the_database(
    mode: int, scribe: Recorder, database: Path, backup: Path
) -> None:
    """Whoever may not read the database may not read its backup."""
    scribe(database, "a")
    database.chmod(mode)
    back_up(database, backup)
    assert backup.stat().st_mode & 0o777 == mode


@pytest.mark.processes
def test_writer_that_never_stops_does_not_prolong_a_backup(
    job: Job, clock: FakeClock, database: Path, tmp_path: Path
) -> None:
    """A copy ends with the state at its beginning, although commits come between its steps."""
    with Store.open(database) as store:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE mine AS SELECT randomblob(30000000) AS filler")
        stop, wrote = Event(), Event()

        def write() -> None:
            for number in range(50_000):  # minutes of writing: a copy that waits for it fails
                image = Image(f"sha256:{number}")
                record(store, job, clock, {"v1": Tag("v1", image.digest)}, {image.digest: image})
                wrote.set()
                if stop.is_set():
                    return

        writer = Thread(target=write)
        writer.start()
        try:
            assert wrote.wait(10)
            with copies.snapshot(database) as db:
                began = read_heads(db)
                copies.copy(db, tmp_path / "copy.db", tmp_path / "copy.db")
            assert writer.is_alive()
        finally:
            stop.set()
            writer.join()
        assert heads_of(tmp_path / "copy.db") == began
        assert store.heads().changes.change_id > began.changes.change_id


def test_backup_of_an_altered_database_is_refused(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A database with a fault has no backup: the error names the check, and no file is left."""
    scribe(database, "a", "b")
    altered = altered_copy(database, database.with_name("altered.db"), ALTERED)
    with pytest.raises(RefusedBackup, match=r"the copy has a fault \(chain: change 1 .*verify"):
        back_up(altered, backup)
    assert names_in(backup.parent) == set()


def test_backup_overwrites_no_file(scribe: Recorder, database: Path, backup: Path) -> None:
    """A file that appears while the copy is made keeps its name and its content."""
    scribe(database, "a")
    backup.write_text("mine")
    with pytest.raises(StoreError, match=r"backup\.db cannot be written \(File exists\)"):
        back_up(database, backup)
    assert backup.read_text() == "mine"
    assert names_in(backup.parent) == {"backup.db"}


def test_missing_database_has_no_backup(database: Path, backup: Path) -> None:
    """Without a database, nothing is created."""
    with pytest.raises(UnusableDatabase, match="there is no database at"):
        back_up(database, backup)
    assert not database.exists()
    assert names_in(backup.parent) == set()


def test_leftover_of_a_killed_backup_is_removed(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """The next backup with the same name removes what a killed one left, but nothing in use."""
    scribe(database, "a")
    left = backup.parent / ".backup.db.abc.partial"
    for ending in ("", "-wal"):
        Path(f"{left}{ending}").write_text("left")
    other = backup.parent / ".other.db.abc.partial"
    other.write_text("of another backup")
    with NewFile(backup) as running:
        back_up(database, backup)
        assert names_in(backup.parent) == {"backup.db", other.name, running.path.name}
    assert names_in(backup.parent) == {"backup.db", other.name}


# --- restore --------------------------------------------------------------------------------------


def test_restore_puts_a_copy_in_place(scribe: Recorder, database: Path, backup: Path) -> None:
    """A restored database has the record of the backup and a new id, and recording goes on."""
    heads = scribe(database, "a", "b")
    back_up(database, backup)
    old = id_of(database)
    database.chmod(0o640)
    restored = restore(backup, database)
    assert restored.heads == heads == heads_of(database)
    assert restored.kept == database.with_name("tagsync.db.before-restore")
    assert (id_of(restored.kept), id_of(backup)) == (old, old)
    assert id_of(database) != old
    assert database.stat().st_mode & 0o777 == 0o640
    scribe(database, "c")
    assert_history_is_whole(database)
    assert heads_of(restored.kept) == heads


def test_restore_skips_the_events_that_wait(scribe: Recorder, database: Path, backup: Path) -> None:
    """Each destination goes on after the newest event; the backup stays as it is."""
    scribe(database, "a", "b", "c")
    with Store.open(database) as store:
        outbox = store.outbox
        for name, after in (("done", 3), ("ops", 1), ("new", 2)):
            outbox.add(name, after)
        assert outbox.acquire("ops", "me", "2026-05-03T12:00:00.000Z", "2099-05-03T12:00:00.000Z")
        assert outbox.begin("ops", "me", [2, 3])
        assert outbox.refuse("ops", "me", "no", "2026-05-03T12:00:00.000Z", "2099-01-01")
    back_up(database, backup)
    rows = "SELECT * FROM destinations ORDER BY name"
    assert query(backup, rows) == query(database, rows)
    assert restore(backup, database).skipped == [("new", 3, 3), ("ops", 2, 3)]
    columns = "name, cursor, sequence, batch, lease_holder, lease_until, failures, failing_since"
    assert query(database, f"SELECT {columns}, last_error, retry_at FROM destinations") == [
        (name, 3, 0, None, None, None, 0, None, None, None) for name in ("done", "ops", "new")
    ]
    assert query(backup, "SELECT batch FROM destinations WHERE name = 'ops'") == [("[2,3]",)]


def test_older_backup_is_refused(scribe: Recorder, database: Path, backup: Path) -> None:
    """A backup that lacks changes is refused, and restored with force; nothing is lost."""
    scribe(database, "a", "b")
    old = back_up(database, backup)
    new = scribe(database, "c")
    with pytest.raises(RefusedBackup, match=r"ends with change 2 of 3 and observation 1 of 2: "):
        restore(backup, database)
    assert heads_of(database) == new
    restored = restore(backup, database, force=True)
    assert restored.kept is not None
    assert (heads_of(database), heads_of(restored.kept)) == (old, new)
    assert_history_is_whole(database)
    assert_history_is_whole(restored.kept)


def test_backup_with_fewer_ended_observations_is_refused(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A backup with the same changes, but fewer observations that have ended, is older."""
    scribe(database, "a", "b")
    back_up(database, backup)
    with Store.open(database) as store:
        store.end_past_observations("2027-01-01")
    with pytest.raises(RefusedBackup, match="ends with change 2 of 2 and observation 1 of 2"):
        restore(backup, database)


def test_backup_of_another_history_is_refused(
    scribe: Recorder, database: Path, backup: Path, tmp_path: Path
) -> None:
    """A backup of another database is refused, even if it has more changes."""
    scribe(database, "a")
    scribe(tmp_path / "other.db", "b", "c")
    back_up(tmp_path / "other.db", backup)
    with pytest.raises(RefusedBackup, match=r"does not continue the history of .*hash chains"):
        restore(backup, database)
    assert restore(backup, database, force=True).heads.changes.change_id == 2


def test_backup_without_a_given_head_is_refused(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A backup has to contain the given heads; with force it may lack them."""
    scribe(database, "a")
    heads = back_up(database, backup)
    later = scribe(database, "b").changes.hash
    database.unlink()
    with pytest.raises(RefusedBackup, match=f"every given head .*{later}.* use --force"):
        restore(backup, database, [heads.changes.hash, later])
    assert not database.exists()
    assert restore(backup, database, [heads.changes.hash]).kept is None
    assert restore(backup, database, [later], force=True).heads == heads


def test_backup_with_one_other_byte_is_refused(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A backup in which one byte of a change differs is refused, also with force."""
    heads = scribe(database, "abcdef", "b")
    back_up(database, backup)
    content = backup.read_bytes()
    backup.write_bytes(content.replace(b"sha256:abcdef", b"sha256:abcdeg", 1))
    assert backup.read_bytes() != content
    for force in (False, True):
        with pytest.raises(RefusedBackup, match=r"has a fault \(.*\): restore another backup"):
            restore(backup, database, force=force)
    assert heads_of(database) == heads
    assert not any(name.endswith(".before-restore") for name in names_in(database.parent))


@pytest.mark.parametrize("text", ["", "no database at all " * 100])
def test_file_that_is_no_backup_is_refused(
    text: str, scribe: Recorder, database: Path, backup: Path
) -> None:
    """A file that is no database of tagsync is refused, also with force."""
    heads = scribe(database, "a")
    backup.write_text(text)
    sentence = (
        r"backup\.db cannot be restored \(.+backup\.db is (empty|not a SQLite database): .+\):"
        r" name a file that tagsync backup made$"
    )
    with pytest.raises(RefusedBackup, match=sentence):
        restore(backup, database, force=True)
    assert heads_of(database) == heads


def test_folder_is_not_replaced(scribe: Recorder, backup: Path, tmp_path: Path) -> None:
    """If the path of the database is a folder by mistake, it stays, also with force."""
    scribe(tmp_path / "mine.db", "a")
    back_up(tmp_path / "mine.db", backup)
    folder = tmp_path / "folder"
    folder.mkdir()
    before = names_in(tmp_path)
    with pytest.raises(UnusableDatabase, match=r"folder is a folder: set store\.path to a file"):
        restore(backup, folder, force=True)
    assert folder.is_dir()
    assert names_in(tmp_path) == before


def test_restore_waits_for_no_daemon(scribe: Recorder, database: Path, backup: Path) -> None:
    """While a daemon runs, a restore is refused and names its process."""
    scribe(database, "a")
    back_up(database, backup)
    with DaemonLock(database), pytest.raises(DatabaseInUse, match=f"process {os.getpid()}"):
        restore(backup, database, force=True)


def test_restore_is_refused_while_a_process_writes(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """While another process is in a transaction, a restore is refused after a few seconds."""
    scribe(database, "a")
    back_up(database, backup)
    with WriterLock(database, 1), pytest.raises(DatabaseLocked, match="locked for too long"):
        restore(backup, database, force=True, writer_timeout=0.01)


@pytest.mark.parametrize("writes", [True, False])
def test_restore_is_refused_while_the_database_is_open(
    writes: bool, scribe: Recorder, database: Path, backup: Path
) -> None:
    """A process that has the database open, even only to read, keeps it from being replaced."""
    heads = scribe(database, "a")
    back_up(database, backup)
    with (
        Store.open(database) if writes else nullcontext(),
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader,
    ):
        assert reader.execute("SELECT count(*) FROM changes").fetchone() == (1,)
        with pytest.raises(DatabaseInUse, match="is open in another process: stop"):
            restore(backup, database, force=True)
        assert reader.execute("SELECT count(*) FROM changes").fetchone() == (1,)
    assert heads_of(database) == heads
    assert not any("restore" in name or "partial" in name for name in names_in(database.parent))


def test_second_restore_keeps_the_first_one(scribe: Recorder, database: Path, backup: Path) -> None:
    """Each database that was replaced stays, under a name with a number."""
    scribe(database, "a")
    back_up(database, backup)
    for number in ("", "-2", "-3"):
        kept = restore(backup, database).kept
        assert kept == database.with_name(f"tagsync.db.before-restore{number}")
    kept_ids = {id_of(path) for path in database.parent.glob("*.before-restore*")}
    assert len(kept_ids | {id_of(database)}) == 4


def test_name_that_a_killed_restore_left_is_used_again(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A restore that was killed before it replaced the database leaves only a second name."""
    heads = scribe(database, "a")
    back_up(database, backup)
    kept = database.with_name("tagsync.db.before-restore")
    os.link(database, kept)
    assert restore(backup, database).kept == kept
    assert heads_of(kept) == heads
    assert not kept.samefile(database)


def test_damaged_database_is_kept_with_its_wal(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """A database that cannot be read is replaced only with force, and its WAL is kept with it."""
    scribe(database, "a")
    heads = back_up(database, backup)
    database.write_bytes(b"damaged " * 1000)
    wal = Path(f"{database}-wal")
    wal.write_bytes(b"the WAL")
    with pytest.raises(RefusedBackup, match=r"cannot be compared .* is not a SQLite database"):
        restore(backup, database)
    kept = restore(backup, database, force=True).kept
    assert kept is not None
    assert kept.read_bytes() == b"damaged " * 1000
    assert Path(f"{kept}-wal").read_bytes() == b"the WAL"
    assert not wal.exists()
    assert heads_of(database) == heads
    assert_history_is_whole(database)


def test_database_of_another_program_is_replaced_only_with_force(
    scribe: Recorder, database: Path, backup: Path, tmp_path: Path
) -> None:
    """A database of another program is not taken for an empty one."""
    scribe(tmp_path / "mine.db", "a")
    back_up(tmp_path / "mine.db", backup)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    with pytest.raises(RefusedBackup, match="is a database of another program"):
        restore(backup, database)
    kept = restore(backup, database, force=True).kept
    assert kept is not None
    assert query(kept, "SELECT count(*) FROM theirs") == [(0,)]


def test_restore_through_a_link_replaces_its_target(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """If the database is named by a symbolic link, the link stays."""
    heads = scribe(database, "a")
    back_up(database, backup)
    link = database.with_name("link.db")
    link.symlink_to(database)
    old = id_of(database)
    assert restore(backup, link).heads == heads
    assert link.is_symlink()
    assert id_of(database) != old


def test_verification_accepts_a_restored_database(
    scribe: Recorder, database: Path, backup: Path
) -> None:
    """After a restore, all checks pass, with both heads that the backup had."""
    scribe(database, "a", "b", "c")
    heads = back_up(database, backup)
    restore(backup, database)
    with Audit.open(database) as audit:
        rows = list(audit.verify([heads.changes.hash, heads.observations.hash]))
    assert {row["result"] for row in rows} == {"ok"}
