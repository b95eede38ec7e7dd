"""Power cuts: go on from a folder's files as they were at their last fsync.

`power_cut.c` is loaded into each process and keeps what was synced. It models a file system that
promises no more than POSIX does: a file has the content of its last fsync, and it exists if the
folder was synced after the file was created. So a file that was never synced is empty, and a file
that was removed is there again unless the folder was synced afterwards.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from shutil import copyfile, rmtree
from typing import Final

_SOURCE: Final = Path(__file__).with_name("power_cut.c")

_SYNC: Final = """\
import os, sys
for path in sys.argv[1:]:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
"""


BETWEEN: Final = (3.5, 6.5)
"""The shortest and the longest time between two power cuts, in seconds."""

LONGEST_WAIT: Final = 2.0
"""How long a power cut waits for a head in a log, in seconds."""


class Outages:
    """When the power is cut: at random, and two out of three times as soon as a head is logged."""

    def __init__(self, random: Random, now: float) -> None:
        """Plan the first power cut.

        Args:
            random: Determines the times.
            now: The time of a monotonic clock, in seconds.
        """
        self._random = random
        self.plan(now)

    def plan(self, now: float) -> None:
        """Plan the next power cut."""
        self._at = now + self._random.uniform(*BETWEEN)
        self._waits = LONGEST_WAIT if self._random.random() < 2 / 3 else 0.0
        self._heads: int | None = None

    def is_due(self, now: float, logs: Iterable[Path]) -> bool:
        """Return whether to cut the power now, given the logs of the running processes."""
        if now < self._at:
            return False
        heads = sum(log.read_bytes().count(b'"head": ') for log in logs)
        if self._heads is None:
            self._heads = heads
        return heads > self._heads or now >= self._at + self._waits


class Disk:
    """A folder whose processes may lose power."""

    def __init__(self, folder: Path, endings: str) -> None:
        """Compile the library, which needs a C compiler.

        Args:
            folder: The folder, which exists.
            endings: A glob for the names of the files that lose what was not synced. The other
                files in the folder are left alone.

        Raises:
            OSError, CalledProcessError: If there is no C compiler, or it fails.
        """
        self._folder: Final = folder.resolve()
        self._files: Final = endings
        self._synced: Final = self._folder / "synced"
        self._synced.mkdir()
        self._library: Final = self._folder / "power_cut.so"
        options = ("-O2", "-shared", "-fPIC", "-Wall", "-Werror")
        command = ["cc", *options, "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that each process needs that writes to the folder."""
        return {
            "LD_PRELOAD": str(self._library),
            "TORTURE_DISK": str(self._folder),
            "TORTURE_SYNCED": str(self._synced),
        }

    def cut_power(self) -> None:
        """Undo what was not synced. No process may have the files open."""
        survivors = self._survivors()
        for path in self._folder.glob(self._files):
            path.unlink()
        for path, content in survivors.items():
            if content.exists():
                copyfile(content, path)
            else:
                path.touch()
        rmtree(self._synced)
        self._synced.mkdir()
        paths = [*map(str, survivors), str(self._folder)]
        environment = {**os.environ, **self.environment}
        subprocess.run([sys.executable, "-IS", "-c", _SYNC, *paths], check=True, env=environment)

    def _survivors(self) -> dict[Path, Path]:
        """Return the files that survive, each with the file that has its content."""
        entries = self._synced / "entries"
        if not entries.exists():
            return {}
        found = {}
        for line in entries.read_text().splitlines():
            content, _, name = line.partition(" ")
            path = self._folder / name
            if path.match(self._files):
                found[path] = self._synced / content
        return found
