"""A thread pool in which runs that hang do not keep others waiting.

A registry may answer for some repositories and not for others. The request for such a repository
ends only with its timeout, and with a fixed number of threads a few of them would keep all others
waiting. The pool therefore has two lanes:

- The first lane has the threads that the configuration allows.
- A run that has waited for one answer of the server longer than `patience` moves to the second
  lane, and its place in the first lane becomes free. A run that is known to hang begins there.

The second lane is limited, too: to `HANGING_PER_THREAD` runs for each thread of the first lane. If
it is full, runs that hang count in the first lane.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any, Final

from tagsync.registries.deadline import HANGING_PER_THREAD, Wait, noting_waits, waiting_for


class LanePool:
    """A thread pool with two lanes. Its threads do not keep the process alive."""

    def __init__(self, threads: int, patience: float | None = None) -> None:
        """Create a pool without threads; they start when they are needed.

        Args:
            threads: Number of threads in the first lane.
            patience: Seconds that a run may wait for an answer in the first lane. None for a pool
                without a second lane.
        """
        self._first = threads
        self._second = 0 if patience is None else threads * HANGING_PER_THREAD
        self._patience = patience or 0.0
        # Guards all attributes below. Idle threads wait for it.
        self._changed = Condition()
        self._queue: deque[_Run] = deque()
        self._hanging_queue: deque[_Run] = deque()
        self._running: set[_Run] = set()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, function: Callable[[], Any], *, hanging: bool = False) -> "LaneFuture":
        """Queue a run.

        Args:
            function: The work.
            hanging: Whether it is known to hang, and begins in the second lane.
        """
        run = _Run(function, hanging=hanging and self._second > 0)
        with self._changed:
            (self._hanging_queue if run.hanging else self._queue).append(run)
            self._wake()
        return run.future

    def close(self, *, cancel: bool = False) -> None:
        """End the threads as soon as the queues are empty. Does not wait for them.

        Args:
            cancel: Whether to cancel the runs that are queued.
        """
        with self._changed:
            self._closed = True
            for run in (*self._queue, *self._hanging_queue) if cancel else ():
                run.future.cancel()
            self._changed.notify_all()

    def _wake(self) -> None:
        """Make a thread look at the queues: an idle one, or a new one if there may be more."""
        if self._idle:
            self._changed.notify()
        elif self._threads < self._first + self._second:
            self._threads += 1
            Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (run := self._take()) is not None:
            run()
            with self._changed:
                self._running.discard(run)

    def _take(self) -> "_Run | None":
        """Wait for a run that may begin. Return None if the thread has to end."""
        with self._changed:
            while (run := self._next()) is None:
                queued = bool(self._queue or self._hanging_queue)
                if self._idle >= self._first or (self._closed and not queued):
                    self._threads -= 1
                    return None
                self._idle += 1
                # Nothing reports that a run hangs, so look again while others wait.
                self._changed.wait(self._patience / 2 or None if queued else None)
                self._idle -= 1
            self._running.add(run)
            if self._queue or self._hanging_queue:
                self._wake()
            return run

    def _next(self) -> "_Run | None":
        """Return the next run that may begin now, and remove it from its queue."""
        now = time.monotonic()
        hanging = sum(run.hangs(now, self._patience) for run in self._running)
        if self._queue and len(self._running) - min(hanging, self._second) < self._first:
            return self._queue.popleft()
        if self._hanging_queue and hanging < self._second:
            return self._hanging_queue.popleft()
        return None


class LaneFuture(Future[Any]):
    """The result of a run, and its wait for a server."""

    def __init__(self) -> None:
        super().__init__()
        self.wait: Final = Wait()

    def result_within_wait(self) -> Any:
        """Return the result. While the run waits for its server, this thread does so, too."""
        with waiting_for(self.wait):
            return self.result()


class _Run:
    """A function to call, and whether it hangs."""

    def __init__(self, function: Callable[[], Any], *, hanging: bool) -> None:
        self.hanging: Final = hanging
        self.future: Final = LaneFuture()
        self._function = function

    def __call__(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            with noting_waits(self.future.wait):
                result = self._function()
        except BaseException as error:  # noqa: BLE001  the scheduler logs it
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def hangs(self, now: float, patience: float) -> bool:
        """Return whether the run belongs to the second lane."""
        since = self.future.wait.since
        return self.hanging or (since is not None and now - since > patience)
