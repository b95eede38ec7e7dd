"""Tells the service manager how the daemon is, by the protocol of sd_notify(3).

A datagram of ``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names. Without one, as in a
terminal or a container, nothing is told to anybody.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta


class ServiceManager:
    """Who started the daemon, if it is systemd or speaks like it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Takes the address and the watchdog's time from the environment."""
        address = env.get("NOTIFY_SOCKET", "")
        # A leading "@" stands for the zero byte of Linux's abstract sockets (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._env = env

    @property
    def watchdog(self) -> timedelta | None:
        """How long the manager waits for a sign of life, if it waits for one (sd_watchdog(3))."""
        microseconds = self._env.get("WATCHDOG_USEC", "")
        process = self._env.get("WATCHDOG_PID", "")
        if not microseconds.isdigit() or process not in {"", str(os.getpid())}:
            return None
        return timedelta(microseconds=int(microseconds)) or None

    def ready(self, status: str) -> None:
        """The daemon is up, or up again after a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends that.

        The time is what ``Type=notify-reload`` tells an answer to its own request by.
        """
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self, status: str) -> None:
        """The sign of life that the watchdog waits for, and a sentence for ``systemctl status``."""
        self._tell("WATCHDOG=1", f"STATUS={status}")

    def stopping(self) -> None:
        """The daemon is going down."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason to stop working.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            # Never wait: the one who tells is the scheduler's own thread.
            channel.setblocking(False)
            text = "\n".join(" ".join(line.splitlines()) for line in lines)
            channel.sendto(text.encode(), self._address)
