"""The daemon's unit, as documented, under a real systemd."""

import json
import re
from collections.abc import Callable

import pytest

from tests.system.real_systemd.machine import Machine, wait_until
from tests.system.real_systemd.service import (
    AUDITOR,
    CONFIG,
    Registry,
    blocks,
    configure,
    events,
    journal,
    now,
)

pytestmark = pytest.mark.systemd

Show = Callable[[str], str]


def test_pasted_steps_start_the_service(machine: Machine, installed: tuple[int, str]) -> None:
    """The documented block can be pasted as a whole, and the service runs with the typed keys."""
    status, shown = installed
    assert status == 0, shown
    keys = machine.run("cd /etc/tagsync; cat swr-access-key swr-secret-key; stat -c %a swr-*-key")
    assert keys.stdout.split() == ["AKEXAMPLE", "SKEXAMPLE", "600", "600"]
    assert machine.holds("systemctl is-active tagsync && systemctl is-enabled tagsync")
    assert machine.run("systemctl show --value -p NRestarts tagsync").stdout == "0\n"


def test_status_is_right_from_the_first_second(machine: Machine, service: Show) -> None:
    """As soon as the start is complete, the status says what the daemon does not know yet."""
    machine.run("systemctl restart tagsync")
    first = service("StatusText")
    assert re.match(r"Watching \d+ repositories in 1 registries with \d+ tags: ", first)
    assert "all is well" in first or "yet" in first
    wait_until(lambda: service("StatusText").endswith("all is well."), 60)
    assert service("StatusText").startswith("Watching 15 repositories")


def test_service_is_confined(machine: Machine, service: Show) -> None:
    """The exposure is at most 1.5, and only the group may read the database."""
    del service
    machine.run("systemd-analyze security --threshold=15 tagsync")
    modes = machine.run("stat -c '%U:%G %a' /var/lib/tagsync /var/lib/tagsync/tagsync.db").stdout
    assert modes.splitlines() == ["tagsync:tagsync 750", "tagsync:tagsync 640"]


def test_auditor_reads_and_others_learn_the_group(machine: Machine, service: Show) -> None:
    """A member of the group can verify, but not write; others are told the group's name."""
    del service
    machine.run(f"{AUDITOR} tagsync verify; tagsync healthcheck", user="alice")
    query = "sqlite3 -readonly /var/lib/tagsync/tagsync.db 'select count(*) from change_log'"
    machine.run(query, user="alice")
    write = "sqlite3 /var/lib/tagsync/tagsync.db 'delete from tags'"
    assert machine.attempt(write, user="alice").returncode != 0
    secret = (
        "cat /run/credentials/tagsync.service/swr-secret-key || cat /etc/tagsync/swr-secret-key"
    )
    assert machine.attempt(secret, user="alice").returncode != 0
    refused = machine.attempt(f"{AUDITOR} tagsync tags", user="bob")
    assert refused.returncode == 1
    assert "members of the group tagsync may read it: run usermod" in refused.stderr


def test_reload_is_logged_and_a_wrong_one_is_an_error(machine: Machine, service: Show) -> None:
    """A rejected reload is in the status, and among the errors of the journal as JSON."""
    begin = now(machine)
    machine.run("systemctl reload tagsync")
    wait_until(lambda: bool(events(machine, "config.reloaded", since=begin)), 60)
    configure(machine, f"{CONFIG}nonsense = 1\n")
    machine.run("systemctl reload tagsync")
    wait_until(lambda: "The configuration was not reloaded" in service("StatusText"), 60)
    (rejected,) = events(machine, "config.rejected", "-p", "err", since=begin)
    assert list(rejected)[:3] == ["timestamp", "level", "event"]
    assert not events(machine, "config.reloaded", "-p", "err", since=begin)
    lines = journal(machine, "_COMM=tagsync", since=begin)
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_failed_start_says_why_and_is_not_repeated(machine: Machine, service: Show) -> None:
    """With a wrong configuration the unit fails once, with the reason in status and journal."""
    begin = now(machine)
    configure(machine, "nonsense = 1\n")
    assert machine.attempt("systemctl restart tagsync").returncode != 0
    assert (service("ActiveState"), service("NRestarts")) == ("failed", "0")
    assert service("StatusText").startswith("Not running: ")
    assert "nonsense" in service("StatusText")
    assert any("nonsense" in line for line in journal(machine, "-p", "err", since=begin))


def test_other_failures_are_followed_by_a_restart(machine: Machine, service: Show) -> None:
    """The service starts again after a kill, and after an unusable database until it is usable."""
    machine.run("kill -KILL $(systemctl show --value -p MainPID tagsync)")
    wait_until(lambda: service("NRestarts") == "1" and service("ActiveState") == "active", 60)
    machine.run("""
        systemctl stop tagsync
        cd /var/lib/tagsync && mv tagsync.db saved && runuser -u tagsync cp /etc/services tagsync.db
        systemctl start --no-block tagsync
    """)
    try:
        wait_until(lambda: "is not a SQLite database" in service("StatusText"), 60)
        wait_until(lambda: int(service("NRestarts")) >= 2, 60)
    finally:
        machine.run("cd /var/lib/tagsync && mv saved tagsync.db")
    wait_until(lambda: service("ActiveState") == "active", 60)


def test_watchdog_restarts_a_daemon_that_hangs(machine: Machine, service: Show) -> None:
    """A stopped process is replaced once the watchdog has expired."""
    machine.run("""
        printf '[Service]\\nWatchdogSec=3s\\n' >/etc/systemd/system/tagsync.service.d/watchdog.conf
        systemctl daemon-reload
        systemctl restart tagsync
        kill -STOP $(systemctl show --value -p MainPID tagsync)
        rm /etc/systemd/system/tagsync.service.d/watchdog.conf
    """)
    wait_until(lambda: service("NRestarts") == "1" and service("ActiveState") == "active", 60)
    machine.run("systemctl daemon-reload")


def test_stop_does_not_wait_for_a_registry(
    machine: Machine, service: Show, registry: Registry
) -> None:
    """A stop takes at most five seconds while the registry hangs, and the record is whole."""
    registry("stall on")
    try:
        machine.run("sleep 2; timeout 6 systemctl stop tagsync")
    finally:
        registry("stall off")
    assert service("Result") == "success"
    machine.run(f"{AUDITOR} tagsync verify", user="alice")


def test_changed_credential_is_noticed_and_needs_a_restart(machine: Machine, service: Show) -> None:
    """A reload after a key has changed logs a warning, and the documented restart uses the key."""
    begin = now(machine)
    machine.run("systemctl reload tagsync")
    wait_until(lambda: bool(events(machine, "config.reloaded", since=begin)), 60)
    assert not events(machine, "config.credential_changed", since=begin)
    machine.run("echo WRONG >/etc/tagsync/swr-secret-key; systemctl reload tagsync")
    wait_until(lambda: len(events(machine, "config.reloaded", since=begin)) == 2, 30)
    (changed,) = events(machine, "config.credential_changed", "-p", "warning", since=begin)
    assert changed["file"] == "/etc/tagsync/swr-secret-key"
    rotate, drop_in = blocks("Secrets")
    status, shown = machine.paste(rotate, {rotate.partition(" &&")[0]: "SKEXAMPLE"})
    assert status == 0, shown
    assert machine.run("cat /etc/tagsync/swr-secret-key").stdout == "SKEXAMPLE\n"
    wait_until(lambda: service("StatusText").endswith("all is well."), 60)
    machine.run(drop_in)
    wait_until(lambda: service("StatusText").endswith("all is well."), 60)


def test_missing_secret_prevents_the_start(machine: Machine, service: Show) -> None:
    """Without the file of a key the service does not start."""
    machine.run("systemctl stop tagsync; mv /etc/tagsync/swr-secret-key /root/")
    try:
        assert machine.attempt("systemctl start tagsync").returncode != 0
    finally:
        machine.run("systemctl stop tagsync; mv /root/swr-secret-key /etc/tagsync/")
    assert service("ActiveState") == "inactive"


def test_root_uses_the_secrets_of_the_service(
    machine: Machine, service: Show, registry: Registry
) -> None:
    """The documented function runs ``check``, and records deletions that the daemon holds."""
    del service
    check, accept = blocks("Run a command as the service")
    begin = now(machine)
    assert "registry swr" in machine.run(check).stdout
    for number in range(3):
        registry(f"push team-a/gone v{number} {number}")
    machine.run("systemctl restart tagsync")
    wait_until(
        lambda: (
            bool(gone := events(machine, "repository.baselined", since=begin))
            and gone[-1]["repository"] == "swr/team-a/gone"
        ),
        60,
    )
    for number in range(3):
        registry(f"delete team-a/gone v{number}")
    wait_until(lambda: bool(events(machine, "sync.held", "-p", "warning", since=begin)), 60)
    machine.run(check.replace("as_service check", accept))
    count = "select count(*) from current_tags where repository = 'swr/team-a/gone'"
    machine.run(f'[ "$(sqlite3 -readonly /var/lib/tagsync/tagsync.db "{count}")" = 0 ]')
    owners = machine.run("stat -c %U:%G /var/lib/tagsync/*").stdout.split()
    assert set(owners) == {"tagsync:tagsync"}


def test_no_line_of_50_000_changes_is_lost(
    machine: Machine, service: Show, registry: Registry
) -> None:
    """Each of 50,000 changes at once has its line in the journal, with the documented settings."""
    _, settings = blocks("The journal")
    machine.run(f"{settings}\nls /var/log/journal/*/system.journal")
    registry("fill first")
    configure(machine, CONFIG.replace('"team-*"', '"team-*", "burst/*"'))
    machine.run("systemctl restart tagsync")
    filled = r"with 5\d{4} tags: all is well\.$"
    wait_until(lambda: re.search(filled, service("StatusText")) is not None, 300)
    begin = now(machine)
    count = "select count(*) from changes where kind = 'updated'"
    query = f'sqlite3 -readonly /var/lib/tagsync/tagsync.db "{count}"'
    before = int(machine.run(query).stdout)
    registry("fill second")
    wait_until(lambda: int(machine.run(query).stdout) - before == 50_000, 300)
    # The lines follow the commits.
    seen: set[int] = set()

    def all_logged() -> bool:
        seen.update(line["change_id"] for line in events(machine, "tag.updated", since=begin))
        return len(seen) == 50_000

    wait_until(all_logged, 300)
    assert not [line for line in journal(machine, unit="systemd-journald") if "uppress" in line]


def test_reload_waits_with_systemd_253(machine: Machine, service: Show) -> None:
    """With the documented drop-in, ``systemctl reload`` ends after the configuration was read."""
    if int(machine.run("systemctl --version").stdout.split()[1]) < 253:
        pytest.skip("systemd is older than 253")
    _, drop_in = ["", *blocks("Start, reload and stop")]
    machine.run(drop_in)
    configure(machine, f"{CONFIG}nonsense = 1\n")
    machine.run("systemctl reload tagsync")
    assert "The configuration was not reloaded" in service("StatusText")
    machine.run(
        "rm /etc/systemd/system/tagsync.service.d/notify-reload.conf; systemctl daemon-reload"
    )


def test_nothing_was_denied(machine: Machine) -> None:
    """No system call of the service was refused by its filter."""
    found = machine.run("journalctl -b -o cat --no-pager").stdout
    assert not re.search(r"SIGSYS|seccomp|status=31", found, re.IGNORECASE)
