"""Measure commands as whole processes, in turn, so that load affects all of them."""

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
"""The tagsync command as users have it: without numpy.

The plot needs numpy, and sqlite-utils imports numpy if it is installed. A new database would take
0.1 s and 13 MiB more than for users.
"""


class Cost(NamedTuple):
    """The cost of a process: wall and processor time in seconds, peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


class Measured(NamedTuple):
    """A command, and a call that prepares each of its runs."""

    command: Sequence[str]
    before: Callable[[], object] = lambda: None


def cost(command: Sequence[str]) -> Cost:
    """Run a command to its end as the child of a small process, and return its cost.

    A child of a large process would count that process's memory as its own (getrusage(2)).

    Raises:
        ChildProcessError: If the command failed.
    """
    small = [sys.executable, "-m", "tests.benchmarks.measure", *command]
    finished = subprocess.run(small, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ChildProcessError(f"{command} failed:\n{finished.stderr[-2000:]}")
    return Cost(*json.loads(finished.stdout))


def main() -> int:
    """Run the command in the arguments, print its cost, and return its exit status."""
    began = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))  # noqa: T201  a figure
    return os.waitstatus_to_exitcode(status)


def in_turn(measured: Mapping[str, Measured], runs: int) -> dict[str, Cost]:
    """Run all commands in turn, several times, and return the median cost of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, (command, before) in measured.items():
            before()
            costs[name].append(cost(command))
    return {name: median_cost(some) for name, some in costs.items()}


def median_cost(costs: Iterable[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(*(median(values) for values in zip(*costs, strict=True)))


def machine() -> str:
    """Return a description of the machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


if __name__ == "__main__":
    sys.exit(main())
