"""A bad receiver of webhooks: ``python -m tests.torture.notifications.receiver``.

Arguments: the port, the folder of the logs, and a seed, or ``honest`` for a receiver that accepts
everything. The log of ``/web`` is ``web.log``. An entry with ``accepted`` is written before the
first byte of an answer that accepts; also if the answer is broken off afterwards. A message whose
body is cut off is never accepted.
"""

import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Final

from tests.support.receiver import read_body
from tests.torture.notifications.log import append

HONEST: Final = "honest"

WEIGHTS: Final[Mapping[str, int]] = {
    "accepts": 58,
    "slow": 8,
    "429": 5,
    "500": 5,
    "503": 3,
    "redirect": 2,
    "garbage": 4,
    "unread": 4,
    "half a status": 3,
    "no answer": 5,
    "half an answer": 4,
    "too late": 1,
}
"""What the receiver does with a message, and how often."""

ACCEPTS: Final = frozenset({"accepts", "slow", "no answer", "half an answer", "too late"})
"""With these a message is logged as accepted, whether or not tagsync learns of it."""

CUT_OFF: Final = "cut off"
"""What the log says of a message whose sender was killed while it sent it."""

TOO_LATE: Final = 35.0
"""Seconds after which an answer comes too late."""

_REFUSALS: Final[Mapping[str, tuple[int, Mapping[str, str]]]] = {
    "429": (429, {"Retry-After": "1"}),
    "500": (500, {}),
    "503": (503, {"Retry-After": "0"}),
    "redirect": (307, {"Location": "/redirected"}),
}
_BROKEN: Final[Mapping[str, bytes]] = {
    "garbage": b"\x00\xff\x16\x03 this is not HTTP\r\n\r\n",
    "half a status": b"HTTP/1.1 2",
    "no answer": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthank",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    random: Random | None

    def do_POST(self) -> None:
        fault = self._choose()
        body = None if fault == "unread" else read_body(self)
        if body is None:
            self._log(fault if fault == "unread" else CUT_OFF, None)
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(0.5)
        self._log(fault, body.decode())
        if fault == "too late":
            time.sleep(TOO_LATE)
        self._answer(fault)

    def _choose(self) -> str:
        if self.random is None:
            return "accepts"
        return self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]

    def _log(self, fault: str, body: str | None) -> None:
        entry = {
            "at": time.time(),
            "fault": fault,
            "accepted": fault in ACCEPTS,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body,
        }
        append(self.folder / f"{self.path.strip('/')}.log", entry)

    def _answer(self, fault: str) -> None:
        if fault in _BROKEN:
            self.wfile.write(_BROKEN[fault])
            self.close_connection = True
            return
        status, headers = _REFUSALS.get(fault, (202, {}))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Stay silent: tagsync is killed in the middle of its requests."""


def receiver(port: int, folder: Path, seed: str) -> ThreadingHTTPServer:
    """Return a receiver that listens, and does not serve yet; a process can have one."""
    _Handler.folder = folder
    _Handler.random = None if seed == HONEST else Random(seed)
    return _Server(("127.0.0.1", port), _Handler)


def main(port: str, folder: str, seed: str) -> None:
    """Serve until the process is killed."""
    receiver(int(port), Path(folder), seed).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
