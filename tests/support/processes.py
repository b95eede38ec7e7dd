"""Run the daemon as a real process, and write its configuration."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Final

WITHIN: Final = 30.0
"""Timeout in seconds for events that come immediately on an idle machine."""

_LOWEST_PORT: Final = 20_000
"""The lowest port that `free_port` returns."""

_LOCAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The range of the ports that Linux itself chooses."""

_given: Final[set[int]] = set()
"""The ports that `free_port` has returned."""


class Process:
    """A real ``tagsync run``, with its log and its service-manager messages."""

    def __init__(self, folder: Path, python: Path | str = sys.executable, **options: Any) -> None:
        self.folder = folder
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self._manager.bind(str(address))
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": "400000",
        }
        self.popen = subprocess.Popen(
            [python, "-m", "tagsync", "--log-level", "debug", "run"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.events: Queue[dict[str, Any]] = Queue()
        self._messages: Queue[str] = Queue()
        self._readers = [
            Thread(target=read, daemon=True) for read in (self._read_log, self._read_messages)
        ]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self.popen.stderr
        for line in self.popen.stderr:
            self.events.put(json.loads(line) if _is_event(line) else {"event": line})

    def _read_messages(self) -> None:
        # The socket holds about ten messages, and the daemon drops what does not fit.
        while message := self._manager.recv(4096):
            self._messages.put(message.decode())

    def await_event(self, name: str, *, within: float = WITHIN, **fields: Any) -> dict[str, Any]:
        """Wait some seconds for a log event with these fields, and return it."""
        seen = []
        deadline = time.monotonic() + within
        try:
            while True:
                entry = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
                seen.append(entry)
                if entry["event"] == name and fields.items() <= entry.items():
                    return entry
        except Empty:
            raise AssertionError(f"{name} {fields} was not logged, but {seen[-20:]}") from None

    def await_message(self, beginning: str) -> str:
        """Wait for a service-manager message with this beginning, and return it."""
        seen = []
        deadline = time.monotonic() + WITHIN
        try:
            while True:
                seen.append(self._messages.get(timeout=max(0.0, deadline - time.monotonic())))
                if seen[-1].startswith(beginning):
                    return seen[-1]
        except Empty:
            raise AssertionError(f"no message {beginning}, but {seen[-20:]}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=WITHIN)
        finally:
            self.popen.kill()
            # An empty message, which no daemon sends, ends the thread that reads them.
            with suppress(OSError):
                self._manager.shutdown(socket.SHUT_RD)
            for reader in self._readers:
                reader.join(WITHIN)
            assert self.popen.stderr
            self.popen.stderr.close()
            self._manager.close()


def _is_event(line: str) -> bool:
    # A line that a kill has cut off has no end.
    return line.startswith("{") and line.endswith("\n")


def is_running(number: int) -> bool:
    """Return whether a process exists that has not ended. A zombie has ended."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def free_port() -> int:
    """Return a port on loopback that is not in use, another one with each call.

    It is below those that the system chooses, so that no other server or client gets it meanwhile.
    """
    first = int(_LOCAL_PORTS.read_text().split()[0])
    while True:
        port = secrets.choice(range(_LOWEST_PORT, max(first, _LOWEST_PORT + 10_000)))
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def registry(name: str, endpoint: str, *repositories: str) -> str:
    """Return the TOML of one registry and its watch. Listings agree at once."""
    return (
        f'[[registries]]\nname = "{name}"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n'
        "agree_after = 0\n"
        f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    )


def configure(folder: Path, *registries: str, interval: str = "100ms", more: str = "") -> None:
    """Write a configuration of these registries into the folder."""
    schedule = f'[store]\npath = "tagsync.db"\n[schedule]\ninterval = "{interval}"\n'
    (folder / "config.toml").write_text("\n".join([schedule, more, *registries]))
