"""The HTTP server of the daemon: ``/metrics``, ``/healthz`` and ``/livez``."""

import errno
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
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
"""Idle timeout for clients, in seconds."""


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

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return respond(environ, start_response)
        except Exception as error:
            # A bug, which must not hide behind an answer of the daemon's state.
            log.exception("daemon.failed", error=str(error))
            return _text("500 Internal Server Error", "see the log", start_response)

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return exposition(environ, start_response)
            case "/healthz" | "/livez" as path:
                wrong = health() if path == "/healthz" else liveness()
                status = "503 Service Unavailable" if wrong else "200 OK"
                return _text(status, "\n".join(wrong) or "ok", start_response)
            case _:
                return _text("404 Not Found", "/metrics, /healthz or /livez", start_response)

    return answer


class Endpoint:
    """An HTTP server that runs in its own thread until it is closed."""

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        """Start to listen.

        Args:
            address: Host and port. Port 0 selects a free one.
            application: Answers the requests.

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
                f"metrics.listen: the daemon cannot listen on {address[0]}, port {address[1]}"
                f" ({error.strerror or error}): choose another address or port"
            ) from error
        self._server.set_app(application)
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
    timeout = _CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's own name
        """Log nothing: a scrape every few seconds would fill the log."""


def _text(status: str, text: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = "".join(f"{escape_control_characters(line)}\n" for line in text.splitlines()).encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ],
    )
    return [body]
