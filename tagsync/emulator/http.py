"""The HTTP server of the emulator: requests, answers and their delivery."""

import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from tagsync.clock import Clock

_MAX_BODY_BYTES: Final = 1 << 20


class Headers(Mapping[str, str]):
    """The headers of a request, by name. A look-up by name ignores case.

    Iteration yields the names as they were sent. If a header was sent more than once, its values
    are joined by ``", "``.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, tuple[str, str]] = {}
        for name, value in fields:
            sent_name, before = self._fields.get(name.lower(), (name, None))
            joined = value if before is None else f"{before}, {value}"
            self._fields[name.lower()] = (sent_name, joined)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (sent_name for sent_name, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)


class Request(NamedTuple):
    """A request that the emulator received.

    Attributes:
        method: The method in upper case.
        target: The path and the query, exactly as sent.
        headers: The headers by name.
        body: The body, empty if there was none.
    """

    method: str
    target: str
    headers: Headers
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path as it was sent. Escapes such as ``%24`` are not decoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The decoded parameters of the query. The last value of a repeated name counts."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


class Delivery(NamedTuple):
    """How an answer is sent to the client.

    Attributes:
        sent_share: The share of the answer (headers and body) that is sent, from 0.0 to 1.0.
        stalls: Whether the connection then stays open until the client closes it. If not, the
            server closes the connection, unless the whole answer was sent.
        leftover: Bytes that follow the whole answer and belong to no request. The connection is
            kept.
    """

    sent_share: float = 1.0
    stalls: bool = False
    leftover: bytes = b""


COMPLETE: Final = Delivery()
"""The usual delivery: the complete answer is sent and the connection is kept."""


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    delivery: Delivery = COMPLETE


class Server(ThreadingHTTPServer):
    """An HTTP server with a thread for each connection. It can close all connections."""

    # A client that keeps its connection open must not delay the end of the emulator.
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], respond: Callable[[Request], Answer], clock: Clock
    ) -> None:
        """Listen on an address.

        Args:
            address: The host and the port. Port 0 means any free port.
            respond: A function that answers a request. Each connection has a thread, in which the
                function is called for the requests of this connection.
            clock: The clock for the header ``Date`` of answers.
        """
        super().__init__(address, _Handler)
        self.respond: Final = respond
        self.clock: Final = clock
        self._connections: set[socket.socket] = set()
        self._lock = Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and remember it as open."""
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and no longer remember it as open."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Shut down all connections, so that the thread of each connection closes it."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print unexpected errors, but ignore clients that disconnect early."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """A handler that reads the requests of one connection and sends the answers."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Read a request and send its answer."""
        body = self.read_body()
        if body is None:
            self.close_connection = True
            self.send(Answer(400, b"", {}))
            return
        # `self.path` is not the path as it was sent: the base class merges leading slashes in it. A
        # signature covers all slashes.
        target = self.requestline.split()[1]
        request = Request(self.command, target, Headers(self.headers.items()), body)
        self.send(self.server.respond(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  http.server's names

    def read_body(self) -> bytes | None:
        """Return the body, or None if its length is unknown, too large or wrong."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,9}", length):
            return None
        size = int(length)
        body = self.rfile.read(size) if size <= _MAX_BODY_BYTES else b""
        return body if len(body) == size else None

    def send(self, answer: Answer) -> None:
        """Send an answer in the way that its `Delivery` describes."""
        own_length = any(name.lower() == "content-length" for name in answer.headers)
        self.close_connection |= own_length
        bodiless = answer.status in {204, 304} or self.command == "HEAD"
        fields = {
            "Date": self.date_time_string(int(self.server.clock().timestamp())),
            "Content-Type": "application/json",
            "Content-Length": str(len(answer.body)),
            **({"Connection": "close"} if self.close_connection else {}),
            **{name.title(): value for name, value in answer.headers.items()},
        }
        phrase = self.responses.get(answer.status, ("",))[0]
        head = [f"HTTP/1.1 {answer.status} {phrase}"]
        head += [f"{name}: {value}" for name, value in fields.items()]
        # Write headers and body at once. After a separate write of the headers, the body could wait
        # until the client acknowledges them.
        message = "\r\n".join([*head, "", ""]).encode() + (b"" if bodiless else answer.body)
        if answer.delivery._replace(leftover=b"") == COMPLETE:
            # At once, so that the leftover bytes arrive together with the answer.
            self.wfile.write(message + answer.delivery.leftover)
        else:
            self.send_part(message, answer.delivery)

    def send_part(self, message: bytes, delivery: Delivery) -> None:
        """Send the first part of a message, then stall or close the connection."""
        self.close_connection = True
        self.wfile.write(message[: int(len(message) * delivery.sent_share)])
        if delivery.stalls:
            # The client sends no more data, so this call returns when the connection is closed.
            self.rfile.read(1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
        """Log nothing, because the process that runs the emulator uses standard error."""
