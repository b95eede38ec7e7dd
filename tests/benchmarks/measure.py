"""Commands measured as whole processes, in turn, so that a busy machine slows all of them alike."""

import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple


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
    """Runs a command to its end.

    Raises:
        ChildProcessError: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ChildProcessError(f"{command} failed:\n{stderr.decode()[-2000:]}")
    wall = time.perf_counter() - began
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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
