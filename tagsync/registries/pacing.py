"""When the next request to a registry may be sent."""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Final

import httpx

from tagsync.clock import Clock, utc_now
from tagsync.errors import (
    Throttled,
)

_BURST: Final = 0.1
"""Seconds of a rate that may be spent at once, so that waking late does not slow a pass."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds that a registry rests when it throttles without ``Retry-After``; doubled each time."""

_LONGEST_REST: Final = 86400.0
"""Seconds of ``Retry-After`` that are believed: a slip of a server should not silence it."""

_DIGITS: Final = 18
"""How long a number in a header may be; Python itself refuses to read those of thousands."""

_A_UNIX_TIME: Final = 1e9
"""From here on a number of seconds is a date, in 2001 or later, and no time to wait."""


def requests_left(headers: httpx.Headers) -> int | None:
    """How many requests the server still allows, from ``RateLimit-Remaining``, if it says so.

    Docker Hub adds the seconds of the window, ``100;w=21600``, and counts only what fetches a
    manifest.
    """
    text = headers.get("RateLimit-Remaining", "").partition(";")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else None


def _reset_after(headers: httpx.Headers, clock: Clock = utc_now) -> float | None:
    """Seconds until more requests are allowed, from ``RateLimit-Reset``, if the server says so.

    The IETF's draft has seconds there (draft-ietf-httpapi-ratelimit-headers-03), GitLab the Unix
    time.
    """
    text = headers.get("RateLimit-Reset", "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < _DIGITS):
        return None
    seconds = float(text)
    if seconds > _A_UNIX_TIME:
        seconds = max(0.0, seconds - clock().timestamp())
    return min(seconds, _LONGEST_REST)


def retry_after(headers: httpx.Headers, clock: Clock = utc_now) -> float | None:
    """Seconds to wait, if the server named them.

    From ``Retry-After`` in either of its forms (RFC 9110, 10.2.3), else from ``RateLimit-Reset``.
    """
    text = headers.get("Retry-After", "").strip()
    if not text:
        return _reset_after(headers, clock)
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_REST)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment.astimezone(UTC) - clock()).total_seconds()
        return min(max(0.0, seconds), _LONGEST_REST)
    except (ValueError, OverflowError):
        return None


class Pacer:
    """Spreads the requests to one registry over time, and stops them all while it throttles."""

    def __init__(
        self,
        requests_per_second: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Takes the clock and the sleep from the caller so that tests own the time."""
        self._spacing = 1 / requests_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = Lock()
        self._next = 0.0
        self._paused_until = 0.0
        self._pauses = 0

    def wait(self, patience: float) -> None:
        """Waits for this request's turn.

        Args:
            patience: seconds that the caller can wait.

        Raises:
            Throttled: the registry rests for longer than that.
        """
        started = self._monotonic()
        while True:
            with self._lock:
                now = self._monotonic()
                pause = self._paused_until - now
                if pause <= 0:
                    turn = max(self._next, now - _BURST)
                    self._next = turn + self._spacing
                    break
            if now + pause > started + patience:
                raise Throttled(
                    "the registry asked for a rest that is longer than retry_for, and is not asked"
                    " before it is over",
                    retry_after=pause,
                )
            self._sleep(pause)
        if turn > now:
            self._sleep(turn - now)

    def throttled(self, retry_after: float | None) -> None:
        """Lets the whole registry rest, for as long as it asked or for longer each time."""
        with self._lock:
            seconds = (
                min(_FIRST_PAUSE * 2 ** min(self._pauses, 10), _LONGEST_PAUSE)
                if retry_after is None
                else retry_after
            )
            now = self._monotonic()
            # Requests that were under way together are throttled together: that is one pause.
            if now >= self._paused_until:
                self._pauses += 1
            self._paused_until = max(self._paused_until, now + seconds)

    def answered(self) -> None:
        """Notes that the registry answers again."""
        self._pauses = 0
