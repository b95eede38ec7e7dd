"""Upgrade, move and removal, as documented, under a real systemd."""

import re
from collections.abc import Callable

import pytest

from tests.system.real_systemd.machine import Machine, wait_until
from tests.system.real_systemd.service import AUDITOR, blocks

pytestmark = pytest.mark.systemd

IN_SOURCE = "cd /srv/check/source"


def test_upgrade_keeps_configuration_and_record(
    machine: Machine, service: Callable[[str], str]
) -> None:
    """After the documented upgrade, the new version runs with the old drop-ins and record."""
    project = machine.shared / "source/pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))
    (block,) = blocks("Upgrade")
    machine.run(f"{IN_SOURCE}\n{block}")
    version = machine.run("/opt/tagsync/bin/tagsync --version").stdout
    assert " 9." in version
    assert "test.conf" in service("DropInPaths")
    wait_until(lambda: service("StatusText").endswith("all is well."), 60)
    machine.run(f"{AUDITOR} tagsync verify", user="alice")


def test_move_to_another_host_keeps_the_heads(
    machine: Machine, service: Callable[[str], str]
) -> None:
    """The documented move, over a removal of everything, ends with the same heads and secrets."""
    leave, arrive = blocks("Move to another host")
    program, record = blocks("Uninstall")
    before = heads(machine.run(f"{IN_SOURCE}\n{leave}").stdout)
    machine.run(program)
    assert machine.holds("test -f /etc/tagsync/config.toml && test -f /var/lib/tagsync/tagsync.db")
    machine.run(record)
    assert not machine.holds("getent passwd tagsync || getent group tagsync")
    left = machine.run("find / -xdev -name '*tagsync*' -not -path '/srv/*' -not -path '/proc/*'")
    assert [
        line for line in left.stdout.splitlines() if line.startswith(("/etc", "/var/lib"))
    ] == []
    # The ids on another host may be others.
    machine.run("groupadd --system other")
    after = heads(machine.run(f"{IN_SOURCE}\n{arrive}").stdout)
    assert before == after
    assert len(before) == 2
    wait_until(lambda: service("StatusText").endswith("all is well."), 60)
    machine.run("rm /srv/check/source/tagsync.tar.gz")


def heads(shown: str) -> list[tuple[str, str]]:
    """Return the name and the hash of each head in the table of heads."""
    return re.findall(r"^(changes|observations) +\d+ +([0-9a-f]{64})$", shown, re.MULTILINE)
