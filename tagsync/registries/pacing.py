"""Rate limits: tagsync's own, and those that a registry names in its responses."""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Final

import httpx

from tagsync.clock import Clock, utc_now
from tagsync.errors import Throttled

_BURST: Final = 0.1
"""Seconds by which a request may be sent early. Without this, each thread that wakes up late would
lower the rate of all requests."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds to pause after a throttled request whose response names no time. Each further pause is
twice as long as the one before, up to the longest pause."""

_LONGEST_WAIT: Final = 86400.0
"""The longest pause that a server can ask for, in seconds. Without a limit, a server's mistake
could stop the polls of a registry for years."""

_MAX_DIGITS: Final = 17
"""A number with more digits in a ``RateLimit`` header is ignored. Python's ``int`` raises an error
for numbers with thousands of digits."""

_EARLIEST_UNIX_TIME: Final = 1e9
"""A number in ``Retry-After`` or ``RateLimit-Reset`` above this one is a Unix time (2001 or later).
A number below it is seconds."""

_EARLIEST_MILLISECONDS: Final = 1e12
"""A number above this one is a Unix time in milliseconds."""


def requests_left(headers: httpx.Headers) -> int | None:
    """Return how many requests the server still allows (``RateLimit-Remaining``).

    Docker Hub counts only requests that fetch a manifest. It appends the length of the period for
    which it counts, in seconds: ``100;w=21600``. Its API for lists writes ``X-RateLimit-…``.

    Returns:
        None if the header is missing or invalid.
    """
    text = _first(headers, "RateLimit-Remaining", "X-RateLimit-Remaining").partition(";")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def reset_after(headers: httpx.Headers, clock: Clock = utc_now) -> float | None:
    """Return the seconds until the server allows more requests (``RateLimit-Reset``).

    The header holds a number of seconds (draft-ietf-httpapi-ratelimit-headers-03) or, from GitLab
    and Docker Hub, a Unix time.

    Returns:
        None if the header is missing or invalid.
    """
    text = _first(headers, "RateLimit-Reset", "X-RateLimit-Reset")
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    return _seconds_until(float(text), clock)


def retry_after(headers: httpx.Headers, clock: Clock = utc_now) -> float | None:
    """Return the seconds after which the server asks the client to retry.

    ``Retry-After`` holds a number of seconds or a date (RFC 9110, 10.2.3), or from Docker Hub a
    Unix time, which Docker Hub also sends as ``X-Retry-After``. If these headers are missing,
    ``RateLimit-Reset`` is used instead.

    Returns:
        None if all headers are missing, or the one in use is invalid.
    """
    text = _first(headers, "Retry-After", "X-Retry-After")
    if not text:
        return reset_after(headers, clock)
    if text.isascii() and text.isdigit():
        return _seconds_until(float(text), clock)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment.astimezone(UTC) - clock()).total_seconds()
        return min(max(0.0, seconds), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None


def _first(headers: httpx.Headers, *names: str) -> str:
    """Return the value of the first of these headers that was sent, or an empty string."""
    return next((headers[name].strip() for name in names if name in headers), "")


def _seconds_until(number: float, clock: Clock) -> float:
    """Return the seconds that a server means: the number itself, or the time until it.

    Args:
        number: A number of seconds, or a Unix time.
        clock: Returns the time.
    """
    if number > _EARLIEST_MILLISECONDS:
        number /= 1000
    if number > _EARLIEST_UNIX_TIME:
        number = max(0.0, number - clock().timestamp())
    return min(number, _LONGEST_WAIT)


class Pacer:
    """A rate limiter for the requests to one registry, with pauses while it throttles."""

    def __init__(
        self,
        requests_per_second: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the pacer. Tests pass their own clock and sleep to control the time."""
        self._requests_per_second = requests_per_second
        self._whole: Pacer | None = None
        self._spacing = 1 / requests_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = Lock()
        self._next = 0.0
        self._paused_until = 0.0
        self._pauses = 0

    def apart(self) -> "Pacer":
        """Return a pacer for some of the requests, which may be throttled without the others.

        They wait for its pauses, and then for those and the rate of this pacer. Its own pauses stop
        no other request.
        """
        pacer = Pacer(self._requests_per_second, monotonic=self._monotonic, sleep=self._sleep)
        pacer._whole = self
        return pacer

    def wait(self, patience: float) -> None:
        """Wait until the caller may send a request.

        Args:
            patience: Maximum seconds to wait for the end of a pause.

        Raises:
            Throttled: If the pause ends later than that.
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
                    "the registry asked for a pause that is longer than retry_for; no request is"
                    " sent before the pause is over",
                    retry_after=pause,
                )
            self._sleep(pause)
        if self._whole is not None:
            self._whole.wait(started + patience - now)
        elif turn > now:
            self._sleep(turn - now)

    def throttled(self, retry_after: float | None) -> None:
        """Pause all requests to the registry.

        Args:
            retry_after: Seconds to pause, if the registry named them. If None, the first pause
                takes a second, and each further one twice as long as the one before.
        """
        with self._lock:
            seconds = (
                min(_FIRST_PAUSE * 2 ** min(self._pauses, 10), _LONGEST_PAUSE)
                if retry_after is None
                else retry_after
            )
            now = self._monotonic()
            # Several requests that are in flight together may all be throttled. This is one pause.
            if now >= self._paused_until:
                self._pauses += 1
            self._paused_until = max(self._paused_until, now + seconds)

    def answered(self) -> None:
        """Make the next pause as short as the first, because the registry has answered."""
        self._pauses = 0
