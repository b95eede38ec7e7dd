"""Commands measured as whole processes, in turn, so that a busy machine slows all of them alike."""

import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

TAGSYNC: Final = (
    sys.executable,
    "-c",
    "import sys; sys.modules['numpy'] = None; from tagsync.cli import main; main()",
)
"""tagsync's command as its users have it.

The picture's library brings numpy along, which sqlite-utils imports wherever it is: for a new
database 0.1 s and 13 MiB that no user of tagsync pays.
"""


class Cost(NamedTuple):
    """What a process took: seconds on the wall and of processors, and MiB at its peak."""

    wall: float
    cpu: float
    peak: float


class Measured(NamedTuple):
    """A command, and what has to be done before each of its runs."""

    command: Sequence[str]
    before: Callable[[], object] = lambda: None


def cost(command: Sequence[str]) -> Cost:
    """Runs a command to its end, as the child of a small process.

    A process that is started by a large one counts that one's memory as its own (getrusage(2)).

    Raises:
        ChildProcessError: it failed.
    """
    small = [sys.executable, "-m", "tests.benchmarks.measure", *command]
    finished = subprocess.run(small, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ChildProcessError(f"{command} failed:\n{finished.stderr[-2000:]}")
    return Cost(*json.loads(finished.stdout))


def main() -> int:
    """Runs the command in the arguments, and prints what it took; gives its exit status."""
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))  # noqa: T201
    return os.waitstatus_to_exitcode(status)


def in_turn(measured: Mapping[str, Measured], runs: int) -> dict[str, Cost]:
    """Runs all commands in turn, several times over, and gives the medians of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, (command, before) in measured.items():
            before()
            costs[name].append(cost(command))
    return {name: middle(some) for name, some in costs.items()}


def middle(costs: Iterable[Cost]) -> Cost:
    """The medians of what several runs took."""
    return Cost(*(median(values) for values in zip(*costs, strict=True)))


def machine() -> str:
    """The machine, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


if __name__ == "__main__":
    sys.exit(main())
