"""The daemon: in one process with registries that the test holds by the hand, and as a real one."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Any

import pytest

from tagsync.clock import timestamp, utc_now
from tagsync.daemon.metrics import Endpoint, Metrics
from tagsync.daemon.service import Daemon, Plan, Source
from tagsync.daemon.systemd import ServiceManager
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import Forbidden, RegistryError, RepositoryNotFound, Throttled, Unreachable
from tagsync.models import EVERYTHING, Image, Listing, Scope, Tag, Unchanged, Watch
from tagsync.polling.poll import Poll
from tests.support.processes import WITHIN, Process, configure, free_port, registry

pytestmark = pytest.mark.processes

OFTEN = timedelta(milliseconds=50)
RARELY = timedelta(hours=1)


class Held:
    """A registry whose polls the test counts, fails, and holds back."""

    def __init__(self) -> None:
        self.began: dict[str, Semaphore] = defaultdict(lambda: Semaphore(0))
        self.polls: dict[str, int] = defaultdict(int)
        self.under_way = 0
        self.most_under_way = 0
        self.gates: dict[str, Event] = {}
        self.errors: dict[str, list[RegistryError]] = defaultdict(list)
        self.found: list[set[str] | RegistryError] = []
        self.discovered = Semaphore(0)
        self.closed = Event()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        started_at = timestamp(utc_now())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.polls[repository] += 1
        self.began[repository].release()
        try:
            if gate := self.gates.get(repository):
                assert gate.wait(WITHIN)
            if self.errors[repository]:
                raise self.errors[repository].pop(0)
        finally:
            self.under_way -= 1
        tag = Tag("v1", "sha256:1")
        images = {"sha256:1": Image("sha256:1")}
        return Listing({"v1": tag}, images, started_at, timestamp(utc_now()), fingerprint=None)

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        self.discovered.release()
        answer = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(answer, RegistryError):
            raise answer
        return answer

    def close(self) -> None:
        self.closed.set()

    def await_polls(self, repository: str, count: int = 1) -> None:
        """Waits until so many more polls of a repository have begun."""
        for _ in range(count):
            assert self.began[repository].acquire(timeout=WITHIN), repository


def plan(*watches: Watch, concurrency: int = 4, **registries: Held) -> Plan:
    sources = {name: Source(each, concurrency, 1000.0) for name, each in registries.items()}
    return Plan(sources, watches)


def watch(*repositories: str, registry: str = "a", interval: timedelta = OFTEN) -> Watch:
    often = timedelta(milliseconds=50)
    return Watch(registry, repositories, interval=interval, discovery_interval=often)


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, and stops them after the test."""
    started: list[Daemon] = []

    def begin(first: Plan, metrics: Metrics | None = None, **options: Any) -> Daemon:
        metrics = metrics or Metrics("test")
        daemon = Daemon(first, lambda: first, store, metrics, ServiceManager({}), **options)
        daemon.start()
        started.append(daemon)
        return daemon

    yield begin
    for daemon in started:
        daemon.stop()


def await_event(logged: list[dict[str, Any]], name: str, **fields: Any) -> dict[str, Any]:
    """Waits until something is logged; the capture has no way of its own to tell."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        for entry in list(logged):
            if entry["event"] == name and fields.items() <= entry.items():
                return entry
        time.sleep(0.005)
    raise AssertionError(f"{name} was not logged: {[entry['event'] for entry in logged]}")


# --- times ---------------------------------------------------------------------------------------


def test_a_slow_registry_delays_no_other(start: Callable[..., Daemon]) -> None:
    """While every thread of one registry waits for it, the polls of another go on."""
    slow, quick = Held(), Held()
    names = [f"team/r{number}" for number in range(8)]
    slow.gates = dict.fromkeys(names, Event())
    watches = (watch(*names, registry="slow"), watch("team/api", registry="quick"))
    start(plan(*watches, slow=slow, quick=quick))
    for _ in range(4):
        quick.await_polls("team/api", 5)
    assert slow.under_way == 4
    next(iter(slow.gates.values())).set()


def test_one_poll_of_a_repository_at_a_time(
    start: Callable[..., Daemon], logged: list[dict[str, Any]]
) -> None:
    """A repository whose poll is still under way is not polled again, and that is told once."""
    held = Held()
    held.gates["team/api"] = gate = Event()
    start(plan(watch("team/api", "team/other"), a=held))
    held.await_polls("team/other", 20)
    assert held.polls["team/api"] == 1
    gate.set()
    overruns = [entry for entry in logged if entry["event"] == "daemon.overrun"]
    # On a busy machine the other one may be late as well.
    assert [entry["repository"] for entry in overruns].count("a/team/api") == 1


def test_a_missed_poll_is_made_up_once(
    start: Callable[..., Daemon], logged: list[dict[str, Any]]
) -> None:
    """What could not begin in time begins when it can, however far away the next time is."""
    held = Held()
    held.gates["team/api"] = gate = Event()
    daemon = start(plan(watch("team/api"), watch("team/other"), a=held))
    held.await_polls("team/api")
    await_event(logged, "daemon.overrun")
    daemon.adopt(plan(watch("team/api", interval=RARELY), watch("team/other"), a=held))
    gate.set()
    held.await_polls("team/api")
    held.await_polls("team/other", 20)
    assert held.polls["team/api"] == 2


def test_what_keeps_failing_rests(start: Callable[..., Daemon]) -> None:
    """A repository that fails again and again is polled less and less often, others as before."""
    held = Held()
    held.errors["team/bad"] = [Forbidden("not yours") for _ in range(1000)]
    start(plan(watch("team/bad", "team/good"), a=held))
    held.await_polls("team/good", 40)
    # Two seconds: at 0, 1, 2, 4, 8, 16 and 32 intervals.
    assert 2 < held.polls["team/bad"] <= 8


class SlowMetrics(Metrics):
    """Metrics that hold back what follows from the poll of one repository."""

    def __init__(self, name: str) -> None:
        super().__init__("test")
        self.name = name
        self.gate = Event()

    def polled(self, poll: Poll, delay: float) -> None:
        super().polled(poll, delay)
        if poll.repository.name == self.name:
            assert self.gate.wait(WITHIN)


@pytest.mark.parametrize("slow", ["team/bad", "nobody"])
def test_a_rest_that_was_asked_for_is_kept(start: Callable[..., Daemon], slow: str) -> None:
    """After Retry-After a repository is not asked before that time is over, from its poll's end."""
    held, metrics = Held(), SlowMetrics(slow)
    held.errors["team/bad"] = [Throttled("later", retry_after=3600.0)]
    start(plan(watch("team/bad", "team/good"), a=held), metrics)
    held.await_polls("team/good", 20)
    metrics.gate.set()
    held.await_polls("team/good", 20)
    assert held.polls["team/bad"] == 1


def test_a_registry_that_answers_again_is_polled_at_once(
    start: Callable[..., Daemon], logged: list[dict[str, Any]]
) -> None:
    """When one repository recovers, those that rest for a fault in passing are polled, and told."""
    held = Held()
    names = ("team/a", "team/b")
    held.errors["team/a"] = [Unreachable("down") for _ in range(4)]
    held.errors["team/b"] = [Unreachable("down"), Unreachable("down", retry_after=3600.0)]
    start(plan(watch(*names), a=held))
    await_event(logged, "sync.recovered", repository="a/team/a", failures=4)
    await_event(logged, "sync.recovered", repository="a/team/b", failures=2)


def test_a_clock_that_is_set_back_stops_nothing(
    start: Callable[..., Daemon], logged: list[dict[str, Any]]
) -> None:
    """After the clock was set back everything is polled at once, not when it is as late again."""
    held = Held()
    by = timedelta()
    daemon = start(plan(watch("team/api", interval=RARELY), a=held), clock=lambda: utc_now() - by)
    held.await_polls("team/api")
    obeying = Thread(target=daemon.obey)
    obeying.start()
    by = timedelta(hours=1)
    held.await_polls("team/api")
    daemon.order("stop")
    obeying.join(WITHIN)
    assert 3590 < await_event(logged, "daemon.clock_set_back")["seconds"] < 3610


# --- what is watched -----------------------------------------------------------------------------


def test_what_is_found_is_watched_until_it_is_gone(
    start: Callable[..., Daemon], query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """Globs are expanded again and again; who is gone is polled no more, until found again."""
    held = Held()
    held.found = [{"team/api"}, {"team/api", "team/new"}, set()]
    daemon = start(plan(watch("team/*"), a=held))
    held.await_polls("team/api")
    held.await_polls("team/new")
    held.await_polls("team/api", 3)
    # The last discovery found nothing, which takes nothing away.
    held.errors["team/new"] = [RepositoryNotFound("gone") for _ in range(10)]
    deadline = time.monotonic() + WITHIN
    while daemon.census()[0].repositories == 2 and time.monotonic() < deadline:
        held.await_polls("team/api")
    assert daemon.census()[0].repositories == 1
    assert query("SELECT tag, kind FROM change_log WHERE repository = 'a/team/new'") == [
        ("v1", "added"),
        ("v1", "deleted"),
    ]
    held.errors.clear()
    held.found = [{"team/new"}]
    while held.began["team/new"].acquire(blocking=False):
        pass
    held.await_polls("team/new")


def test_a_discovery_that_failed_is_tried_again_and_takes_nothing_away(
    start: Callable[..., Daemon],
) -> None:
    """What is recorded is polled although it cannot be found, and found when it can be."""
    held = Held()
    held.found = [Unreachable("down"), Unreachable("down"), {"team/new"}]
    start(plan(watch("team/known", "team/*"), a=held))
    held.await_polls("team/known", 2)
    held.await_polls("team/new")


def test_a_new_plan_changes_only_what_differs(start: Callable[..., Daemon]) -> None:
    """What stays is not polled anew, what is new is, and a registry that left is closed."""
    first, second = Held(), Held()
    before = (watch("team/stays", "team/goes", interval=RARELY), watch("team/x", registry="b"))
    daemon = start(plan(*before, a=first, b=second))
    for name in ("team/stays", "team/goes"):
        first.await_polls(name)
    second.await_polls("team/x")
    daemon.adopt(plan(watch("team/stays", "team/comes", interval=RARELY), a=first))
    first.await_polls("team/comes")
    assert second.closed.wait(WITHIN)
    assert [(each.registry, each.repositories) for each in daemon.census()] == [("a", 2)]
    assert dict(first.polls) == {"team/stays": 1, "team/goes": 1, "team/comes": 1}
    assert not first.closed.is_set()


def test_a_registry_is_replaced_under_a_poll(start: Callable[..., Daemon]) -> None:
    """A poll in hand ends on the old registry, which closes after it, and none runs beside it."""
    old, new = Held(), Held()
    old.gates["team/api"] = gate = Event()
    daemon = start(plan(watch("team/api"), a=old))
    old.await_polls("team/api")
    daemon.adopt(plan(watch("team/api", "team/other"), a=new))
    new.await_polls("team/other", 10)
    assert new.polls["team/api"] == 0
    assert not old.closed.is_set()
    gate.set()
    assert old.closed.wait(WITHIN)
    new.await_polls("team/api", 3)
    assert old.polls["team/api"] == 1


def test_stopping_does_not_wait_for_a_registry_that_hangs(
    store: Store, query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """The daemon stops under a poll that hangs, says so, and what comes late is not recorded."""
    held = Held()
    held.gates["team/api"] = gate = Event()
    first = plan(watch("team/api"), a=held)
    daemon = Daemon(first, lambda: first, store, Metrics("test"), ServiceManager({}))
    daemon.start()
    held.await_polls("team/api")
    began = time.monotonic()
    assert not daemon.stop()
    assert time.monotonic() - began < 5
    gate.set()
    assert query("SELECT count(*) FROM observations") == [(0,)]


# --- health --------------------------------------------------------------------------------------


def test_bad_health_has_a_reason(start: Callable[..., Daemon]) -> None:
    """A repository without a complete listing for three intervals is named, with its last error."""
    held = Held()
    held.errors["team/bad"] = [Forbidden("not\x1b[2Jyours") for _ in range(1000)]
    daemon = start(plan(watch("team/bad", "team/good"), a=held))
    held.await_polls("team/good", 10)
    (sentence,) = daemon.health()
    assert sentence.startswith("a/team/bad has had no complete listing for three intervals")
    assert "not\x1b[2Jyours" in sentence
    assert "1 failing, 1 stale" in daemon.summary()
    endpoint = Endpoint(("127.0.0.1", 0), Metrics("test").application(daemon.health))
    try:
        status, text = get(endpoint.port, "/healthz")
    finally:
        endpoint.close()
    assert status == 503
    assert "not\\x1b[2Jyours" in text


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WITHIN) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# --- a real process ------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> Iterator[str]:
    """The URL of a server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_life(tmp_path: Path, run: Callable[..., Process], hanging: str) -> None:
    """Start, change, reload, bad reload, a registry that hangs, the watchdog, and the stop."""
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

        # One registry hangs, with all its threads: the other goes on, and so does the scheduler.
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


def test_the_metrics_of_a_life(tmp_path: Path, run: Callable[..., Process]) -> None:
    """What Prometheus reads agrees with what happened, and bad health is a 503 with the reason."""
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
        assert abs(float(oldest) - time.time()) < WITHIN
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/elsewhere")[0] == 404
        swr.answer_next(403, {"error_code": "SVCSTG.SWR.4030170"}, times=10_000)
        for _ in range(4):
            process.await_event("sync.failed")
        status, text = get(port, "/healthz")
        assert status == 503
        assert text.startswith("swr/team/api has had no complete listing for three intervals")
        assert "4030170" in text
        second = run_to_its_end(tmp_path)
        assert second.returncode == 2
        assert f"metrics.listen: 127.0.0.1, port {port}, cannot be listened on" in second.stderr


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
def test_a_start_that_makes_no_sense(tmp_path: Path, config: str, sentence: str) -> None:
    """A configuration with which nothing can be done is refused, and no database is made."""
    (tmp_path / "config.toml").write_text(config)
    finished = run_to_its_end(tmp_path)
    assert finished.returncode == 2
    assert sentence in finished.stderr
    assert not (tmp_path / "tagsync.db").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_shows_as_a_hole_and_sameness_as_one_row(
    tmp_path: Path, run: Callable[..., Process], number: signal.Signals
) -> None:
    """However many polls saw the same, they are one observation; a stop begins another."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        configure(tmp_path, registry("swr", swr.url, "team/api"), interval="300ms")
        for _ in range(2):
            process = run()
            for _ in range(5):
                process.await_event("sync.finished")
            assert process.stop(number) == 0
            time.sleep(0.6)  # a hole is time that has passed
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection:
        rows = connection.execute("SELECT outcome, polls, first_at, last_at FROM observations")
        (first, second) = rows.fetchall()
    assert first[0] == second[0] == "ok"
    assert first[1] >= 5
    hole = datetime.fromisoformat(second[2]) - datetime.fromisoformat(first[3])
    assert hole > timedelta(milliseconds=600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_member_of_the_group_reads_beside_the_daemon(
    tmp_path: Path, run: Callable[..., Process]
) -> None:
    """Who may only read, as a member of the daemon's group, does so while it writes and after."""
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
        question = f"SELECT digest FROM current_tags WHERE tag = '{tag}'"
        command = [sqlite, "-readonly", f"file:{state}/tagsync.db{uri}", question]
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
