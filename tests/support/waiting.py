"""Wait for what another thread does, if it signals no event."""

from collections.abc import Callable
from threading import Event
from time import monotonic


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition is true, and fail if it takes longer."""
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end
        Event().wait(0.01)
