"""One run of the torture test: a seed, a number of seconds, and a verdict."""

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tagsync.audit.verify import verify
from tagsync.database.connection import Connection
from tagsync.database.hash_chain import GENESIS, read_heads
from tagsync.emulator import Fault
from tests.torture.judge import HEADS, Cut, Evidence, Log, judge
from tests.torture.power import Disk, Outages
from tests.torture.processes import PATIENCE, Process, environment, random_end
from tests.torture.registries import HOLDS_STALE, SECRETS, EmulatedRegistries

SLOTS: Final = ("run", "sync", "sync")
"""The commands that run side by side; each is started again after it exits."""

OPERATIONS_PER_SECOND: Final = 25.0

CALM: Final = 3.0
"""Seconds before the end of a run without a further power cut, so that something is recorded."""

_STEP: Final = 0.002
_SHORT_STEP: Final = 0.0002
_RENEWAL: Final = 0.05
_SLACK: Final = timedelta(milliseconds=10)
_BY_ITSELF: Final = {"sync": {0, 1, 3}, "run": set[int]()}
_ASKED: Final = {0, -15}  # -15: SIGTERM before the signal handlers are set


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        seed: The seed of all random choices.
        wrong: One sentence for everything that is wrong.
        figures: Counts by name.
        faults: How often each fault happened, and each trick of a front server.
    """

    seed: int
    wrong: list[str]
    figures: Mapping[str, int]
    faults: Mapping[str, int]

    def __str__(self) -> str:
        figures = ", ".join(f"{count} {what}" for what, count in self.figures.items())
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"seed {self.seed}: {figures}; faults: {sum(self.faults.values())} ({faults})"


def torture(seed: int, seconds: float, folder: Path, longest: float = 0.0) -> Outcome:
    """Run once in an empty folder, where the database and the logs stay.

    Args:
        seed: Determines all random choices.
        seconds: How long the processes run, at least.
        folder: The folder.
        longest: How long they run, at most, if by then a busy machine has not had time for every
            class of faults and for a change that is recorded.
    """
    run = _Run(seed, folder)
    with run.registries.serving():
        run.begin()
        run.run_processes(seconds, longest)
        run.settle()
        return run.outcome()


class _Run:
    def __init__(self, seed: int, folder: Path) -> None:
        self.registries = EmulatedRegistries(str(seed))
        self._seed = seed
        self._folder = folder
        self._database = folder / "tagsync.db"
        self._config = folder / "config.toml"
        self._disk = Disk(folder, "tagsync.db*")
        self._environment = environment(**SECRETS) | self._disk.environment
        self._power = Random(f"{seed} power")
        self._pauses = Random(f"{seed} pauses")
        self._ends = [Random(f"{seed} ends {slot}") for slot in range(len(SLOTS))]
        self._running: dict[int, Process] = {}
        self._ended: list[Process] = []
        self._cuts: list[Cut] = []
        self._undone = 0
        self._wrong: list[str] = []

    def begin(self) -> None:
        self._config.write_text(self.registries.config())

    def run_processes(self, seconds: float, longest: float) -> None:
        """Run operations and processes side by side for a while, see `torture`."""
        now = time.monotonic()
        until, latest, act_at, renew_at = now + seconds, now + longest, now, now
        outages = Outages(self._power, now)
        try:
            while now < until or (now < latest and not self._has_seen_all()):
                if now >= act_at:
                    self.registries.act()
                    act_at += self._pauses.expovariate(OPERATIONS_PER_SECOND)
                if now >= renew_at:
                    self._renew_lies()
                    renew_at = now + _RENEWAL
                logs = [each.log for each in self._running.values()]
                # Every run has a power cut, also on a machine so busy that the planned one is late.
                if outages.is_due(now, logs) if now < until - CALM else not self._cuts:
                    self._cut_power()
                    act_at = time.monotonic()
                    outages.plan(act_at)
                for slot in range(len(SLOTS)):
                    self._tend(slot)
                waiting = any(each.waits_for_a_write for each in self._running.values())
                time.sleep(_SHORT_STEP if waiting else _STEP)
                now = time.monotonic()
        finally:
            self._kill_all()

    def settle(self) -> None:
        """Run two honest passes, the second for held listings, and `tagsync verify`."""
        self.registries.be_honest()
        # Every request is answered, but on a busy machine not at once.
        self._config.write_text(self.registries.config(timeout="30s", retry_for="1m"))
        known = self._completed()
        for repository in self.registries.repositories:
            if repository not in known:
                self.registries.restore(repository)
        passes = [self._run_alone("sync", f"honest-{number}.log") for number in (1, 2)]
        if passes[0] not in {0, 3} or passes[1] != 0:
            self._wrong.append(f"the honest passes ended with {passes}")
        if (verdict := self._run_alone("verify", "honest-verify.log")) != 0:
            self._wrong.append(f"tagsync verify ended with {verdict}")

    def outcome(self) -> Outcome:
        self._judge_exits()
        logs = self._logs()
        for path in self._folder.glob("honest-*.log"):
            logs.append(Log(path.name, path.read_text(), killed=False, cuts=len(self._cuts)))
        evidence = Evidence(
            self._database,
            self.registries.journal,
            {name: self.registries.answers(name) for name in self.registries.repositories},
            {
                name: [lie for lie in faults.lies if lie.rows is None]
                for name, faults in self.registries.faults.items()
            },
            logs,
            list(SECRETS.values()),
            served=self.registries.served(),
            cuts=self._cuts,
            fetched=["oci"],
            failing=["oci"],
            holds_stale=HOLDS_STALE,
        )
        faults: Counter[str] = Counter()
        for plan in self.registries.faults.values():
            faults.update({str(kind): count for kind, count in plan.counts.items()})
        for front in self.registries.fronts.values():
            faults.update({f"front {kind}": count for kind, count in front.counts.items()})
        return Outcome(self._seed, self._wrong + judge(evidence), self._figures(), faults)

    def _has_seen_all(self) -> bool:
        """Return whether each class of faults has happened, and a change is recorded."""
        faults = self.registries.faults.values()
        for kind in (Fault.STALE, Fault.NO_TOTAL):
            if not any(each.counts[kind] for each in faults):
                return False
        if not any(front.counts for front in self.registries.fronts.values()):
            return False
        query = "SELECT 1 FROM changes WHERE not_before IS NOT NULL LIMIT 1"
        with self._reading() as db:
            return db is not None and db.execute(query).fetchone() is not None

    def _kill_all(self) -> None:
        for process in self._running.values():
            process.kill()
            self._ended.append(process)
        self._running.clear()

    def _cut_power(self) -> None:
        """Kill all processes, undo what was not synced, and check what is left."""
        self._kill_all()
        events = [event for log in self._logs() for event in _complete_events(log)]
        written = self._heads()
        self._disk.cut_power()
        survived = self._heads()
        self._cuts.append(survived)
        self._undone += written.change_id - survived.change_id
        # An honest listing that allowed the next lie may be undone.
        self.registries.suspend_lies()
        logged = [event for event in events if event["event"] in HEADS]
        heads = {event[name] for event in logged for name in ("head", "observations_head")}
        with self._reading() as db:
            for row in verify(db, heads) if db else [{"result": "fault"}] * bool(heads - {GENESIS}):
                if row["result"] == "fault":
                    self._wrong.append(f"verify finds after power cut {len(self._cuts)}: {row}")

    def _heads(self) -> Cut:
        """Return the heads of both chains in the database."""
        with self._reading() as db:
            if db is None:
                return Cut(0, GENESIS)
            heads = read_heads(db)
        ended, observations_head = heads.observations.ended, heads.observations.hash
        return Cut(heads.changes.change_id, heads.changes.hash, ended, observations_head)

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        """Open the database, or yield `None` if tagsync has not set it up yet.

        The connection is read-only: otherwise this process, whose syncs are not kept, might change
        the files, by a checkpoint or by rolling back a journal.
        """
        uri = f"{self._database.as_uri()}?mode=ro"
        with ExitStack() as stack:
            try:
                db = sqlite3.connect(uri, uri=True, isolation_level=None, factory=Connection)
                stack.enter_context(closing(db))
                db.execute("BEGIN")
                (application_id,) = db.execute("PRAGMA application_id").fetchone()
            except sqlite3.Error:
                application_id = 0
            yield db if application_id else None

    def _tend(self, slot: int) -> None:
        """End the process of a slot if it is due; start a new one if it has exited."""
        process = self._running.get(slot)
        if process is not None:
            process.tend()
            if process.status is None:
                return
            self._ended.append(process)
        command = SLOTS[slot]
        log = self._folder / f"{command}-{slot}-{len(self._ended)}.log"
        end = random_end(self._ends[slot], command)
        process = Process(command, self._config, log, self._environment, end)
        process.cuts = len(self._cuts)
        self._running[slot] = process

    def _renew_lies(self) -> None:
        """Allow another lie where a later listing than the last lie is recorded.

        A process that heard the lie has recorded it before that listing, or its poll is dropped.
        """
        for repository, at in self._completed().items():
            registry, _, name = repository.partition("/")
            self.registries.faults[registry].renew(name, at - _SLACK)

    def _completed(self) -> dict[str, datetime]:
        """Return when the last recorded listing of each repository was finished."""
        query = (
            "SELECT registry || '/' || name, last_complete_at FROM repositories"
            " WHERE last_complete_at IS NOT NULL"
        )
        with self._reading() as db:
            rows = db.execute(query).fetchall() if db else []
        return {name: datetime.fromisoformat(at) for name, at in rows}

    def _run_alone(self, command: str, log: str) -> int:
        """Run tagsync and wait for it; return its exit status."""
        with (self._folder / log).open("wb") as stderr:
            return subprocess.run(
                [sys.executable, "-m", "tagsync", "--config", str(self._config), command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=PATIENCE,
                check=False,
            ).returncode

    def _judge_exits(self) -> None:
        for process in self._ended:
            expected = _ASKED if process.asked else _BY_ITSELF[process.command]
            if not process.killed and process.status not in expected:
                self._wrong.append(f"{process.log.name} ended with {process.status}")

    def _logs(self) -> list[Log]:
        """Return the logs of all processes that have ended."""
        return [
            Log(each.log.name, each.log.read_text(), each.killed, each.cuts) for each in self._ended
        ]

    def _figures(self) -> dict[str, int]:
        with closing(sqlite3.connect(self._database)) as connection:
            polls: dict[str, int] = dict(
                connection.execute("SELECT outcome, sum(polls) FROM observations GROUP BY outcome")
            )
            ((baseline, changes),) = connection.execute(
                "SELECT count(*) FILTER (WHERE not_before IS NULL),"
                " count(*) FILTER (WHERE not_before IS NOT NULL) FROM changes"
            )
        return {
            "operations": self.registries.journal.operations(),
            "requests": self.registries.requests,
            "processes": len(self._ended),
            "kills": sum(process.killed for process in self._ended),
            "power cuts": len(self._cuts),
            "changes undone by them": self._undone,
            "polls": sum(polls.values()),
            "of them failed": polls.get("failed", 0),
            "held": polls.get("held", 0),
            "tags at first": baseline,
            "changes": changes,
        }


def _complete_events(log: Log) -> Iterator[dict[str, Any]]:
    """Yield the events of a log whose last line may be cut off."""
    for line in log.text.split("\n")[:-1]:
        with suppress(ValueError):
            yield json.loads(line)
