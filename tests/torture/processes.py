"""tagsync's own processes, each with an end of its own that follows from the seed."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Final, Literal, NamedTuple

How = Literal["spared", "asked", "after", "on_line", "on_write"]

PATIENCE: Final = 30.0
"""Seconds after which a process that should have ended by itself has failed."""


class End(NamedTuple):
    """When a process ends, if not by itself.

    Attributes:
        how: not at all; by SIGTERM after so many seconds; by SIGKILL, after so many seconds, or
            then when its log has so many lines, which is between a commit and the note that it is
            logged, or then when somebody writes to the database.
        seconds: of its life.
        lines: of its log.
    """

    how: How
    seconds: float
    lines: int


class Process:
    """One ``tagsync`` at work, its log in a file of its own."""

    def __init__(
        self, command: str, config: Path, log: Path, environment: Mapping[str, str], end: End
    ) -> None:
        self.command: Final = command
        self.log: Final = log
        self.killed = self.asked = False
        self._end = end
        self._wal = config.parent / "tagsync.db-wal"
        self._wal_was = _mark(self._wal)
        self._began = time.monotonic()
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tagsync", "--config", str(config), command],
                cwd=config.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def status(self) -> int | None:
        """The exit status, or null while it runs."""
        return self._process.poll()

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def waits_for_a_write(self) -> bool:
        """Whether it is to be killed as soon as somebody writes, which takes looking often."""
        return self._end.how == "on_write" and self.age >= self._end.seconds

    def tend(self) -> None:
        """Kills it if its time has come."""
        if self.status is not None or not self._is_due():
            return
        if self._end.how != "asked":
            self.kill()
        elif not self.asked:
            self.asked = True
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once, whatever it is doing."""
        if self.status is None:
            self.killed = True
            self._process.kill()
        self._process.wait(PATIENCE)

    def _is_due(self) -> bool:
        """Whether its end has come; notes the state of the database's log meanwhile."""
        before, self._wal_was = self._wal_was, _mark(self._wal)
        if self._end.how == "spared" or self.age < self._end.seconds:
            return False
        if self._end.how == "on_line":
            return self.log.read_bytes().count(b"\n") >= self._end.lines
        return self._end.how != "on_write" or self._wal_was != before


def an_end(random: Random, command: str) -> End:
    """Draws one: a daemon, which does not end by itself, is never spared."""
    otherwise: How = "asked" if command == "run" else "spared"
    ways: tuple[How, ...] = ("after", "on_line", "on_write", otherwise)
    (how,) = random.choices(ways, (3, 4, 4, 4))
    shortest, longest = (1.5, 8.0) if command == "run" else (0.4, 3.0)
    return End(how, random.uniform(shortest, longest), random.randint(1, 12))


def environment(**secrets: str) -> dict[str, str]:
    """What a process finds: nothing of tagsync's but its secrets."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **secrets}


def _mark(path: Path) -> tuple[int, int]:
    """What differs after a file was written."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
