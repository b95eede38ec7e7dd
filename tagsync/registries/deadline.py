"""A deadline for a whole request, enforced in the network layer.

httpx limits only the time of each read. A server that regularly sends a byte of a header, an
interim response or an empty compressed block never exceeds this limit. Without a deadline, it could
block a thread for days.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpcore
import httpx

from tagsync.registries.leftovers import Connection

_left: Final[ContextVar[Callable[[], float]]] = ContextVar("seconds left for a request")


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


def bounded(transport: httpx.HTTPTransport) -> httpx.HTTPTransport:
    """Make all connections of a transport respect `within`, and return the transport."""
    # httpx has no parameter for httpcore's network backend, so it is replaced afterwards.
    pool = transport._pool  # noqa: SLF001  see above
    pool._network_backend = _Network(pool._network_backend)  # noqa: SLF001  see above
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

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._network.connect_tcp(host, port, _capped(timeout), local_address, socket_options)
        )


class _Stream(Connection):
    """A connection that respects the deadline of the thread that currently uses it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _capped(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _capped(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _capped(timeout)))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.has_leftovers:
            # httpcore closes an idle connection that is readable instead of using it again.
            return True
        return self._stream.get_extra_info(info)
