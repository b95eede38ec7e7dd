"""One run of the torture test: a seed, a number of seconds, and a verdict."""

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tests.torture.judge import Evidence, Log, judge
from tests.torture.processes import PATIENCE, Process, environment, random_end
from tests.torture.registries import SECRETS, TwoRegistries

SLOTS: Final = ("run", "sync", "sync")
"""The commands that run side by side; each is started again after it exits."""

OPERATIONS_PER_SECOND: Final = 25.0

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
        faults: How often each fault happened.
    """

    seed: int
    wrong: list[str]
    figures: Mapping[str, int]
    faults: Mapping[str, int]

    def __str__(self) -> str:
        figures = ", ".join(f"{count} {what}" for what, count in self.figures.items())
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"seed {self.seed}: {figures}; faults: {sum(self.faults.values())} ({faults})"


def torture(seed: int, seconds: float, folder: Path) -> Outcome:
    """Run once in an empty folder, where the database and the logs stay."""
    run = _Run(seed, folder)
    with run.registries.serving():
        run.begin()
        run.run_processes(seconds)
        run.settle()
        return run.outcome()


class _Run:
    def __init__(self, seed: int, folder: Path) -> None:
        self.registries = TwoRegistries(str(seed))
        self._seed = seed
        self._folder = folder
        self._database = folder / "tagsync.db"
        self._config = folder / "config.toml"
        self._pauses = Random(f"{seed} pauses")
        self._ends = [Random(f"{seed} ends {slot}") for slot in range(len(SLOTS))]
        self._running: dict[int, Process] = {}
        self._ended: list[Process] = []
        self._wrong: list[str] = []

    def begin(self) -> None:
        self._config.write_text(self.registries.config())

    def run_processes(self, seconds: float) -> None:
        """Run operations and processes side by side for a while."""
        now = time.monotonic()
        until, act_at, renew_at = now + seconds, now, now
        try:
            while now < until:
                if now >= act_at:
                    self.registries.act()
                    act_at += self._pauses.expovariate(OPERATIONS_PER_SECOND)
                if now >= renew_at:
                    self._renew_lies()
                    renew_at = now + _RENEWAL
                for slot in range(len(SLOTS)):
                    self._tend(slot)
                waiting = any(each.waits_for_a_write for each in self._running.values())
                time.sleep(_SHORT_STEP if waiting else _STEP)
                now = time.monotonic()
        finally:
            for process in self._running.values():
                process.kill()
                self._ended.append(process)

    def settle(self) -> None:
        """Run two honest passes, the second for held listings, and `tagsync verify`."""
        for faults in self.registries.faults.values():
            faults.on = False
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
        logs = [self._log(process.log, killed=process.killed) for process in self._ended]
        logs += [self._log(path, killed=False) for path in self._folder.glob("honest-*.log")]
        evidence = Evidence(
            self._database,
            self.registries.journal,
            {name: self.registries.answers(name) for name in self.registries.repositories},
            {name: faults.lies for name, faults in self.registries.faults.items()},
            logs,
            list(SECRETS.values()),
        )
        faults: Counter[str] = Counter()
        for plan in self.registries.faults.values():
            faults.update({str(kind): count for kind, count in plan.counts.items()})
        return Outcome(self._seed, self._wrong + judge(evidence), self._figures(), faults)

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
        self._running[slot] = Process(command, self._config, log, environment(**SECRETS), end)

    def _renew_lies(self) -> None:
        """Allow another lie where a later listing than the last lie is recorded.

        A process that heard the lie has recorded it before that listing, or its poll is dropped.
        """
        for repository, at in self._completed().items():
            registry, _, name = repository.partition("/")
            self.registries.faults[registry].renew(name, at - _SLACK)

    def _completed(self) -> dict[str, datetime]:
        """Return when the last recorded listing of each repository was finished."""
        if not self._database.exists():
            return {}
        # Closed each time: recovery after a kill must also work if no other connection is open.
        with closing(sqlite3.connect(self._database)) as connection:
            if not connection.execute("PRAGMA application_id").fetchone()[0]:
                return {}
            rows = connection.execute(
                "SELECT registry || '/' || name, last_complete_at FROM repositories"
                " WHERE last_complete_at IS NOT NULL"
            )
            return {name: datetime.fromisoformat(at) for name, at in rows}

    def _run_alone(self, command: str, log: str) -> int:
        """Run tagsync and wait for it; return its exit status."""
        with (self._folder / log).open("wb") as stderr:
            return subprocess.run(
                [sys.executable, "-m", "tagsync", "--config", str(self._config), command],
                cwd=self._folder,
                env=environment(**SECRETS),
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

    @staticmethod
    def _log(path: Path, *, killed: bool) -> Log:
        return Log(path.name, path.read_text(), killed)

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
            "requests": sum(len(each.requests) for each in self.registries.emulators.values()),
            "processes": len(self._ended),
            "kills": sum(process.killed for process in self._ended),
            "polls": sum(polls.values()),
            "of them failed": polls.get("failed", 0),
            "held": polls.get("held", 0),
            "tags at first": baseline,
            "changes": changes,
        }
