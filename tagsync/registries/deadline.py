"""A deadline for a whole request, kept where its bytes come in.

httpx bounds each read. A server that sends a byte of a header, an interim answer or a piece of
compressed nothing now and then keeps every one of these bounds, and a thread for days.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpcore
import httpx

_left: Final[ContextVar[Callable[[], float]]] = ContextVar("seconds left for a request")


@contextmanager
def within(seconds: float, monotonic: Callable[[], float]) -> Iterator[None]:
    """Ends what this thread reads from a client that was `bounded`, after so many seconds.

    Args:
        seconds: for all that is sent and read inside.
        monotonic: seconds of a clock that never goes back.

    Raises:
        httpx.TimeoutException: the time is over.
    """
    end = monotonic() + seconds
    token = _left.set(lambda: end - monotonic())
    try:
        yield
    finally:
        _left.reset(token)


def bounded(client: httpx.Client) -> httpx.Client:
    """Lets a client's connections, direct ones and those through a proxy, keep to `within`."""
    # httpcore takes a network of one's own and httpx does not pass one on: this is its only door.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001  see above
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool  # noqa: SLF001  see above
            pool._network_backend = _Network(pool._network_backend)  # noqa: SLF001  see above
    return client


def _capped(timeout: float | None) -> float | None:
    """The smaller of a timeout and what is left of the request's time."""
    left = _left.get(lambda: float("inf"))()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the whole request is over")
    return left if timeout is None else min(timeout, left)


class _Network(httpcore.NetworkBackend):
    """The network, whose connections keep to the deadline."""

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


class _Stream(httpcore.NetworkStream):
    """A connection that keeps to the deadline of whoever uses it at the moment."""

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
        return self._stream.get_extra_info(info)
