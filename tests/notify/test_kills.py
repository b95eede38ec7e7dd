"""Processes that deliver are killed at random: nothing is lost, and nothing is invented."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tagsync.database.store import Store
from tests.support.events import add_moves, destination
from tests.support.receiver import Answer, Receiver, receiving

pytestmark = pytest.mark.processes

EVENTS = 600
ROUNDS = 4
AGAIN = Answer(503, {"Retry-After": "0"})


def start(path: Path, url: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.support.notifier", str(path), url])


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def expire_lease(store: Store) -> None:
    """Let the lease of a killed process run out at once."""
    holder = destination(store.outbox).lease_holder
    if holder is not None:
        store.outbox.release("ops", holder)


def assert_nothing_is_lost(receiver: Receiver) -> None:
    """Check what arrived: everything in order, and repetitions with the same ids only."""
    first: dict[str, str] = {}
    sequences: dict[str, str] = {}
    batches: dict[str, list[str]] = {}
    for request in receiver.received:
        number = request.headers["webhook-id"]
        assert batches.setdefault(number, request.ids) == request.ids
        for event in request.events:
            assert first.setdefault(event["id"], number) == number
            assert sequences.setdefault(event["id"], event["sequence"]) == event["sequence"]
    assert list(first) == [str(number) for number in range(1, EVENTS + 1)]
    assert [int(each) for each in sequences.values()] == list(range(1, EVENTS + 1))


def test_kills_lose_and_invent_nothing(tmp_path: Path) -> None:
    """Two processes send while events are recorded, and are killed; the receiver is unreliable."""
    random = Random(1)
    path = tmp_path / "tagsync.db"
    with Store.open(path) as store, receiving() as receiver:
        receiver.before_answer = lambda: receiver.answers.__setitem__(
            0, AGAIN if random.random() < 0.2 else Answer()
        )
        store.outbox.add("ops", after=0)
        for _ in range(ROUNDS):
            count = len(receiver.received)
            pair = [start(path, receiver.url) for _ in range(2)]
            add_moves(path, EVENTS // ROUNDS)
            until(lambda count=count: len(receiver.received) > count, 20)  # type: ignore[misc]
            time.sleep(random.random() / 5)
            for process in pair:
                process.kill()
                process.wait()
            expire_lease(store)
        last = start(path, receiver.url)
        arrived = until(lambda: destination(store.outbox).cursor == EVENTS, 300)
        last.kill()
        last.wait()
        assert arrived
    assert_nothing_is_lost(receiver)
