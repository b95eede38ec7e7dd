"""What the writer's lock and durable heads cost, in an idle and in a busy pass.

``python -m tests.benchmarks.writing`` polls repositories of a registry in memory, one after the
other, into stores that differ only in the lock. All figures are medians. The first round, which
records all tags, does not count.
"""

import argparse
import tempfile
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import structlog

from tagsync.database.connection import connect, connect_beside
from tagsync.database.file_identity import FileIdentity
from tagsync.database.store import Store
from tagsync.database.writer_lock import WriterLock
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

TAGS = tuple(f"v{number}" for number in range(10))


def open_store(path: Path, *, locks: bool) -> Store:
    """Open a store that uses the writer's lock, or none."""
    writer = connect(path)
    lock = WriterLock(path, 10) if locks else nullcontext()
    return Store(connect_beside(path), writer, path, lock, FileIdentity(writer, path))


class Passes:
    """Passes over the same repositories into one store."""

    def __init__(self, store: Store, repositories: int) -> None:
        self._store, self._clock = store, FakeClock()
        self._registry = Scripted(self._clock)
        self._jobs = [
            Job(Repository("r", f"team/{number}"), self._registry, timedelta(minutes=5))
            for number in range(repositories)
        ]

    def run(self, *tags: str) -> tuple[float, float, float]:
        """Poll each repository. Return how long polls, reading and flushing the heads took."""
        self._clock.advance(minutes=5)
        began = perf_counter()
        for job in self._jobs:
            self._registry.then(*tags)
            poll(job, self._store, clock=self._clock)
        polled = perf_counter()
        self._store.heads()
        read = perf_counter()
        self._store.durable_heads()
        return polled - began, read - polled, perf_counter() - read


def measure(folder: Path, repositories: int, rounds: int) -> None:
    """Print the medians of idle and busy passes, without and with the lock in turn."""
    passes = {
        locks: Passes(open_store(folder / f"{locks}.db", locks=locks), repositories)
        for locks in (False, True)
    }
    times: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
    for number in range(rounds):
        for locks, each in passes.items():
            busy = each.run(*TAGS, f"x{number}")
            idle = each.run(*TAGS, f"x{number}")
            if number:
                times.setdefault(("idle", locks), []).append(idle)
                times.setdefault(("busy", locks), []).append(busy)
    for (kind, locks), found in sorted(times.items()):
        polls, read, flushed = (1000 * median(column) for column in zip(*found, strict=True))
        click.echo(
            f"{kind} pass {'with' if locks else 'without'} the lock: {polls:.0f} ms;"
            f" its heads: {read:.2f} ms, durable: {flushed:.1f} ms"
        )


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.repositories, options.rounds)


if __name__ == "__main__":
    main()
