"""The HTTP server of the daemon."""

import socket
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tagsync.daemon.metrics import Application
from tagsync.errors import ConfigError

_CLIENT_TIMEOUT: Final = 10.0
"""Seconds after which who connects and says nothing is let go."""


class Endpoint:
    """Serves a WSGI application on an address, in a thread of its own, until it is closed."""

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        """Listens at once.

        Args:
            address: host and port; port 0 takes any that is free.
            application: answers.

        Raises:
            ConfigError: the address cannot be had.
        """
        kind = _IPv6Server if ":" in address[0] else _Server
        try:
            self._server = kind(address, _Handler)
        except OSError as error:
            raise ConfigError(
                f"metrics.listen: {address[0]}, port {address[1]}, cannot be listened on"
                f" ({error.strerror or error}): name another"
            ) from error
        self._server.set_app(application)
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Which port it is."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops listening; answers under way are given up."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Binds, without looking this host's name up in the DNS as the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: who hangs up early is no news of ours."""


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's own name
        """Says nothing: scrapes are no news."""
