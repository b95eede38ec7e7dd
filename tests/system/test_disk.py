"""Folders, disks and streams that take nothing more: said in a sentence, and nothing is lost."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tagsync.emulator import Emulator
from tests.polling.test_poll import assert_history_is_whole
from tests.system.test_cli import (
    Finished,
    command,
    configure,
    contents,
    environment,
    query,
    rows_of,
    tagsync,
    the_sentence,
    to_its_end,
)

pytestmark = pytest.mark.processes

QUESTIONS = ("status", "tags", "log", "coverage", "verify", "find abcdef", "diff * --from 2h")

_WITHOUT_PRIVILEGE = [
    *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
    *("--inh-caps", "-dac_override,-dac_read_search"),
]
"""Root is asked for permissions as anybody is, by the capabilities that it lacks."""


@pytest.fixture
def swr() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def polled(swr: Emulator, tmp_path: Path) -> Path:
    """A folder with a configuration, and a database of one pass."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    return tmp_path


def unprivileged(*arguments: object, cwd: Path) -> Finished:
    """Runs tagsync as somebody whom permissions bind, also where the tests run as root."""
    prefix = _WITHOUT_PRIVILEGE if os.geteuid() == 0 else []
    return to_its_end([*prefix, *command(*arguments)], cwd)


@pytest.fixture
def read_only(polled: Path) -> Iterator[Path]:
    """The same, where neither the folder nor the database may be written."""
    (polled / "tagsync.db").chmod(0o444)
    polled.chmod(0o555)
    yield polled
    polled.chmod(0o755)


def test_a_pass_over_what_may_not_be_written_is_refused(read_only: Path) -> None:
    """Where folder and database are read-only a pass is one sentence, and no byte changes."""
    before = contents(read_only)
    finished = unprivileged("sync", cwd=read_only)
    assert "tagsync.db may not be written by this user" in the_sentence(finished, 1)
    assert contents(read_only) == before


@pytest.mark.parametrize("words", QUESTIONS)
def test_what_may_not_be_written_is_answered_from(words: str, read_only: Path) -> None:
    """Every question is answered by who may only read, and leaves nothing behind."""
    before = contents(read_only)
    finished = unprivileged(*words.split(), cwd=read_only)
    assert finished.returncode == 0
    assert finished.stderr == "" or (
        words.startswith("find") and "no tag leads to" in finished.stderr
    )
    assert contents(read_only) == before


def test_a_first_pass_where_no_file_may_be_made(swr: Emulator, tmp_path: Path) -> None:
    """Without a database, in a folder that takes none, a pass is one sentence."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    tmp_path.chmod(0o555)
    try:
        finished = unprivileged("sync", cwd=tmp_path)
        assert "tagsync.db cannot be opened" in the_sentence(finished, 2)
    finally:
        tmp_path.chmod(0o755)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_what_may_not_be_read_is_refused(polled: Path) -> None:
    """A database that this user may not even read is status 2 and one sentence."""
    (polled / "tagsync.db").chmod(0)
    sentence = the_sentence(unprivileged("tags", cwd=polled), 2)
    assert "tagsync.db may not be read by this user" in sentence


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


def test_a_disk_that_is_full_leaves_the_database_whole(swr: Emulator, small_disk: Path) -> None:
    """Where no space is left nothing of a poll is recorded; with space again, all of it is."""
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
    assert "no space is left for" in the_sentence(finished, 1)
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(1,)]
    filler.unlink()
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM tags") == [(400,)]
    assert_history_is_whole(small_disk / "tagsync.db")


def test_a_disk_with_no_room_to_copy_the_wal_loses_nothing(swr: Emulator, small_disk: Path) -> None:
    """What was recorded there stays in the WAL, and with more room goes into the database."""
    for number in range(900):
        swr.push("team/api", f"v{number}", str(number))
    configure(small_disk, swr.url, "team/api")
    wal = small_disk / "tagsync.db-wal"
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert wal.exists()
    assert tagsync("verify", cwd=small_disk).returncode == 0
    swr.push("team/api", "latest", "latest")
    finished = tagsync("sync", cwd=small_disk)
    assert "no space is left for" in the_sentence(finished, 1)
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(900,)]
    subprocess.run(["mount", "-o", "remount,size=9m", str(small_disk)], check=True)
    assert tagsync("sync", cwd=small_disk).returncode == 0
    assert not wal.exists()
    assert query(small_disk / "tagsync.db", "SELECT count(*) FROM changes") == [(901,)]
    assert_history_is_whole(small_disk / "tagsync.db")


# --- standard output and standard error ----------------------------------------------------------


@pytest.fixture
def full() -> Iterator[IO[str]]:
    """A stream on which every write finds the disk full."""
    with Path("/dev/full").open("w") as stream:
        yield stream


def run(
    *arguments: object,
    cwd: Path,
    stdout: IO[str] | int = subprocess.PIPE,
    stderr: IO[str] | int = subprocess.PIPE,
) -> Finished:
    """Runs tagsync to its end, with streams of one's own."""
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
def test_an_answer_that_cannot_be_written_is_said(words: str, polled: Path, full: IO[str]) -> None:
    """A full disk under standard output is one sentence and status 1."""
    finished = run(*words.split(), cwd=polled, stdout=full)
    assert finished.returncode == 1
    assert (
        finished.stderr == "tagsync: standard output cannot be written: No space left on device\n"
    )


def test_a_complaint_that_cannot_be_written_keeps_its_status(polled: Path, full: IO[str]) -> None:
    """With nowhere to complain the status still tells what was wrong."""
    assert (
        run("--config", "nope.toml", "tags", cwd=polled, stdout=full, stderr=full).returncode == 2
    )


def test_what_cannot_be_logged_is_recorded_and_stays_owed(
    swr: Emulator, polled: Path, full: IO[str]
) -> None:
    """A pass that cannot log ends with status 1, and the next one writes the lines it owed."""
    swr.push("team/api", "v2", "two")
    finished = run("sync", "--format", "json", cwd=polled, stderr=full)
    assert finished.returncode == 1
    assert rows_of(finished)[0]["added"] == 1
    finished = tagsync("sync", cwd=polled)
    events = [json.loads(line) for line in finished.stderr.splitlines()]
    assert [event["tag"] for event in events if event["event"] == "tag.added"] == ["v2"]
    again = tagsync("sync", cwd=polled)
    assert "tag.added" not in again.stderr


def test_the_daemon_records_while_nothing_can_be_logged(
    swr: Emulator, polled: Path, full: IO[str]
) -> None:
    """A full disk under the log neither ends the daemon nor keeps it from recording."""
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
    """Looks again and again, for a bounded time, at what another process does."""
    end = time.monotonic() + 20
    while not true():
        assert process.poll() is None, "the daemon ended"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("stream", [">&-", "2>&-"])
def test_a_closed_stream_is_nobody_who_reads(stream: str, polled: Path) -> None:
    """Started without standard output or error, a command does what it does and ends well."""
    script = f'"$@" {stream}'
    finished = to_its_end(["sh", "-c", script, "sh", *command("tags")], polled)
    assert (finished.returncode, finished.stderr) == (0, "")
