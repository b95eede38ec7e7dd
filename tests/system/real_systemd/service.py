"""What the tests of the service share: its configuration, its journal, its registry."""

import json
from typing import Any, Final

from tests.support.documents import fenced_blocks, section
from tests.system.real_systemd.machine import Machine, wait_until

CONFIG: Final = """\
[schedule]
interval = "1s"
jitter = "1ms"
[metrics]
listen = "127.0.0.1:9180"
[[registries]]
name = "swr"
endpoint = "http://127.0.0.1:8080"
requests_per_second = 1000
[registries.auth]
kind = "aksk"
access_key = "credential:swr-access-key"
secret_key = "credential:swr-secret-key"
[[registries.watch]]
repositories = ["team-*"]
"""

AUDITOR: Final = """
    export TAGSYNC_CONFIG=/etc/tagsync/config.toml STATE_DIRECTORY=/var/lib/tagsync
    export PATH=/opt/tagsync/bin:$PATH
"""
"""Commands that give an auditor the documented environment."""


def blocks(title: str) -> list[str]:
    """Return the commands in one section of the page on the service."""
    return fenced_blocks(section("docs/service.md", title), "sh")


class Registry:
    """Sends orders to the machine's registry; `registry.py` says which."""

    def __init__(self, machine: Machine) -> None:
        self._fifo = machine.shared / "registry.fifo"
        self._done = machine.shared / "registry.fifo.done"

    def __call__(self, order: str) -> None:
        """Send an order, and wait until it is carried out."""
        self._done.unlink(missing_ok=True)
        with self._fifo.open("w") as fifo:
            fifo.write(f"{order}\n")
        wait_until(lambda: self._done.exists() and self._done.read_text() == f"{order}\n", 60)


def configure(machine: Machine, text: str) -> None:
    """Write a configuration where the service expects it."""
    (machine.shared / "config.toml").write_text(text)
    machine.run("cp /srv/check/config.toml /etc/tagsync/config.toml")


def journal(machine: Machine, *options: str, unit: str = "tagsync", since: str = "") -> list[str]:
    """Return the messages of a unit since a time that `now` returned, one line each."""
    after = f"--since {since}" if since else ""
    command = f"journalctl -b -u {unit} {after} -o cat --no-pager {' '.join(options)}"
    return machine.run(f"journalctl --sync; {command}").stdout.splitlines()


def events(machine: Machine, name: str, *options: str, **where: str) -> list[dict[str, Any]]:
    """Return the events of this name that are in the journal."""
    found = [json.loads(line) for line in journal(machine, *options, **where) if line[:1] == "{"]
    return [event for event in found if event["event"] == name]


def now(machine: Machine) -> str:
    """Return the time, for `since`."""
    return machine.run("date +@%s.%6N").stdout.strip()
