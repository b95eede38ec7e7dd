"""A deadline for a whole request, and a note of each wait, both in the network layer.

httpx limits only the time of each read. A server that regularly sends a byte of a header, an
interim response or an empty compressed block never exceeds this limit. Without a deadline, it could
block a thread for days.

The note tells a poll that waits for its server from one that makes progress.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpcore
import httpx

from tagsync.registries.leftovers import Connection

HANGING_PER_THREAD: Final = 7
"""How many requests may hang, for each thread of a registry that its `concurrency` allows."""


_PATIENCE_IN_TIMEOUT: Final = 10


def patience_within(timeout: float) -> float:
    """Return the seconds after which a wait for one answer counts as hanging.

    Args:
        timeout: Maximum time of a request, in seconds.
    """
    return timeout / _PATIENCE_IN_TIMEOUT


class Wait:
    """The wait of a thread for a server.

    Attributes:
        began: When it began, in seconds of `time.monotonic`. None while the thread does not wait.
        other: The wait of another thread, for whose result this one waits. None if there is none.
    """

    def __init__(self) -> None:
        self.began: float | None = None
        self.other: Wait | None = None

    @property
    def since(self) -> float | None:
        """When this thread, or the other one, began to wait. None while they do not wait."""
        other = self.other
        return self.began if other is None else other.since


Check = Callable[[str, httpcore.NetworkStream], None]
"""A function that checks a new connection to a host, before anything is sent on it."""

_wait: Final[ContextVar[Wait | None]] = ContextVar("the wait of this thread", default=None)
_left: Final[ContextVar[Callable[[], float]]] = ContextVar("seconds left for a request")


@contextmanager
def noting_waits(wait: Wait) -> Iterator[None]:
    """Note in an object when this thread waits for a server inside the block."""
    token = _wait.set(wait)
    try:
        yield
    finally:
        _wait.reset(token)


@contextmanager
def waiting() -> Iterator[None]:
    """Note that this thread waits for a server inside the block; see `noting_waits`."""
    wait = _wait.get()
    if wait is None:
        yield
        return
    wait.began = time.monotonic()
    try:
        yield
    finally:
        wait.began = None


@contextmanager
def waiting_for(other: Wait) -> Iterator[None]:
    """Note that this thread waits inside the block as long as another one does."""
    wait = _wait.get()
    if wait is None:
        yield
        return
    wait.other = other
    try:
        yield
    finally:
        wait.other = None


@contextmanager
def within(seconds: float, monotonic: Callable[[], float]) -> Iterator[None]:
    """Limit the total time of all requests that this thread makes inside the block.

    Only a transport that was prepared by `bounded` respects the limit.

    Args:
        seconds: Maximum time of all requests inside the block together.
        monotonic: Returns the seconds of a clock that never goes back.

    Raises:
        httpx.TimeoutException: If the time is over before a request is complete.
    """
    end = monotonic() + seconds
    token = _left.set(lambda: end - monotonic())
    try:
        yield
    finally:
        _left.reset(token)


def bounded(transport: httpx.HTTPTransport, check: Check | None = None) -> httpx.HTTPTransport:
    """Make all connections of a transport respect `within`, and return the transport.

    Args:
        transport: The transport.
        check: Called with each new connection, which is closed if an exception is raised.
    """
    # httpx has no parameter for httpcore's network backend, so it is replaced afterwards.
    pool = transport._pool  # noqa: SLF001  see above
    pool._network_backend = _Network(pool._network_backend, check)  # noqa: SLF001  see above
    return transport


def _capped(timeout: float | None) -> float | None:
    """Return the timeout, or the time left in the `within` block if this is shorter.

    Raises:
        httpcore.ReadTimeout: If no time remains.
    """
    left = _left.get(lambda: float("inf"))()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the whole request is over")
    return left if timeout is None else min(timeout, left)


class _Network(httpcore.NetworkBackend):
    """A network backend whose connections respect the deadline set by `within`."""

    def __init__(self, network: httpcore.NetworkBackend, check: Check | None) -> None:
        self._network = network
        self._check = check

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        with waiting():
            stream = self._network.connect_tcp(
                host, port, _capped(timeout), local_address, socket_options
            )
        try:
            if self._check is not None:
                self._check(host, stream)
        except BaseException:
            stream.close()
            raise
        return _Stream(stream)


class _Stream(Connection):
    """A connection that respects the deadline of the thread that currently uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with waiting():
            return self._stream.read(max_bytes, _capped(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with waiting():
            self._stream.write(buffer, _capped(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with waiting():
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, _capped(timeout)))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.has_leftovers:
            # httpcore closes an idle connection that is readable instead of using it again.
            return True
        return self._stream.get_extra_info(info)
