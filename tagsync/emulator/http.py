"""HTTP on loopback: what was asked, what is answered, and how it gets there."""

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

_MAX_BODY: Final = 1 << 20


class Headers(Mapping[str, str]):
    """The header fields of a request: looked up in any case, listed as they were sent.

    A field that was sent more than once has its values joined by ``", "``.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, tuple[str, str]] = {}
        for name, value in fields:
            sent_as, before = self._fields.get(name.lower(), (name, None))
            joined = value if before is None else f"{before}, {value}"
            self._fields[name.lower()] = (sent_as, joined)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (sent_as for sent_as, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)


class Request(NamedTuple):
    """What the emulator was asked.

    Attributes:
        method: in capitals.
        target: path and query, exactly as they were sent.
        headers: found in any case.
        body: empty where there was none.
    """

    method: str
    target: str
    headers: Headers
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target's path, as it was sent: a ``%24`` is still one."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of one that is repeated, the last."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


class Delivery(NamedTuple):
    """How an answer gets to the client.

    Attributes:
        sent: the share of its bytes, head and body, that is sent before the connection is closed.
        stalls: whether the connection stays open after that, until the client gives up.
    """

    sent: float = 1.0
    stalls: bool = False


WHOLE: Final = Delivery()
"""As it should be: all of it, and the connection is kept."""


class Answer(NamedTuple):
    """What is said to a request."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    delivery: Delivery = WHOLE


class Server(ThreadingHTTPServer):
    """A thread for each connection, all of which can be cut off."""

    # Leaving does not wait for a client that keeps its connection open: it is cut off.
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()
        self._lock = Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Takes a connection, and remembers it."""
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection, and forgets it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Cuts off who is still connected; each connection's own thread then closes it."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def handler(respond: Callable[[Request], Answer], clock: Clock) -> type[BaseHTTPRequestHandler]:
    """Makes what reads requests and sends what the function answers, dated by the clock."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.read_body()
            if body is None:
                self.close_connection = True
                self.send(Answer(400, b"", {}))
                return
            # The base class shortens leading slashes in `path`, which were signed as they are.
            target = self.requestline.split()[1]
            self.send(respond(Request(self.command, target, Headers(self.headers.items()), body)))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  http.server's names

        def read_body(self) -> bytes | None:
            """The request's body; null where its length is not said, too large or not kept."""
            length = self.headers.get("Content-Length", "0")
            if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,9}", length):
                return None
            size = int(length)
            body = self.rfile.read(size) if size <= _MAX_BODY else b""
            return body if len(body) == size else None

        def send(self, answer: Answer) -> None:
            """Sends head and body at once, lest one wait for the other's acknowledgement."""
            own_length = any(name.lower() == "content-length" for name in answer.headers)
            self.close_connection |= own_length
            bodiless = answer.status in {204, 304} or self.command == "HEAD"
            fields = {
                "Date": self.date_time_string(int(clock().timestamp())),
                "Content-Type": "application/json",
                "Content-Length": str(len(answer.body)),
                **({"Connection": "close"} if self.close_connection else {}),
                **{name.title(): value for name, value in answer.headers.items()},
            }
            phrase = self.responses.get(answer.status, ("",))[0]
            head = [f"HTTP/1.1 {answer.status} {phrase}"]
            head += [f"{name}: {value}" for name, value in fields.items()]
            message = "\r\n".join([*head, "", ""]).encode() + (b"" if bodiless else answer.body)
            if answer.delivery == WHOLE:
                self.wfile.write(message)
            else:
                self.break_off(message, answer.delivery)

        def break_off(self, message: bytes, delivery: Delivery) -> None:
            """Sends a part, and then nothing, or nothing any more."""
            self.close_connection = True
            self.wfile.write(message[: int(len(message) * delivery.sent)])
            if delivery.stalls:
                # Nothing will come: this ends when the client, or the server, closes.
                self.rfile.read(1)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
            """Says nothing: standard error belongs to the program that is shown or tested."""

    return Handler
