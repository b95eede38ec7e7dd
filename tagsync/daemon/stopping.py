"""Limits for the time that a stop takes, whatever the daemon's threads wait for.

A thread of the daemon may wait for a registry, for a database, or for a log whose reader no longer
reads. None of these waits can be cancelled, so a stop has to go on, and the process has to end,
while such a thread still waits.
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from threading import Thread
from typing import Final

STOP_TIMEOUT: Final = 4.5
"""Seconds from the signal until the process is ended, if it has not ended by itself."""


def end_after_signal(signals: Collection[signal.Signals], seconds: float = STOP_TIMEOUT) -> None:
    """End the process some time after one of these signals. Must be called in the main thread.

    Python runs a signal's handler in the main thread, and only when that thread executes Python
    code. The number of the signal arrives at the wakeup descriptor even while it waits.

    Args:
        signals: Signals that have a handler.
        seconds: Time from the signal to the end of the process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # If the pipe were full, it would be full of reloads: the next byte read is only late.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    numbers = {int(number) for number in signals}

    def await_signal() -> None:
        while numbers.isdisjoint(os.read(reading, 4096)):
            pass
        time.sleep(seconds)
        # All changes are committed. The next start writes the log lines that are pending.
        os._exit(0)

    Thread(target=await_signal, daemon=True, name="stop").start()


def ends_within(seconds: float, step: Callable[[], object]) -> bool:
    """Run a step of the stop in a thread of its own, and return whether it ended in time."""
    thread = Thread(target=step, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
