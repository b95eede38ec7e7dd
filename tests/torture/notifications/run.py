"""One run: a seed, a number of changes, and a verdict."""

import base64
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tagsync.clock import timestamp, utc_now
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import StoreError
from tagsync.notify.lease import LEASE
from tests.support.processes import free_port
from tests.torture.notifications import program
from tests.torture.notifications.disk import SmallDisk, mounted
from tests.torture.notifications.judge import Row, Verdict, judge_receiver, read_record
from tests.torture.notifications.log import entries
from tests.torture.notifications.receiver import HONEST
from tests.torture.notifications.registry import BusyRegistry
from tests.torture.processes import PATIENCE, End, How, Process, environment

SLOTS: Final = ("run", "sync")
"""The commands that run side by side; each is started again after it exits."""

CHANGES_PER_SECOND: Final = 300.0

SETTLES_WITHIN: Final = 120.0
"""Timeout in seconds for all that is pending, once the receivers accept everything."""

_STEP: Final = 0.01
_LOOKS_EVERY: Final = 0.3
"""Seconds between two looks at the leases and the number of changes."""

_AFTER_MESSAGE: Final = 0.15
"""The share of messages right after which a process is killed, accepted or not."""

_SENT: Final = 0.9
"""The share of events that each receiver gets before the trouble may end."""

_KEY: Final = bytes(range(32))
_SECRETS: Final = {"TORTURE_KEY": f"whsec_{base64.b64encode(_KEY).decode()}"}

_CONFIG: Final = """\
[store]
path = "tagsync.db"
[schedule]
interval = "2s"
verify = 0
[[registries]]
name = "swr"
endpoint = "{endpoint}"
requests_per_second = 1000
retry_for = "1s"
agree_after = 0
[[registries.watch]]
repositories = ["team/*"]

[[notify]]
name = "web"
kind = "webhook"
url = "env:WEB_URL"
signing_key = "env:TORTURE_KEY"
events = [{kinds}]
batch_size = 1000

[[notify]]
name = "few"
kind = "webhook"
url = "env:FEW_URL"
signing_key = "env:TORTURE_KEY"
tags = ["v1*"]
events = ["moved", "deleted"]
batch_size = 100
batch = "1s"

[[notify]]
name = "page"
kind = "command"
argv = [{argv}]
events = [{kinds}]
batch_size = 500
"""
_KINDS: Final = (
    *("added", "moved", "updated", "deleted", "held", "failed", "recovered", "stale"),
    *("immutable_moved", "immutable_deleted", "unverified", "baselined", "verification_failed"),
)
_WANTS: Final[Mapping[str, Callable[[Row], bool]]] = {
    "web": lambda _: True,
    "few": lambda row: row["kind"] in {"moved", "deleted"} and fnmatchcase(row["tag"], "v1*"),
    "page": lambda _: True,
}


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        wrong: One sentence for everything that is wrong.
        figures: Counts by name.
        faults: How often the receivers did what.
    """

    wrong: list[str]
    figures: Mapping[str, float]
    faults: Mapping[str, int]

    def __str__(self) -> str:
        figures = ", ".join(f"{count:,} {what}" for what, count in self.figures.items())
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"{figures}; receivers: {faults}"


def torture(seed: int, changes: int, seconds: float, folder: Path) -> Outcome:
    """Run once in an empty folder, where the logs stay, and the database if something is wrong.

    Args:
        seed: Determines all random choices.
        changes: How many changes to record in the midst of all trouble.
        seconds: Maximum time for that.
        folder: The folder.

    Raises:
        PermissionError: If this user may not mount a disk.
    """
    with ExitStack() as stack:
        disk = stack.enter_context(mounted(folder / "disk", 64 + changes // 300))
        emulator = stack.enter_context(Emulator())
        run = _Run(seed, folder, disk, emulator)
        stack.callback(run.end)
        began = time.monotonic()
        run.begin()
        with run.receiving():
            run.run_processes(changes, seconds)
        troubled = time.monotonic() - began
        run.settle()
        return run.outcome({"s of trouble": round(troubled), "s": round(time.monotonic() - began)})


class _Run:
    def __init__(self, seed: int, folder: Path, disk: SmallDisk, emulator: Emulator) -> None:
        self._seed = seed
        self._folder = folder
        self._disk = disk
        self._emulator = emulator
        self._registry = BusyRegistry(emulator, f"{seed} registry")
        self._database = disk.folder / "tagsync.db"
        self._config = disk.folder / "config.toml"
        self._port = free_port()
        url = f"http://127.0.0.1:{self._port}"
        urls = {"WEB_URL": f"{url}/web", "FEW_URL": f"{url}/few"}
        self._environment = environment(**_SECRETS, **urls)
        self._random = Random(f"{seed} trouble")
        self._running: dict[int, Process] = {}
        self._ended: list[Process] = []
        self._paused: dict[int, float] = {}
        self._counts: Counter[str] = Counter()
        self._expired: set[tuple[str, str]] = set()
        self._receiver: subprocess.Popen[bytes] | None = None
        self._due: dict[str, float] = {}
        self._wrong: list[str] = []

    def end(self) -> None:
        """End all processes that still run."""
        for slot in list(self._running):
            self._kill(slot)
        self._kill_receiver()

    def begin(self) -> None:
        """Write the configuration, and record and send the first state without trouble."""
        argv = (sys.executable, "-IS", program.__file__, self._log("page"))
        config = _CONFIG.format(
            endpoint=self._emulator.url,
            kinds=_quoted(_KINDS),
            argv=_quoted(argv),
        )
        self._config.write_text(config)
        self._start_receiver(HONEST)
        self._honestly("sync", "first.log")

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Let the receivers be bad for the block."""
        self._honest_programs.unlink()
        self._restart_receiver()
        try:
            yield
        finally:
            self._kill_receiver()

    def run_processes(self, changes: int, seconds: float) -> None:
        """Cause trouble until so many changes are recorded and most of them are sent."""
        began = act_at = time.monotonic()
        recorded = received = 0
        sent = False
        with Store.open(self._database, busy_timeout=0.1) as store:
            try:
                while not sent and (now := time.monotonic()) < began + seconds:
                    while act_at < now and recorded < changes:
                        self._registry.change()
                        act_at += 1 / CHANGES_PER_SECOND
                    for slot in range(len(SLOTS)):
                        self._tend(slot)
                    received = self._kill_after_message(received)
                    self._trouble(now)
                    if self._is_due("look", now, _LOOKS_EVERY, _LOOKS_EVERY):
                        self._expire_leases(store)
                        recorded = self._count_changes()
                        sent = recorded >= changes and self._are_most_sent()
                    time.sleep(_STEP)
            finally:
                self._disk.clear()
                for slot in list(self._running):
                    self._kill(slot)
                self._expire_leases(store)
                _end_backoffs(store)

    def settle(self) -> None:
        """Let a daemon send all that is pending to honest receivers, and check the record."""
        self._start_receiver(HONEST)
        self._honest_programs.touch()
        daemon = self._start("run", self._folder / "settling.log")
        end = time.monotonic() + SETTLES_WITHIN
        try:
            while self._pending() and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)
        if pending := self._pending():
            self._wrong.append(f"{', '.join(pending)} did not get everything")
        self._honestly("sync", "last.log")
        self._honestly("verify", "verify.log")
        self._kill_receiver()

    def outcome(self, times: Mapping[str, float]) -> Outcome:
        """Compare the logs of the receivers with the record."""
        self._judge_logs()
        record, wrong = read_record(self._database)
        verdicts: list[Verdict] = []
        for name, wants in _WANTS.items():
            key = None if name == "page" else _KEY
            log = entries(self._log(name))
            verdicts.append(judge_receiver(name, log, record, wants, key))
        if self._log("redirected").exists():
            self._wrong.append("a redirect was followed")
        faults: Counter[str] = Counter()
        for verdict in verdicts:
            wrong += verdict.wrong
            faults.update(verdict.faults)
        figures = {
            "changes": self._count_changes(),
            "events": len(record.events),
            "accepted": sum(verdict.events for verdict in verdicts),
            "messages": sum(verdict.messages for verdict in verdicts),
            "refused": sum(verdict.refused for verdict in verdicts),
            "repeats": sum(verdict.repeats for verdict in verdicts),
            "processes": len(self._ended),
            "kills": sum(process.killed for process in self._ended),
            **self._counts,
            "leases run out": len(self._expired),
            **times,
        }
        if self._wrong or wrong:
            self._keep_database()
        return Outcome(self._wrong + wrong, figures, faults)

    # --- processes of tagsync ---------------------------------------------------------------------

    def _tend(self, slot: int) -> None:
        """End the process of a slot if it is due; start a new one if it has exited."""
        process = self._running.get(slot)
        if process is not None:
            if slot in self._paused:
                return
            process.tend()
            if process.status is None:
                return
            self._ended.append(self._running.pop(slot))
        command = SLOTS[slot]
        log = self._folder / f"{command}-{slot}-{len(self._ended)}.log"
        end = _random_end(self._random, command)
        self._running[slot] = Process(command, self._config, log, self._environment, end)

    def _kill(self, slot: int) -> None:
        self._paused.pop(slot, None)
        process = self._running.pop(slot)
        process.kill()
        self._ended.append(process)

    def _kill_after_message(self, received: int) -> int:
        """Sometimes kill a process if a receiver has logged something. Return the logs' size."""
        size = sum(path.stat().st_size for path in map(self._log, _WANTS) if path.exists())
        if size > received and self._running and self._random.random() < _AFTER_MESSAGE:
            self._counts["of them after a message"] += 1
            self._kill(self._random.choice(list(self._running)))
        return size

    def _pause(self, now: float) -> None:
        """Pause the process that holds a lease, so that another process takes it over."""
        holders = set(self._holders().values())
        for slot, process in self._running.items():
            if process.pid in holders and slot not in self._paused:
                process.pause()
                self._paused[slot] = now + self._random.uniform(0.5, 3)
                self._counts["pauses"] += 1
                return

    def _expire_leases(self, store: Store) -> None:
        """Let the leases of killed and paused processes run out, as after a minute."""
        alive = {
            process.pid
            for slot, process in self._running.items()
            if process.status is None and slot not in self._paused
        }
        for (name, holder), pid in self._holders().items():
            if pid not in alive:
                # The disk may be full, or a paused process may hold the lock.
                with suppress(StoreError):
                    store.outbox.renew(name, holder, timestamp(utc_now()))
                    self._expired.add((name, holder))

    def _holders(self) -> dict[tuple[str, str], int]:
        """Return the process of each lease, by destination and holder."""
        query = "SELECT name, lease_holder FROM destinations WHERE lease_holder IS NOT NULL"
        return {(name, holder): int(holder.split(":")[1]) for name, holder in self._query(query)}

    # --- receivers and the disk -------------------------------------------------------------------

    def _trouble(self, now: float) -> None:
        """Kill receivers, pause processes and fill the disk, each at random times."""
        if self._is_due("receiver", now, 4, 12):
            self._kill_receiver()
            self._counts["receivers killed"] += 1
            self._due["receiver starts"] = now + self._random.uniform(0, 1.5)
        if self._receiver is None and now >= self._due["receiver starts"]:
            self._start_receiver(f"{self._seed} {self._random.random()}")
        if self._is_due("disk", now, 6, 15):
            self._disk.fill()
            self._counts["full disks"] += 1
            self._due["disk is cleared"] = now + self._random.uniform(0.3, 2)
        if now >= self._due.get("disk is cleared", now + 1):
            self._disk.clear()
        if self._is_due("pause", now, 3, 8):
            self._pause(now)
        for slot, until in list(self._paused.items()):
            if now >= until:
                self._running[slot].resume()
                del self._paused[slot]

    def _is_due(self, what: str, now: float, shortest: float, longest: float) -> bool:
        """Return whether something is due, and plan its next time. The first is planned only."""
        if what in self._due and now < self._due[what]:
            return False
        planned = what in self._due
        self._due[what] = now + self._random.uniform(shortest, longest)
        return planned

    def _start_receiver(self, seed: str) -> None:
        module = "tests.torture.notifications.receiver"
        command = [sys.executable, "-m", module, str(self._port), str(self._folder), seed]
        self._receiver = subprocess.Popen(command)

    def _restart_receiver(self) -> None:
        self._kill_receiver()
        self._start_receiver(f"{self._seed} first")

    def _kill_receiver(self) -> None:
        if self._receiver is not None:
            self._receiver.kill()
            self._receiver.wait()
            self._receiver = None

    @property
    def _honest_programs(self) -> Path:
        return self._folder / "honest"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    # --- the record -------------------------------------------------------------------------------

    def _query(self, statement: str) -> list[Any]:
        """Query the database. This may fail for a moment while a process opens or closes it."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with closing(sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True)) as db:
                    return db.execute(statement).fetchall()
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(_STEP)

    def _count_changes(self) -> int:
        query = "SELECT count(*) FROM changes WHERE not_before IS NOT NULL"
        return int(self._query(query)[0][0])

    def _are_most_sent(self) -> bool:
        query = "SELECT (SELECT min(cursor) FROM destinations), max(id) FROM events"
        ((cursor, newest),) = self._query(query)
        return bool(cursor >= newest * _SENT)

    def _pending(self) -> list[str]:
        query = "SELECT name FROM destinations WHERE cursor < (SELECT max(id) FROM events)"
        return [name for (name,) in self._query(query)]

    def _start(self, command: str, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "tagsync", "--config", str(self._config), command],
                cwd=self._disk.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def _honestly(self, command: str, log: str) -> None:
        """Run a command that must succeed."""
        self._honest_programs.touch()
        if status := self._start(command, self._folder / log).wait(SETTLES_WITHIN):
            self._wrong.append(f"{command} ended with {status}, see {log}")

    def _judge_logs(self) -> None:
        """No process may find a bug of tagsync, whatever happens to it."""
        for process in self._ended:
            text = process.log.read_text()
            if process.status == 70 or "Traceback" in text or "crashed" in text:
                self._wrong.append(f"{process.log.name} has a bug")

    def _keep_database(self) -> None:
        with (
            closing(sqlite3.connect(self._database)) as source,
            closing(sqlite3.connect(self._folder / "kept.db")) as target,
        ):
            source.backup(target)


def _end_backoffs(store: Store) -> None:
    """Make the next attempt due for each destination, as after the backoff. No process sends."""
    lease = timestamp(utc_now() + LEASE)
    for name in store.outbox.names():
        destination = store.outbox.destination(name)
        if destination is not None and destination.retry_at is not None:
            now = timestamp(utc_now())
            store.outbox.acquire(name, "torture", now, lease)
            store.outbox.refuse(name, "torture", "made up", now, now)
            store.outbox.release(name, "torture")


def _random_end(random: Random, command: str) -> End:
    """Choose how a process ends, if no trouble ends it before; a daemon is never spared."""
    otherwise: How = "asked" if command == "run" else "spared"
    how = random.choice(("after", "on_line", "on_write", otherwise))
    shortest, longest = (10, 40) if command == "run" else (6, 20)
    return End(how, random.uniform(shortest, longest), random.randint(1, 100))


def _quoted(texts: Any) -> str:
    return ", ".join(f'"{text}"' for text in texts)
