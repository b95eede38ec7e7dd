"""A receiver of webhooks on loopback, which answers as the test says."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """An answer. In `body`, ``{path}`` becomes the path of the request."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: str = ""


class Received(NamedTuple):
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        content = json.loads(self.body)
        return content if isinstance(content, list) else [content]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


class Receiver:
    """What was received, and what is answered next: the last answer again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.answers = list(answers or [Answer()])
        self.changed = Condition()
        self.before_answer: Callable[[], object] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [number for request in self.received for number in request.ids]

    def take(self, request: Received) -> Answer:
        with self.changed:
            self.received.append(request)
            self.changed.notify_all()
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.before_answer()
        return answer

    def wait_for(self, count: int, seconds: float = 10) -> None:
        """Wait until a number of requests has been received."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, seconds)


def read_body(handler: BaseHTTPRequestHandler) -> bytes | None:
    """Return the body of a request, or None if its sender was killed before it had sent it all."""
    size = int(handler.headers["Content-Length"])
    body = handler.rfile.read(size)
    return body if len(body) == size else None


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    """Run a receiver whose URL has a secret path and a secret query."""
    receiver = Receiver(*answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = read_body(self)
            if body is None:
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(Received(self.path, headers, body))
            text = answer.body.replace("{path}", self.path).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(text)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks/T0KEN-PART?key=QUERY-PART"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
