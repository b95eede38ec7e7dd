"""Backup and restore as real processes: beside a daemon, killed, and on a full disk."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tests.support.commands import (
    command,
    configure,
    environment,
    error_line,
    rows_of,
    run_command,
    tagsync,
    unprivileged,
)
from tests.support.processes import Process, registry
from tests.support.processes import configure as configure_daemon
from tests.support.record import assert_history_is_whole, query

pytestmark = pytest.mark.processes

KILLS = 12
"""How often each of the tests below kills a process, at least."""

ENDLESS_BACKUP = """
import sys
from itertools import count
from pathlib import Path
from tagsync.audit.backup import back_up
for number in count():
    back_up(Path("tagsync.db"), Path(f"backup-{number}.db"))
    print("done", flush=True)
"""
ENDLESS_RESTORE = """
import sys
from itertools import cycle
from pathlib import Path
from tagsync.audit.backup import restore
for name in cycle(("one.db", "two.db")):
    restore(Path(name), Path("tagsync.db"), force=True).kept.unlink()
    print("done", flush=True)
"""


@pytest.fixture
def recorded(swr: Emulator, tmp_path: Path) -> Path:
    """A folder with a configuration, and a database with some changes."""
    for number in range(20):
        swr.push("team/api", f"v{number}", str(number))
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    return tmp_path


def kill_at_random(program: str, folder: Path, random: Random, times: int = 1) -> None:
    """Run a program until it has done its work some times, and kill it a little later."""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(times):
            assert process.stdout.readline() == b"done\n"
        time.sleep(random.uniform(0, 0.15))
        process.kill()


def test_backup_beside_a_daemon_that_writes(
    swr: Emulator, tmp_path: Path, run: Callable[..., Process]
) -> None:
    """A backup has each change that was logged before it, and nothing is restored meanwhile."""
    swr.push("team/api", "v0", "0")
    configure_daemon(tmp_path, registry("swr", swr.url, "team/api"))
    daemon = run()
    daemon.await_event("repository.baselined")
    for number in range(1, 5):
        swr.push("team/api", f"v{number}", str(number))
        logged = daemon.await_event("tag.added", tag=f"v{number}")
        finished = tagsync("backup", f"b{number}.db", "--format", "json", cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        changes, observations = rows_of(finished)
        assert (changes["chain"], observations["chain"]) == ("changes", "observations")
        copy = tmp_path / f"b{number}.db"
        found = query(copy, "SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1")
        assert found == [(changes["id"], changes["hash"])]
        assert changes["id"] >= logged["change_id"]
        assert_history_is_whole(copy)
    sentence = error_line(tagsync("restore", "b4.db", "--force", cwd=tmp_path), 1)
    assert f"in use by a daemon, process {daemon.popen.pid}: stop" in sentence
    assert daemon.stop() == 0


def test_daemon_goes_on_after_a_restore(
    swr: Emulator, recorded: Path, run: Callable[..., Process]
) -> None:
    """After a restore by the book, `verify` passes with the printed heads, and polls go on."""
    heads = rows_of(tagsync("backup", "b.db", "--format", "json", cwd=recorded))
    swr.push("team/api", "later", "later")
    assert tagsync("sync", cwd=recorded).returncode == 0
    sentence = error_line(tagsync("restore", "b.db", cwd=recorded), 1)
    assert "b.db is older than" in sentence
    given = [word for row in heads for word in ("--head", row["hash"])]
    finished = tagsync("restore", "b.db", "--force", *given, cwd=recorded)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == (
        "tagsync.db has 20 changes and 0 ended observations from b.db. The database that was there"
        " before is tagsync.db.before-restore.\n"
    )
    assert tagsync("verify", *given, cwd=recorded).returncode == 0
    configure_daemon(recorded, registry("swr", swr.url, "team/api"))
    daemon = run()
    daemon.await_event("tag.added", tag="later", change_id=21)
    assert daemon.stop() == 0
    assert tagsync("verify", *given, cwd=recorded).returncode == 0
    assert_history_is_whole(recorded / "tagsync.db")


def test_restore_names_the_notifications_that_it_skips(swr: Emulator, recorded: Path) -> None:
    """The result has a sentence for each destination for which an event waits."""
    swr.push("team/api", "later", "later")
    assert tagsync("sync", cwd=recorded).returncode == 0
    with Store.open(recorded / "tagsync.db") as store:
        for name, after in (("ops", 1), ("team", 0), ("done", 2)):
            store.outbox.add(name, after)
    assert tagsync("backup", "waiting.db", cwd=recorded).returncode == 0
    finished = tagsync("restore", "waiting.db", cwd=recorded)
    assert finished.stdout.splitlines()[1:] == [
        f"{name} will not be sent {what} of the backup: tagsync notify replay {name} --since {how}."
        for name, what, how in (
            ("ops", "event 2", "2 sends it"),
            ("team", "events 1 to 2", "1 sends them"),
        )
    ]


def test_restore_is_refused_while_a_reader_has_the_database(recorded: Path) -> None:
    """A program that reads the database keeps it from being replaced."""
    assert tagsync("backup", "b.db", cwd=recorded).returncode == 0
    with closing(sqlite3.connect(recorded / "tagsync.db")) as reader:
        assert reader.execute("SELECT count(*) FROM changes").fetchone() == (20,)
        sentence = error_line(tagsync("restore", "b.db", "--force", cwd=recorded), 1)
    assert "tagsync.db is open in another process: stop every tagsync" in sentence
    assert tagsync("restore", "b.db", cwd=recorded).returncode == 0


def test_backup_with_a_flipped_byte_is_refused(recorded: Path) -> None:
    """A backup that is not as it was made is refused in one sentence, also with force."""
    assert tagsync("backup", "b.db", cwd=recorded).returncode == 0
    path = recorded / "b.db"
    content = bytearray(path.read_bytes())
    content[content.index(b"sha256:") + 10] ^= 1
    path.write_bytes(content)
    for options in ([], ["--force"]):
        sentence = error_line(tagsync("restore", "b.db", *options, cwd=recorded), 1)
        assert sentence.startswith("tagsync: b.db has a fault (")
        assert sentence.endswith("): restore another backup")


def test_auditor_can_make_a_backup(recorded: Path, tmp_path: Path) -> None:
    """A user who may only read the database can back it up, and changes nothing beside it."""
    database = recorded / "tagsync.db"
    (tmp_path / "mine").mkdir()
    database.chmod(0o444)
    recorded.chmod(0o555)
    before = names_in(recorded)
    try:
        finished = unprivileged("backup", "mine/b.db", cwd=recorded)
    finally:
        recorded.chmod(0o755)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert names_in(recorded) == before
    assert (tmp_path / "mine" / "b.db").stat().st_mode & 0o777 == 0o444
    assert_history_is_whole(tmp_path / "mine" / "b.db")


def test_killed_backup_leaves_no_half_file(recorded: Path) -> None:
    """Whenever a backup is killed, each file with the name of a backup is whole."""
    random = Random(23)
    for _ in range(KILLS):
        kill_at_random(ENDLESS_BACKUP, recorded, random)
        made = list(recorded.glob("backup-*.db"))
        assert made
        for backup in made:
            assert_history_is_whole(backup)
            backup.unlink()
    assert tagsync("sync", cwd=recorded).returncode == 0
    assert_history_is_whole(recorded / "tagsync.db")


def test_killed_restore_leaves_either_database(swr: Emulator, recorded: Path) -> None:
    """Whenever a restore is killed, the old database is in place, or the new one, whole."""
    assert tagsync("backup", "one.db", cwd=recorded).returncode == 0
    swr.push("team/api", "more", "more")
    assert tagsync("sync", cwd=recorded).returncode == 0
    assert tagsync("backup", "two.db", cwd=recorded).returncode == 0
    database, random, seen = recorded / "tagsync.db", Random(5), set()
    for number in count(1):
        # On a slow machine, the last restore that is done is also the last one that began.
        kill_at_random(ENDLESS_RESTORE, recorded, random, times=1 + number % 2)
        assert_history_is_whole(database)
        seen.add(query(database, "SELECT count(*) FROM changes")[0][0])
        assert not Path(f"{database}-wal").exists()
        if number >= KILLS and (seen == {20, 21} or number >= 5 * KILLS):
            break
    assert seen == {20, 21}
    for kept in recorded.glob("*.before-restore*"):
        assert_history_is_whole(kept)
    assert tagsync("restore", "two.db", cwd=recorded).returncode == 0
    assert not list(recorded.glob(".*.partial"))
    assert tagsync("sync", cwd=recorded).returncode == 0
    assert_history_is_whole(database)


def limited(size: int) -> Callable[[], None]:
    """Return a function that limits the size of the files that a process may write."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("words", [["backup", "b2.db"], ["restore", "b.db"]])
def test_file_that_cannot_grow_leaves_nothing(words: list[str], recorded: Path) -> None:
    """If a copy cannot be written whole, one sentence says so, and no half file is left."""
    assert tagsync("backup", "b.db", cwd=recorded).returncode == 0
    before = names_in(recorded)
    finished = subprocess.run(
        command(*words),
        cwd=recorded,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=limited(60_000),
    )
    assert "cannot be read or written (disk I/O error)" in error_line(finished, 1)
    assert names_in(recorded) - before <= {"tagsync.db.daemon-lock"}
    assert_history_is_whole(recorded / "tagsync.db")


def test_full_disk_leaves_no_half_backup(recorded: Path, tmp_path: Path) -> None:
    """On a full disk a backup fails in one sentence, and leaves the disk as it was."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tagsync-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        sentence = error_line(tagsync("backup", folder / "b.db", cwd=recorded), 1)
        assert sentence.startswith(f"tagsync: no space is left for {folder}/b.db: ")
        assert names_in(folder) == set()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_restored_database_belongs_to_the_service(recorded: Path) -> None:
    """If root restores, the files belong to the owner of the database, who can go on."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    assert tagsync("backup", "b.db", cwd=recorded).returncode == 0
    for name in ("tagsync.db.daemon-lock", "tagsync.db.writer-lock"):
        (recorded / name).unlink(missing_ok=True)
    for path in (recorded, recorded / "tagsync.db"):
        os.chown(path, 12345, 12346)
    (recorded / "tagsync.db").chmod(0o640)
    strict = ["sh", "-c", 'umask 077 && "$@"', "sh"]
    finished = run_command([*strict, *command("restore", "b.db")], recorded)
    assert finished.returncode == 0, finished.stderr
    for name in ("tagsync.db", "tagsync.db.daemon-lock", "tagsync.db.writer-lock"):
        status = (recorded / name).stat()
        assert (status.st_uid, status.st_gid) == (12345, 12346), name
    assert (recorded / "tagsync.db").stat().st_mode & 0o777 == 0o640
