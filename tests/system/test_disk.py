"""Read-only folders, full disks and closed streams: one sentence, and no loss."""

import grp
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from tagsync.emulator import Emulator
from tests.support import processes
from tests.support.commands import (
    Finished,
    command,
    configure,
    contents,
    environment,
    error_line,
    rows_of,
    run_command,
    tagsync,
    unprivileged,
)
from tests.support.record import assert_history_is_whole, query

pytestmark = pytest.mark.processes

QUESTIONS = ("status", "tags", "log", "coverage", "verify", "find abcdef", "diff * --from 2h")


@pytest.fixture
def polled(swr: Emulator, tmp_path: Path) -> Path:
    """A folder with a configuration and the database of one pass."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.fixture
def read_only(polled: Path) -> Iterator[Path]:
    """The same folder, where neither folder nor database may be written."""
    (polled / "tagsync.db").chmod(0o444)
    polled.chmod(0o555)
    yield polled
    polled.chmod(0o755)


def test_pass_over_a_read_only_database_is_refused(read_only: Path) -> None:
    """If folder and database are read-only, a pass fails and changes no byte."""
    before = contents(read_only)
    finished = unprivileged("sync", cwd=read_only)
    assert "tagsync.db cannot be written by this user" in error_line(finished, 1)
    assert contents(read_only) == before


@pytest.mark.parametrize("words", QUESTIONS)
def test_read_only_database_can_be_queried(words: str, read_only: Path) -> None:
    """Every query works on a read-only database and leaves no file behind."""
    before = contents(read_only)
    finished = unprivileged(*words.split(), cwd=read_only)
    assert finished.returncode == 0
    assert finished.stderr == ""
    assert contents(read_only) == before


def test_first_pass_in_a_read_only_folder_is_refused(swr: Emulator, tmp_path: Path) -> None:
    """Without a database, a pass in a read-only folder fails with one sentence."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    tmp_path.chmod(0o555)
    try:
        finished = unprivileged("sync", cwd=tmp_path)
        assert "tagsync.db cannot be opened" in error_line(finished, 1)
    finally:
        tmp_path.chmod(0o755)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_unreadable_database_is_refused(polled: Path) -> None:
    """A database that the user may not read exits with 1 and one sentence."""
    (polled / "tagsync.db").chmod(0)
    sentence = error_line(unprivileged("tags", cwd=polled), 1)
    assert "tagsync.db cannot be read by this user" in sentence


def test_user_outside_the_group_is_told_its_name(polled: Path) -> None:
    """If members of a group may read the database, the error names the group, and only then."""
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can give a file to another group")
    database, group = polled / "tagsync.db", grp.getgrnam("games")
    os.chown(database, 12345, group.gr_gid)
    database.chmod(0o640)
    sentence = error_line(unprivileged("tags", cwd=polled), 1)
    assert "cannot be read by this user: members of the group games may read it" in sentence
    assert "usermod --append --groups games USER" in sentence
    database.chmod(0o600)
    assert "check its owner" in error_line(unprivileged("tags", cwd=polled), 1)
    folder = polled / "state"
    folder.mkdir()
    database.rename(folder / "tagsync.db")
    os.chown(folder, 12345, group.gr_gid)
    folder.chmod(0o750)
    (polled / "config.toml").write_text("")
    finished = unprivileged("tags", cwd=polled, STATE_DIRECTORY=str(folder))
    assert "members of the group games may read it" in error_line(finished, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tagsync-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_leaves_the_database_whole(swr: Emulator, small_disk: Path) -> None:
    """On a full disk nothing of a poll is recorded; with space again, all of it is."""
    swr.push("team/api", "v0", "zero")
    configure(small_disk, swr.url, "team/api")
    assert tagsync("sync", cwd=small_disk).returncode == 0
    filler = small_disk / "filler"
    for number in range(1, 400):
        swr.push("team/api", f"v{number}", str(number))
    with filler.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
        file.write(bytes(free - 100_000))
    finished = tagsync("sync", cwd=small_disk)
    assert "no space is left for" in error_line(finished, 1)
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(1,)]
    filler.unlink()
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM tags") == [(400,)]
    assert_history_is_whole(small_disk / "tagsync.db")


def test_daemon_reports_the_recovery_from_a_full_disk(swr: Emulator, small_disk: Path) -> None:
    """Once there is space again, the log has the number of failures, which none recorded."""
    swr.push("team/api", "v0", "zero")
    listed = processes.registry("swr", swr.url, "team/api")
    processes.configure(small_disk, listed, interval="200ms")
    process = processes.Process(small_disk)
    try:
        process.await_event("repository.baselined")
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        for number in range(1, 400):
            swr.push("team/api", f"v{number}", str(number))
        failed = process.await_event("sync.failed")
        assert "no space is left" in failed["error"]
        filler.unlink()
        recovered = process.await_event("sync.recovered")
        assert recovered["failures"] >= 1
    finally:
        process.stop()


def test_wal_without_room_for_a_checkpoint_loses_nothing(swr: Emulator, small_disk: Path) -> None:
    """If a checkpoint does not fit on the disk, the WAL keeps everything."""
    for number in range(900):
        swr.push("team/api", f"v{number}", str(number))
    configure(small_disk, swr.url, "team/api")
    wal = small_disk / "tagsync.db-wal"
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert wal.exists()
    assert tagsync("verify", cwd=small_disk).returncode == 0
    swr.push("team/api", "latest", "latest")
    finished = tagsync("sync", cwd=small_disk)
    assert "no space is left for" in error_line(finished, 1)
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(900,)]
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert not wal.exists()
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(901,)]
    assert_history_is_whole(small_disk / "tagsync.db")


# --- standard output and standard error ----------------------------------------------------------


@pytest.fixture
def full() -> Iterator[IO[str]]:
    """A stream on which every write fails because the disk is full."""
    with Path("/dev/full").open("w") as stream:
        yield stream


def run(
    *arguments: object,
    cwd: Path,
    stdout: IO[str] | int = subprocess.PIPE,
    stderr: IO[str] | int = subprocess.PIPE,
) -> Finished:
    """Run tagsync with these streams, and wait for its exit."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("words", ["tags", "log --format csv", "status --format json", "--help"])
def test_unwritable_output_is_an_error(words: str, polled: Path, full: IO[str]) -> None:
    """If standard output cannot be written, the command exits with 1."""
    finished = run(*words.split(), cwd=polled, stdout=full)
    assert finished.returncode == 1
    assert (
        finished.stderr == "tagsync: standard output cannot be written: No space left on device\n"
    )


def test_unwritable_error_keeps_the_exit_status(polled: Path, full: IO[str]) -> None:
    """If standard error cannot be written, the exit status stays the same."""
    assert (
        run("--config", "nope.toml", "tags", cwd=polled, stdout=full, stderr=full).returncode == 2
    )


def test_unwritten_log_lines_stay_pending(swr: Emulator, polled: Path, full: IO[str]) -> None:
    """A pass that cannot log exits with 1, and the next pass writes the lines."""
    swr.push("team/api", "v2", "two")
    finished = run("sync", "--format", "json", cwd=polled, stderr=full)
    assert finished.returncode == 1
    assert rows_of(finished)[0]["added"] == 1
    finished = tagsync("sync", cwd=polled)
    events = [json.loads(line) for line in finished.stderr.splitlines()]
    assert [event["tag"] for event in events if event["event"] == "tag.added"] == ["v2"]
    again = tagsync("sync", cwd=polled)
    assert "tag.added" not in again.stderr


def test_daemon_records_while_the_log_is_unwritable(
    swr: Emulator, polled: Path, full: IO[str]
) -> None:
    """The daemon keeps running and recording while its log cannot be written."""
    path = polled / "config.toml"
    path.write_text(path.read_text() + 'interval = "1s"\njitter = "1ms"\n')
    swr.push("team/api", "v2", "two")
    process = subprocess.Popen(
        command("run"),
        cwd=polled,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=full,
    )
    try:
        count = "SELECT count(*) FROM tags"
        wait_until(lambda: query(polled / "tagsync.db", count) == [(2,)], process)
        swr.push("team/api", "v3", "three")
        wait_until(lambda: query(polled / "tagsync.db", count) == [(3,)], process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.wait()
    owed = tagsync("sync", cwd=polled).stderr
    assert owed.count('"event": "tag.added"') == 2


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll a condition while a process runs, for at most 20 seconds."""
    end = time.monotonic() + 20
    while not true():
        assert process.poll() is None, "the daemon exited"
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [">&-", "2>&-"])
def test_closed_stream_is_not_an_error(stream: str, polled: Path) -> None:
    """A command succeeds without standard output or standard error."""
    script = f'"$@" {stream}'
    finished = run_command(["sh", "-c", script, "sh", *command("tags")], polled)
    assert (finished.returncode, finished.stderr) == (0, "")
