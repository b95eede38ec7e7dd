"""The thread pool with two lanes, with real threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Event, Lock
from time import monotonic
from typing import Any

import pytest

from tagsync.registries.deadline import HANGING_PER_THREAD, waiting
from tagsync.registries.lanes import LanePool
from tests.support.waiting import eventually

WITHIN = 10.0
PATIENCE = 0.02
NEVER = 1e6


@pytest.fixture
def gate() -> Iterator[Event]:
    """An event that is set at the latest when the test ends."""
    event = Event()
    yield event
    event.set()


class Hanging:
    """A run that waits for the gate, as if it waited for its server, or as if it worked."""

    def __init__(self, gate: Event, *, for_server: bool = True) -> None:
        self._gate = gate
        self._for_server = for_server
        self._lock = Lock()
        self.began = 0

    def __call__(self) -> None:
        with self._lock:
            self.began += 1
        if not self._for_server:
            assert self._gate.wait(WITHIN)
            return
        with waiting():
            assert self._gate.wait(WITHIN)


def submit(
    pool: LanePool, run: Callable[[], Any], times: int, **options: bool
) -> list[Future[Any]]:
    return [pool.submit(run, **options) for _ in range(times)]


def test_runs_that_hang_do_not_keep_others_waiting(gate: Event) -> None:
    """All others run, although more runs hang than the pool has threads."""
    pool, hanging = LanePool(2, PATIENCE), Hanging(gate)
    submit(pool, hanging, 2 * HANGING_PER_THREAD)
    quick = [pool.submit(lambda: 7) for _ in range(50)]
    assert {each.result(WITHIN) for each in quick} == {7}
    # The thread of the last run may have taken it from the queue, and not begun it yet.
    eventually(lambda: hanging.began == 2 * HANGING_PER_THREAD)
    pool.close()


def test_the_second_lane_is_limited(gate: Event) -> None:
    """If more runs hang than the second lane takes, the others have to wait."""
    pool, hanging = LanePool(2, PATIENCE), Hanging(gate)
    runs = submit(pool, hanging, 2 * HANGING_PER_THREAD + 5)
    quick = pool.submit(lambda: 7)
    until = monotonic() + 20 * PATIENCE
    while monotonic() < until:
        assert hanging.began <= 2 * HANGING_PER_THREAD + 2
    assert not quick.done()
    gate.set()
    assert quick.result(WITHIN) == 7
    assert [run.result(WITHIN) for run in runs] == [None] * len(runs)


@pytest.mark.parametrize("for_server", [True, False])
def test_runs_that_do_not_hang_keep_to_their_threads(gate: Event, for_server: bool) -> None:
    """A slow run that works, or that does not wait longer than the patience, stays in its lane."""
    patience = NEVER if for_server else PATIENCE
    pool, slow = LanePool(2, patience), Hanging(gate, for_server=for_server)
    runs = submit(pool, slow, 6)
    until = monotonic() + 10 * PATIENCE
    while monotonic() < until:
        assert slow.began <= 2
    gate.set()
    for run in runs:
        run.result(WITHIN)
    assert slow.began == 6


def test_runs_that_are_known_to_hang_begin_in_the_second_lane(gate: Event) -> None:
    """They take no thread of the first lane, not even for a moment."""
    pool, hanging = LanePool(1, NEVER), Hanging(gate)
    runs = submit(pool, hanging, HANGING_PER_THREAD + 3, hanging=True)
    quick = [pool.submit(lambda: 7) for _ in range(20)]
    assert {each.result(WITHIN) for each in quick} == {7}
    assert hanging.began <= HANGING_PER_THREAD
    gate.set()
    for run in runs:
        run.result(WITHIN)


def test_a_pool_without_a_second_lane_runs_everything_in_the_first() -> None:
    """The pools of the daemon's own jobs have one lane."""
    pool = LanePool(1)
    assert pool.submit(lambda: 7, hanging=True).result(WITHIN) == 7


def test_a_closed_pool_ends_what_is_queued() -> None:
    """Runs that are queued when the pool is closed still run; errors reach their future."""
    pool, gate = LanePool(1, PATIENCE), Event()
    first = pool.submit(lambda: gate.wait(WITHIN))
    second = pool.submit(lambda: 1 / 0)
    pool.close()
    gate.set()
    assert first.result(WITHIN)
    assert isinstance(second.exception(WITHIN), ZeroDivisionError)
