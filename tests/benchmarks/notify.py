"""Measure how soon notifications arrive, and how many a second.

``python -m tests.benchmarks.notify`` starts a real ``tagsync run`` and a receiver on loopback that
accepts everything. It moves a tag 50 times, and prints the time from the poll that observed a move,
and from the push, to the moment at which the receiver has the message, with ``batch = "0s"``. Then
it sends 100,000 events in messages of 100 and of 1,000.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from tagsync import log
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.notify.workers import deliver_within
from tagsync.secrets import Secret
from tests.support.events import add_moves
from tests.support.processes import Process, configure, registry
from tests.support.receiver import Receiver, receiving

MOVES: Final = 50
EVENTS: Final = 100_000
INTERVAL: Final = 1.0
"""Seconds between two polls."""

_DESTINATION: Final = '[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "file:{path}"\n'


def main() -> None:
    """Print how long messages take, and how many events arrive in a second."""
    log.configure("json", "error")
    from_poll, from_push = latencies()
    _say(f"from the poll to the receiver: {_summary(from_poll)}")
    _say(f"from the push, with an interval of {INTERVAL:g} s: {_summary(from_push)}")
    for size in (100, 1000):
        seconds = sending(size)
        _say(
            f"{EVENTS:,} events in messages of {size}: {seconds:.1f} s,"
            f" {EVENTS / seconds:,.0f} a second"
        )


def latencies() -> tuple[list[float], list[float]]:
    """Return the seconds of each move, from the end of its poll and from its push."""
    random = Random(1)
    from_poll, from_push = [], []
    with _folder() as folder, Emulator() as emulator, _arrivals() as (receiver, arrived):
        emulator.push("team/api", "v1", "0")
        (folder / "url").write_text(receiver.url)
        (folder / "url").chmod(0o600)
        listed = registry("swr", emulator.url, "team/api")
        more = _DESTINATION.format(path=folder / "url")
        configure(folder, listed, interval=f"{INTERVAL:g}s", more=more)
        daemon = Process(folder)
        try:
            daemon.await_event("repository.baselined")
            for number in range(1, MOVES + 1):
                time.sleep(random.uniform(0, 2 * INTERVAL))
                pushed = time.time()
                emulator.push("team/api", "v1", str(number))
                receiver.wait_for(number)
                _wait_for(arrived, number)
                (event,) = receiver.received[-1].events
                observed = datetime.fromisoformat(event["time"]).timestamp()
                from_poll.append(arrived[-1] - observed)
                from_push.append(arrived[-1] - pushed)
        finally:
            daemon.stop()
    return from_poll, from_push


def sending(batch_size: int) -> float:
    """Return the seconds in which all events are sent to one webhook."""
    with _folder() as folder, _arrivals() as (receiver, _):
        path = folder / "tagsync.db"
        with Store.open(path) as store:
            store.outbox.add("ops", after=0)
            add_moves(path, EVENTS)
            rule = Rule("ops", WebhookTarget(Secret(receiver.url)), batch_size=batch_size)
            began = time.monotonic()
            deliver_within(store.outbox, [rule], 3600)
            seconds = time.monotonic() - began
        numbers = [int(number) for number in receiver.ids]
    if len(numbers) != EVENTS or any(after <= before for before, after in pairwise(numbers)):
        raise AssertionError("the receiver did not get each event once, in order")
    return seconds


@contextmanager
def _arrivals() -> Iterator[tuple[Receiver, list[float]]]:
    """Run a receiver, with a list of the times at which messages were there."""
    arrived: list[float] = []
    with receiving() as receiver:
        receiver.before_answer = lambda: arrived.append(time.time())
        yield receiver, arrived


def _wait_for(arrived: list[float], count: int) -> None:
    """Wait until the time of a message is noted, which follows at once."""
    while len(arrived) < count:
        time.sleep(0.001)


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


def _summary(seconds: list[float]) -> str:
    return f"median {median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)} moves"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  the result


if __name__ == "__main__":
    main()
