"""The HTTP server of the daemon, and its pages ``/metrics``, ``/healthz`` and ``/livez``.

Each connection has one request. Its time and its size are bounded, and so is the number of
connections, because any program that reaches the port may send requests.
"""

import errno
import io
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog

from tagsync.daemon.metrics import Application, Metrics
from tagsync.errors import AddressUnavailable, ConfigError
from tagsync.escaping import escape_control_characters

log = structlog.get_logger()

_TRANSIENT: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""Errors of an address that may be available later."""

_CLIENT_TIMEOUT: Final = 10.0
"""Seconds that a client may take to send its request, and then to read the answer."""

_MAX_CONNECTIONS: Final = 64
"""Maximum number of connections. Further ones are closed at once."""

_MAX_REQUEST: Final = 2**21
"""Maximum size of a request with its headers, in bytes."""


def make_application(
    metrics: Metrics,
    health: Callable[[], Sequence[str]],
    liveness: Callable[[], Sequence[str]],
) -> Application:
    """Return the WSGI application of the daemon.

    Args:
        metrics: Answers ``/metrics``.
        health: Returns one sentence for each problem, for ``/healthz``.
        liveness: The same for ``/livez``, with only those problems that a restart may solve.
    """
    exposition = metrics.exposition()

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return exposition(environ, start_response)
            case "/healthz" | "/livez" as path:
                wrong = health() if path == "/healthz" else liveness()
                status = "503 Service Unavailable" if wrong else "200 OK"
                return plain_text(status, "\n".join(wrong) or "ok", start_response)
            case _:
                return plain_text("404 Not Found", "/metrics, /healthz or /livez", start_response)

    return log_bugs(respond)


def log_bugs(application: Application) -> Application:
    """Return an application that logs unexpected errors of another one, and answers 500."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return application(environ, start_response)
        except Exception as error:
            # A bug, which must not hide behind an answer of the daemon's state.
            log.exception("daemon.failed", error=str(error))
            return plain_text("500 Internal Server Error", "see the log", start_response)

    return answer


class Endpoint:
    """An HTTP server that runs in its own thread until it is closed."""

    def __init__(
        self,
        address: tuple[str, int],
        application: Application,
        key: str = "metrics.listen",
        *,
        timeout: float = _CLIENT_TIMEOUT,
    ) -> None:
        """Start to listen.

        Args:
            address: Host and port. Port 0 selects a free one.
            application: Answers the requests.
            key: The key of the configuration that sets the address.
            timeout: Seconds that a client may take to send its request.

        Raises:
            AddressUnavailable: If another process uses the port, or the host lacks the address.
            ConfigError: If the address cannot be used for another reason.
        """
        server = _IPv6Server if ":" in address[0] else _Server
        try:
            self._server = server(address, _Handler)
        except OSError as error:
            kind = AddressUnavailable if error.errno in _TRANSIENT else ConfigError
            raise kind(
                f"{key}: the daemon cannot listen on {address[0]}, port {address[1]}"
                f" ({error.strerror or error}): choose another address or port"
            ) from error
        self._server.set_app(application)
        self._server.client_timeout = timeout
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening. Requests that are under way are abandoned."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MAX_CONNECTIONS
    client_timeout = _CLIENT_TIMEOUT

    def __init__(self, *arguments: Any) -> None:
        self._free = BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread, unless there are too many connections."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and then make room for another connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def server_bind(self) -> None:
        """Bind without the base class's DNS lookup, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  socketserver's
        """Ignore clients that disconnect early, and log every other error."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            log.error("daemon.failed", error=str(error), exc_info=error)


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Bound the time and the size of the request."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_BoundedInput(self.connection, self.server.client_timeout))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's own name
        """Log nothing: a scrape every few seconds would fill the log, and a path may be secret."""


class _BoundedInput(socket.SocketIO):
    """Reads a request, within a time and up to `_MAX_REQUEST`.

    The timeout of a socket starts again with each byte, so it would not stop a client that sends
    one byte every few seconds.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        super().__init__(connection, "r")
        self._connection = connection
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._left = _MAX_REQUEST

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes.

        Raises:
            TimeoutError: If the client took too long.
            ConnectionError: If the request is too large.
        """
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the client took too long to send its request")
        self._connection.settimeout(seconds)
        try:
            count = super().readinto(buffer)
        finally:
            self._connection.settimeout(self._timeout)
        self._left -= count or 0
        if self._left < 0:
            raise ConnectionError("the request is too large")
        return count


def plain_text(
    status: str, text: str, start_response: Callable[..., Any], *headers: tuple[str, str]
) -> Iterable[bytes]:
    """Answer a request with lines of text, in which control characters are escaped."""
    body = "".join(f"{escape_control_characters(line)}\n" for line in text.splitlines()).encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            *headers,
        ],
    )
    return [body]
