"""Run the daemon as a real process, and write its configuration."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Final

WITHIN: Final = 10.0
"""Timeout in seconds for events that come immediately on an idle machine."""


class Process:
    """A real ``tagsync run``, with its log and its service-manager messages."""

    def __init__(self, folder: Path, python: Path | str = sys.executable, **options: Any) -> None:
        self.folder = folder
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self.manager.bind(str(address))
        self.manager.settimeout(WITHIN)
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
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.popen.stderr
        for line in self.popen.stderr:
            self.events.put(json.loads(line) if line.startswith("{") else {"event": line})

    def await_event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait for a log event with these fields, and return it."""
        seen = []
        deadline = time.monotonic() + WITHIN
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
        while True:
            message = self.manager.recv(4096).decode()
            if message.startswith(beginning):
                return message

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=WITHIN)
        finally:
            self.popen.kill()
            self.reader.join(WITHIN)
            assert self.popen.stderr
            self.popen.stderr.close()
            self.manager.close()


def free_port() -> int:
    """Return a port on loopback that is not in use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
