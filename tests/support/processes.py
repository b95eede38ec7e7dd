"""A daemon as a real process, and the configuration it runs with."""

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
"""Seconds that something may take which happens at once on a quiet machine."""


class Process:
    """A real ``tagsync run``, its log and what it tells the service manager as they come."""

    def __init__(self, folder: Path, **options: Any) -> None:
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
            [sys.executable, "-m", "tagsync", "--log-level", "debug", "run"],
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
        while True:
            message = self.manager.recv(4096).decode()
            if message.startswith(beginning):
                return message

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit status."""
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def registry(name: str, endpoint: str, *repositories: str) -> str:
    return (
        f'[[registries]]\nname = "{name}"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n'
        f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    )


def configure(folder: Path, *registries: str, interval: str = "100ms", more: str = "") -> None:
    schedule = f'[store]\npath = "tagsync.db"\n[schedule]\ninterval = "{interval}"\n'
    (folder / "config.toml").write_text("\n".join([schedule, more, *registries]))
