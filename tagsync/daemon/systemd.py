"""The service manager's notification protocol, as sd_notify(3) describes it.

A notification is a datagram of ``NAME=value`` lines, sent to the socket that ``$NOTIFY_SOCKET``
names. If the variable is not set, as in a terminal or a container, nothing is sent.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

_PATIENCE: Final = 2.0
"""Seconds to wait for a manager whose socket is full, before a message that is sent only once."""


class ServiceManager:
    """The process that started the daemon, if it is systemd or speaks its protocol."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Read the socket's address from the environment."""
        address = env.get("NOTIFY_SOCKET", "")
        # A leading "@" represents the zero byte of Linux's abstract sockets (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._env = env

    @property
    def watchdog(self) -> timedelta | None:
        """The longest time that the manager allows between heartbeats (sd_watchdog(3)).

        None if it expects no heartbeats.
        """
        microseconds = self._env.get("WATCHDOG_USEC", "")
        process = self._env.get("WATCHDOG_PID", "")
        if not microseconds.isdigit() or process not in {"", str(os.getpid())}:
            return None
        return timedelta(microseconds=int(microseconds)) or None

    def ready(self, status: str) -> None:
        """Report that the daemon has started, or has finished a reload."""
        self._notify("READY=1", f"STATUS={status}", seconds=_PATIENCE)

    def reloading(self) -> None:
        """Report that a reload of the configuration begins. `ready` reports its end.

        With ``Type=notify-reload``, systemd uses the time in this message to match it with the
        reload that systemd requested.
        """
        monotonic = f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"
        self._notify("RELOADING=1", monotonic, seconds=_PATIENCE)

    def status(self, status: str) -> None:
        """Set the line for ``systemctl status``."""
        self._notify(f"STATUS={status}")

    def heartbeat(self, status: str) -> None:
        """Send the watchdog's heartbeat, and the line for ``systemctl status``."""
        self._notify("WATCHDOG=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Report that the daemon is stopping."""
        self._notify("STOPPING=1")

    def _notify(self, *lines: str, seconds: float = 0.0) -> None:
        """Send a message; drop it if the manager does not read for some seconds.

        By default this does not wait, because a thread of the scheduler sends heartbeats.
        """
        if not self._address:
            return
        # A manager that does not listen must not stop the daemon.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(seconds)
            # Connected, so that a wait ends as soon as there is room in the other socket.
            channel.connect(self._address)
            text = "\n".join(" ".join(line.splitlines()) for line in lines)
            channel.send(text.encode())
