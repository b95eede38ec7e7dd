"""The daemon as a real process: signals, service manager, log, database."""

import fcntl
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import error_line, tagsync
from tests.support.processes import WITHIN, Process, configure, free_port, registry
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


@pytest.fixture
def hanging() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_failed_start_is_reported_to_the_manager(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """Before the daemon exits, the status of the service says why it could not start."""
    configure(tmp_path, more="nonsense = 1")
    process = run()
    assert process.popen.wait(WITHIN) == 2
    assert "nonsense" in process.await_message("STATUS=Not running: ")


def test_a_life(tmp_path: Path, run: Callable[..., Process], hanging: str) -> None:
    """Start, change, reload, rejected reload, hanging registry, watchdog, stop."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        swr.push("team/web", "v1", "one")
        configure(tmp_path, registry("swr", swr.url, "team/api"))
        process = run()
        ready = process.await_message("READY=1")
        assert "STATUS=Watching 1 repositories in 1 registries" in ready
        process.await_event("repository.baselined", repository="swr/team/api", tags=1)

        moved = swr.push("team/api", "v1", "two")
        process.await_event("tag.updated", tag="v1", moved=True, new_digest=moved)
        process.await_event("sync.finished", updated=0)

        slow = registry("slow", hanging, *(f"team/r{number}" for number in range(20)))
        configure(tmp_path, registry("swr", swr.url, "team/api", "team/web"), slow)
        process.popen.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in process.await_message("RELOADING=1")
        assert "Watching 22 repositories in 2 registries" in process.await_message("READY=1")
        process.await_event("config.reloaded", repositories=22)
        process.await_event("repository.baselined", repository="swr/team/web")

        (tmp_path / "config.toml").write_text("[schedule]\nintervall = 1\n")
        process.popen.send_signal(signal.SIGHUP)
        process.await_message("RELOADING=1")
        assert "The configuration was not reloaded:" in process.await_message("READY=1")
        rejected = process.await_event("config.rejected")
        assert "there is no key 'intervall'; the nearest is 'interval'" in rejected["error"]

        # One registry hangs with all its threads; the other one and the scheduler go on.
        swr.delete("team/web", "v1")
        swr.push("team/web", "v2", "two")
        process.await_event("tag.added", repository="swr/team/web", tag="v2")
        for _ in range(3):
            assert "STATUS=Watching" in process.await_message("WATCHDOG=1")

        began = time.monotonic()
        status = process.stop()
        assert time.monotonic() - began < 5
        assert status == 0
        witness = process.await_event("history.extended")
        assert process.await_event("daemon.stopped")["abandoned_polls"] > 0
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        changes = connection.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1")
        assert changes.fetchone() == (witness["change_id"], witness["head"])


def test_a_reload_moves_the_endpoint_for_push_hints(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """After a reload the new address and secret count; after a rejected one, they still do."""
    first, second = free_port(), free_port()
    body = b'{"repository": "team/api", "updated_tags": ["v1"]}'

    def write(port: int, secret: str, more: str = "") -> None:
        (tmp_path / "hook-secret").write_text(secret)
        hooks = f'[hooks]\nlisten = "127.0.0.1:{port}"\nsecret = "file:hook-secret"\n'
        watched = registry("swr", swr.url, "team/api")
        configure(tmp_path, watched, interval="1h", more=hooks + more)

    def post(port: int, secret: str) -> int:
        url = f"http://127.0.0.1:{port}/hooks/swr/{secret}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        write(first, "made-up-hook-secret")
        process = run()
        process.await_event("repository.baselined")
        swr.push("team/api", "v1", "two")
        assert post(first, "made-up-hook-secret") == 202
        process.await_event("tag.updated", tag="v1")

        write(second, "made-up-other-secret")
        process.popen.send_signal(signal.SIGHUP)
        process.await_event("config.reloaded")
        with pytest.raises(urllib.error.URLError, match="refused"):
            post(first, "made-up-hook-secret")
        assert post(second, "made-up-hook-secret") == 404
        assert post(second, "made-up-other-secret") == 202

        write(second, "short")
        process.popen.send_signal(signal.SIGHUP)
        assert "fewer than 16 characters" in process.await_event("config.rejected")["error"]
        assert post(second, "made-up-other-secret") == 202
        assert process.stop() == 0


def test_second_daemon_on_a_database_is_refused(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """A second daemon names the first one's process, `sync` goes on, and a kill frees the name."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        configure(tmp_path, registry("swr", swr.url, "team/api"))
        first = run()
        first.await_event("repository.baselined")
        sentence = error_line(tagsync("run", cwd=tmp_path), 1)
        assert f"is in use by a daemon, process {first.popen.pid}: stop that daemon" in sentence
        assert tagsync("sync", cwd=tmp_path).returncode == 0
        first.stop(signal.SIGKILL)
        second = run()
        second.await_event("sync.finished")
        assert second.stop() == 0


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WITHIN) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_metrics_of_a_life(tmp_path: Path, run: Callable[..., Process]) -> None:
    """The metrics agree with what happened, and bad health is a 503 with the reason."""
    port = free_port()
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        swr.push("team/api", "v2", "two")
        listen = f'[metrics]\nlisten = ":{port}"\n'
        configure(tmp_path, registry("swr", swr.url, "team/api"), more=listen)
        process = run()
        process.await_event("sync.finished", tags=2)
        swr.push("team/api", "v1", "three")
        process.await_event("sync.finished", updated=1)
        process.await_event("sync.finished", updated=0)
        status, text = get(port, "/metrics")
        assert status == 200
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert values['tagsync_changes_total{kind="updated",registry="swr"}'] == "1.0"
        assert values['tagsync_changes_total{kind="added",registry="swr"}'] == "2.0"
        assert values['tagsync_polls_total{outcome="failed",registry="swr"}'] == "0.0"
        assert float(values['tagsync_polls_total{outcome="ok",registry="swr"}']) >= 2
        assert float(values['tagsync_listing_size_bytes_sum{registry="swr"}']) > 1000
        assert values['tagsync_tags{registry="swr"}'] == "2.0"
        oldest = values['tagsync_oldest_complete_listing_timestamp_seconds{registry="swr"}']
        assert abs(float(oldest) - time.time()) < 10
        # If no poll ends within three intervals, which are short here, this is a problem.
        eventually(lambda: get(port, "/healthz") == (200, "ok\n"), WITHIN)
        assert get(port, "/elsewhere")[0] == 404
        swr.answer_next(403, {"error_code": "SVCSTG.SWR.4030170"}, times=10_000)
        for _ in range(4):
            process.await_event("sync.failed")
        status, text = get(port, "/healthz")
        assert status == 503
        assert text.startswith("swr/team/api has had no complete listing for three intervals")
        assert "4030170" in text
        path = tmp_path / "config.toml"
        path.write_text(path.read_text().replace("tagsync.db", "second.db"))
        second = run_to_its_end(tmp_path)
        assert second.returncode == 1
        assert (
            f"metrics.listen: the daemon cannot listen on 127.0.0.1, port {port}" in second.stderr
        )


def test_a_database_that_is_deleted_under_the_daemon(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """``/livez`` fails within a poll, no line claims a change, and no file comes back."""
    port = free_port()
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        listen = f'[metrics]\nlisten = ":{port}"\n'
        configure(tmp_path, registry("swr", swr.url, "team/api"), more=listen)
        process = run()
        process.await_event("repository.baselined")
        assert get(port, "/livez") == (200, "ok\n")
        for file in tmp_path.glob("tagsync.db*"):
            file.unlink()
        swr.push("team/api", "v1", "two")
        lost = process.await_event("daemon.database_lost")
        assert get(port, "/livez") == get(port, "/healthz") == (503, f"{lost['error']}\n")
        time.sleep(0.5)  # five polls
        assert process.stop() == 0
    later = [process.events.get() for _ in range(process.events.qsize())]
    assert {entry["event"] for entry in later} <= {"daemon.stopping", "daemon.stopped"}
    assert not (tmp_path / "tagsync.db").exists()


def run_to_its_end(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tagsync", "run"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WITHIN * 3,
        check=False,
    )


WITHOUT_SECRET = """
[[registries]]
name = "swr"
endpoint = "http://127.0.0.1:1"
[registries.auth]
kind = "token"
token = "credential:missing"
[[registries.watch]]
repositories = ["a/b"]
"""


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("", "no repository is configured"),
        (WITHOUT_SECRET, "the secret credential:missing is missing"),
    ],
)
def test_a_useless_configuration_is_rejected(tmp_path: Path, config: str, sentence: str) -> None:
    """A daemon that could not poll anything does not start, and creates no database."""
    (tmp_path / "config.toml").write_text(config)
    finished = run_to_its_end(tmp_path)
    assert finished.returncode == 2
    assert sentence in finished.stderr
    assert not (tmp_path / "tagsync.db").exists()


def test_a_stop_shows_as_a_gap_and_equal_polls_as_one_row(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """Any number of equal polls is one observation; after a stop another one begins."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        # A machine that stands still for twice this interval causes a gap, which is right.
        configure(tmp_path, registry("swr", swr.url, "team/api"), interval="2s")
        before = run()
        for _ in range(4):
            before.await_event("sync.finished")
        assert before.stop(signal.SIGTERM) == 0
        time.sleep(4)  # twice the interval, so that the row ends
        after = run()
        after.await_event("sync.finished")
        assert after.stop(signal.SIGINT) == 0
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection:
        rows = connection.execute(
            "SELECT outcome, polls, first_at, last_at FROM observations ORDER BY id"
        )
        (first, second) = rows.fetchall()
    assert first[0] == second[0] == "ok"
    assert first[1] >= 4
    gap = datetime.fromisoformat(second[2]) - datetime.fromisoformat(first[3])
    assert gap > timedelta(seconds=4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_a_member_of_the_group_reads_beside_the_daemon(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """A member of the group can read the database while it is written and later."""
    sqlite = shutil.which("sqlite3")
    assert sqlite, "Debian's package sqlite3"
    group, auditor = 54321, 54322
    state = tmp_path / "state"
    state.mkdir(mode=0o750)
    os.chown(state, 0, group)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)

    def read(tag: str, uri: str = "") -> str:
        sql = f"SELECT digest FROM current_tags WHERE tag = '{tag}'"
        command = [sqlite, "-readonly", f"file:{state}/tagsync.db{uri}", sql]
        done = subprocess.run(
            command,
            user=auditor,
            group=auditor,
            extra_groups=[group],
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert done.stderr == ""
        return done.stdout.strip()

    with Emulator() as swr:
        first = swr.push("team/api", "v1", "one")
        (tmp_path / "config.toml").write_text(
            '[store]\npath = "state/tagsync.db"\n[schedule]\ninterval = "100ms"\n'
            + registry("swr", swr.url, "team/api")
        )
        process = run(group=group, umask=0o027)
        process.await_event("repository.baselined")
        assert read("v1") == first
        second = swr.push("team/api", "v1", "two")
        process.await_event("tag.updated")
        assert read("v1") == second
        assert process.stop() == 0
    assert read("v1", "?immutable=1") == second
    assert (state / "tagsync.db").stat().st_mode & 0o777 == 0o640


def answer_for_some(connection: socket.socket, over: Event) -> None:
    """Answers as an SWR registry does for repositories with even numbers, for others never."""
    with connection, suppress(OSError):
        while request := connection.recv(65536):
            number = re.search(rb"/repos/r(\d+)/", request)
            if number is None or int(number[1]) % 2:
                over.wait(60)
                return
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            connection.sendall(head + b"[]")


def test_repositories_that_hang_do_not_keep_others_waiting(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """With half of 40 repositories hanging and one thread, the others stay fresh."""
    listener, over = socket.create_server(("127.0.0.1", 0), backlog=64), Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                arguments = listener.accept()[0], over
                Thread(target=answer_for_some, args=arguments, daemon=True).start()

    Thread(target=serve, daemon=True).start()
    names = [f"team/r{number}" for number in range(40)]
    text = registry("swr", f"http://127.0.0.1:{listener.getsockname()[1]}", *names)
    limits = 'concurrency = 1\ntimeout = "2s"\n[[registries.watch]]'
    text = text.replace("[[registries.watch]]", limits)
    configure(tmp_path, text, interval="3s")
    process = run()
    process.await_message("READY=1")
    last = dict.fromkeys([f"swr/{name}" for name in names[::2]], time.monotonic())
    longest = 0.0
    end = time.monotonic() + 15
    while time.monotonic() < end:
        entry = process.events.get(timeout=WITHIN)
        if entry["event"] == "sync.finished":
            now, before = time.monotonic(), last[entry["repository"]]
            longest, last[entry["repository"]] = max(longest, now - before), now
    over.set()
    listener.close()
    assert process.stop() == 0
    assert longest < 9
    assert end - min(last.values()) < 9


def time_to_stop(popen: subprocess.Popen[Any]) -> float:
    began = time.monotonic()
    popen.terminate()
    assert popen.wait(WITHIN) == 0
    return time.monotonic() - began


def start_daemon(folder: Path, **options: Any) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "tagsync", "--log-level", "debug", "run"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, **options)


def test_a_stop_does_not_wait_for_a_full_log(tmp_path: Path) -> None:
    """If the log's reader does not read, the daemon stops in time, and all lines come later."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with Emulator() as swr:
        names = [f"team/r{number}" for number in range(40)]
        for name in names:
            swr.push(name, "v1", "one")
        configure(tmp_path, registry("swr", swr.url, *names))
        popen = start_daemon(tmp_path, stderr=writing)
        try:
            deadline = time.monotonic() + WITHIN
            while select.select([], [writing], [], 0)[1]:
                assert time.monotonic() < deadline, "the pipe is not full"
                time.sleep(0.05)
            assert time_to_stop(popen) < 5
        finally:
            popen.kill()
            os.close(reading)
            os.close(writing)
        process = Process(tmp_path)
        try:
            baselined = {
                process.await_event("repository.baselined")["repository"] for _ in range(20)
            }
        finally:
            process.stop()
        assert baselined <= {f"swr/{name}" for name in names}


def test_a_stop_does_not_wait_for_a_reload_that_hangs(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """A configuration that is a pipe without a writer blocks the main thread, but not the stop."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        configure(tmp_path, registry("swr", swr.url, "team/api"))
        process = run()
        process.await_event("repository.baselined")
        (tmp_path / "config.toml").unlink()
        os.mkfifo(tmp_path / "config.toml")
        process.popen.send_signal(signal.SIGHUP)
        process.await_message("RELOADING=1")
        assert time_to_stop(process.popen) < 5


def test_a_stop_does_not_wait_for_reloads(tmp_path: Path, run: Callable[..., Process]) -> None:
    """Hundreds of reloads that came before it do not delay a stop."""
    with Emulator() as swr:
        names = [f"team/r{number}" for number in range(500)]
        configure(tmp_path, registry("swr", swr.url, *names), interval="1h")
        process = run()
        process.await_message("READY=1")
        text = (tmp_path / "config.toml").read_text()
        for number in range(200):
            other = text.replace(
                "[[registries.watch]]", f"concurrency = {number % 9 + 1}\n[[registries.watch]]"
            )
            (tmp_path / "config.toml").write_text(other)
            process.popen.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        assert time_to_stop(process.popen) < 5
