"""The systemd units: valid, confined, explained, with the user that they run as."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

UNITS = ROOT / "systemd"
SERVICES = ("tagsync.service", "tagsync-sync.service")


@pytest.fixture
def analyze() -> str:
    """The path of systemd-analyze, which has to be installed in CI."""
    found = shutil.which("systemd-analyze")
    if found is None and "CI" not in os.environ:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    assert found
    return found


def test_the_units_are_valid(analyze: str, tmp_path: Path) -> None:
    """The units are valid where tagsync is installed as they expect."""
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
    """Every setting that confines a service has its own comment before it."""
    _, _, hardening = (UNITS / service).read_text().partition("# What it may do")
    lines = hardening.partition("\n[")[0].strip().splitlines()[1:]
    settings = [index for index, line in enumerate(lines) if not line.startswith("#")]
    assert len(settings) > 20
    assert all(lines[index - 1].startswith("#") for index in settings)


def test_the_two_services_are_confined_alike() -> None:
    """The daemon and the one-shot service have the same permissions."""
    texts = [(UNITS / service).read_text() for service in SERVICES]
    daemon, once = (text.partition("# Whoever")[2].partition("\n[")[0].strip() for text in texts)
    assert daemon
    assert daemon == once


def test_the_user_is_made(tmp_path: Path) -> None:
    """systemd-sysusers creates the user and the group of the services."""
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
