"""tagsync's processes, each with an end that follows from the seed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Final, Literal, NamedTuple

How = Literal["spared", "asked", "after", "on_line", "on_write"]

PATIENCE: Final = 120.0
"""Timeout in seconds for a process that should exit by itself."""


class End(NamedTuple):
    """When and how a process ends, unless it exits before.

    Attributes:
        how: ``spared``: not at all. ``asked``: by SIGTERM after `seconds`. By SIGKILL: ``after``
            `seconds`; or after that, ``on_line``: when the log has `lines` lines, which is between
            the commit and the acknowledgement of the log lines; ``on_write``: at the next write to
            the database.
        seconds: The shortest life of the process.
        lines: The number of log lines for ``on_line``.
    """

    how: How
    seconds: float
    lines: int


class Process:
    """A running ``tagsync`` with a log file of its own.

    Attributes:
        cuts: The number of power cuts before it started.
    """

    cuts = 0

    def __init__(
        self, command: str, config: Path, log: Path, environment: Mapping[str, str], end: End
    ) -> None:
        self.command: Final = command
        self.log: Final = log
        self.killed = self.asked = False
        self._end = end
        self._wal = config.parent / "tagsync.db-wal"
        self._wal_was = _fingerprint(self._wal)
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
        """The exit status, or `None` while the process runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._began

    @property
    def waits_for_a_write(self) -> bool:
        """Whether the next write triggers the kill, so that `tend` must be called often."""
        return self._end.how == "on_write" and self.age >= self._end.seconds

    def tend(self) -> None:
        """End the process if it is due."""
        if self.status is not None or not self._is_due():
            return
        if self._end.how != "asked":
            self.kill()
        elif not self.asked:
            self.asked = True
            self._process.terminate()

    def kill(self) -> None:
        """Kill the process immediately."""
        if self.status is None:
            self.killed = True
            self._process.kill()
        self._process.wait(PATIENCE)

    def pause(self) -> None:
        """Let the process do nothing until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._process.send_signal(signal.SIGCONT)

    def _is_due(self) -> bool:
        """Return whether the process is due; also remember the state of the WAL."""
        before, self._wal_was = self._wal_was, _fingerprint(self._wal)
        if self._end.how == "spared" or self.age < self._end.seconds:
            return False
        if self._end.how == "on_line":
            return self.log.read_bytes().count(b"\n") >= self._end.lines
        return self._end.how != "on_write" or self._wal_was != before


def random_end(random: Random, command: str) -> End:
    """Choose how a process ends; a daemon is never spared."""
    otherwise: How = "asked" if command == "run" else "spared"
    ways: tuple[How, ...] = ("after", "on_line", "on_write", otherwise)
    (how,) = random.choices(ways, (3, 4, 4, 4))
    shortest, longest = (1.5, 8.0) if command == "run" else (0.4, 3.0)
    return End(how, random.uniform(shortest, longest), random.randint(1, 12))


def environment(**secrets: str) -> dict[str, str]:
    """Return a process environment without tagsync settings but these secrets."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **secrets}


def _fingerprint(path: Path) -> tuple[int, int]:
    """Return a value that differs after a write to the file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
