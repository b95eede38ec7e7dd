"""What the service manager is told, and the units that it is given."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.daemon.systemd import ServiceManager
from tests.support.paths import ROOT

UNITS = ROOT / "systemd"
SERVICES = ("tagsync.service", "tagsync-sync.service")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(5)
        yield channel


@pytest.fixture
def analyze() -> str:
    """systemd-analyze, which CI has to have."""
    found = shutil.which("systemd-analyze")
    if found is None and "CI" not in os.environ:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    assert found
    return found


def test_each_message_is_a_datagram_of_lines(manager: socket.socket, tmp_path: Path) -> None:
    """What is told is what sd_notify(3) specifies, each message in a datagram of its own."""
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    service.ready("up")
    service.reloading()
    service.alive("well")
    service.stopping()
    assert manager.recv(1000) == b"READY=1\nSTATUS=up"
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(1000))
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=well"
    assert manager.recv(1000) == b"STOPPING=1"


def test_a_status_stays_on_its_line(manager: socket.socket, tmp_path: Path) -> None:
    """A line break in a sentence does not become a message of its own."""
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}).ready("a\nSTOPPING=1")
    assert manager.recv(1000) == b"READY=1\nSTATUS=a STOPPING=1"


def test_an_abstract_address_is_reached() -> None:
    """An address that begins with @ is one of Linux's abstract ones."""
    name = f"tagsync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{name}")
        channel.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert channel.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens-here", "relative"])
def test_a_manager_that_is_not_there_stops_nothing(address: str) -> None:
    """Without a manager, or with one that does not listen, nothing is told and nothing fails."""
    ServiceManager({"NOTIFY_SOCKET": address} if address else {}).ready("up")


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
def test_whose_watchdog_it_is(env: dict[str, str], watchdog: timedelta | None) -> None:
    """A sign of life is owed where the manager waits for one of this very process."""
    assert ServiceManager(env).watchdog == watchdog


def test_the_units_are_valid(analyze: str, tmp_path: Path) -> None:
    """Nothing is said against the units by systemd, where tagsync is installed as they expect."""
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    installed = tmp_path / "etc/systemd/system"
    installed.mkdir(parents=True)
    for unit in UNITS.glob("tagsync*"):
        shutil.copy(unit, installed)
    for program in ("opt/tagsync/bin/tagsync", "bin/kill"):
        stand_in = tmp_path / program
        stand_in.parent.mkdir(parents=True)
        stand_in.write_text("#!/bin/sh\n")
        stand_in.chmod(0o755)
    names = [*SERVICES, "tagsync-sync.timer"]
    found = subprocess.run(
        [analyze, "verify", "--man=no", f"--root={tmp_path}", *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("service", SERVICES)
def test_the_services_are_confined(analyze: str, service: str) -> None:
    """The exposure that systemd computes for each service is at most 1.5 of 10."""
    command = [analyze, "security", "--offline=true", "--threshold=15", str(UNITS / service)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert match
    assert float(match[1]) <= 1.5


@pytest.mark.parametrize("service", SERVICES)
def test_each_line_of_the_hardening_is_explained(service: str) -> None:
    """Every setting of what a service may do has a comment of its own before it."""
    _, _, hardening = (UNITS / service).read_text().partition("# What it may do")
    lines = hardening.partition("\n[")[0].strip().splitlines()[1:]
    settings = [index for index, line in enumerate(lines) if not line.startswith("#")]
    assert len(settings) > 20
    assert all(lines[index - 1].startswith("#") for index in settings)


def test_the_two_services_are_confined_alike() -> None:
    """The daemon and the one-shot service may do the same."""
    texts = [(UNITS / service).read_text() for service in SERVICES]
    daemon, once = (text.partition("# Whoever")[2].partition("\n[")[0].strip() for text in texts)
    assert daemon
    assert daemon == once


def test_the_user_is_made(tmp_path: Path) -> None:
    """systemd-sysusers makes the user and the group that the services run as."""
    tool = shutil.which("systemd-sysusers")
    if tool is None and "CI" not in os.environ:
        pytest.skip("systemd-sysusers is not installed (Debian's package systemd)")
    assert tool
    (tmp_path / "etc").mkdir()
    config = UNITS / "tagsync.sysusers.conf"
    command = [tool, f"--root={tmp_path}", str(config)]
    subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert (tmp_path / "etc/passwd").read_text().startswith("tagsync:x:")
    assert (tmp_path / "etc/group").read_text().startswith("tagsync:x:")
