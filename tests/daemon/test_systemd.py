"""The notification protocol of sd_notify(3), on a real socket."""

import os
import re
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from tagsync.daemon.systemd import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(5)
        yield channel


def test_each_message_is_a_datagram_of_lines(manager: socket.socket, tmp_path: Path) -> None:
    """Messages have the format of sd_notify(3), each in its own datagram."""
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    service.ready("up")
    service.status("busy")
    service.reloading()
    service.heartbeat("well")
    service.stopping()
    assert manager.recv(1000) == b"READY=1\nSTATUS=up"
    assert manager.recv(1000) == b"STATUS=busy"
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(1000))
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=well"
    assert manager.recv(1000) == b"STOPPING=1"


def test_a_status_stays_on_its_line(manager: socket.socket, tmp_path: Path) -> None:
    """A line break in a status does not begin another assignment."""
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}).ready("a\nSTOPPING=1")
    assert manager.recv(1000) == b"READY=1\nSTATUS=a STOPPING=1"


def test_an_abstract_address_is_reached() -> None:
    """An address that begins with @ names an abstract socket of Linux."""
    name = f"tagsync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{name}")
        channel.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert channel.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@no-such-socket", "relative"])
def test_a_missing_manager_does_not_stop_the_daemon(address: str) -> None:
    """Without a manager that listens, nothing is sent and nothing fails."""
    ServiceManager({"NOTIFY_SOCKET": address} if address else {}).ready("up")


def test_a_manager_that_does_not_read_does_not_block_the_daemon(
    manager: socket.socket, tmp_path: Path
) -> None:
    """Once the socket's buffer is full, further messages are dropped."""
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(5000):
        service.heartbeat("x" * 1000)
    assert manager.recv(2000).startswith(b"WATCHDOG=1")


@pytest.mark.parametrize("name", ["READY=1", "RELOADING=1"])
def test_a_message_that_is_not_repeated_waits_for_a_busy_manager(
    manager: socket.socket, tmp_path: Path, name: str
) -> None:
    """The end of a start, and both ends of a reload, are not dropped like a heartbeat."""
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(1000):
        service.heartbeat("well")
    send = {"READY=1": lambda: service.ready("up"), "RELOADING=1": service.reloading}[name]
    sender = Thread(target=send)
    sender.start()
    sender.join(0.05)
    assert sender.is_alive(), "the socket is full"
    while not manager.recv(1000).startswith(name.encode()):
        pass
    sender.join()


@pytest.mark.parametrize(
    ("env", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, timedelta(minutes=1)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, timedelta(minutes=1)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_of_this_process_counts(
    env: dict[str, str], watchdog: timedelta | None
) -> None:
    """Heartbeats are expected if the manager waits for those of this very process."""
    assert ServiceManager(env).watchdog == watchdog
