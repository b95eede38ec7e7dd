"""The timer's unit, as documented, under a real systemd."""

from collections.abc import Callable, Iterator

import pytest

from tests.system.real_systemd.machine import Machine, wait_until
from tests.system.real_systemd.service import Registry, blocks, events, journal, now

pytestmark = pytest.mark.systemd

UNIT = "tagsync-sync"


@pytest.fixture
def timer(machine: Machine, service: Callable[[str], str]) -> Iterator[str]:
    """The time before the timer was installed as documented."""
    del service
    begin = now(machine)
    (block,) = blocks("A timer instead")
    machine.run(block)
    yield begin
    machine.run(f"systemctl disable --now {UNIT}.timer; systemctl reset-failed")
    machine.run("echo SKEXAMPLE >/etc/tagsync/swr-secret-key; systemctl enable tagsync")


def result(machine: Machine) -> tuple[str, str]:
    """Return the state and the last result of the unit."""
    shown = machine.run(f"systemctl show --value -p ActiveState -p Result {UNIT}").stdout.split()
    return shown[-1], shown[0]


def stop_timer(machine: Machine) -> None:
    """Stop the timer and its pass, because a start would only wait for a pass that runs."""
    machine.run(f"systemctl stop {UNIT}.timer {UNIT}")


def test_timer_runs_passes_without_a_table(machine: Machine, timer: str) -> None:
    """The timer runs a pass, and the journal has its events and nothing else of it."""
    wait_until(lambda: bool(events(machine, "pass.finished", unit=UNIT, since=timer)), 180)
    wait_until(lambda: result(machine) == ("inactive", "success"), 30)
    lines = journal(machine, "_COMM=tagsync", unit=UNIT, since=timer)
    assert lines
    assert all(line.startswith("{") for line in lines)


def test_held_listing_is_not_a_failure(machine: Machine, timer: str, registry: Registry) -> None:
    """A pass that holds a listing is not a failed unit."""
    stop_timer(machine)
    for number in range(3):
        registry(f"push team-1/held v{number} {number}")
    machine.run(f"systemctl start {UNIT}")
    for number in range(3):
        registry(f"delete team-1/held v{number}")
    machine.run(f"systemctl start {UNIT}")
    for number in range(3):
        registry(f"push team-1/held v{number} {number}")
    assert events(machine, "sync.held", unit=UNIT, since=timer)
    assert result(machine) == ("inactive", "success")


def test_stopped_pass_is_not_a_failure(machine: Machine, timer: str, registry: Registry) -> None:
    """A pass that is stopped while the registry hangs is not a failed unit."""
    del timer
    stop_timer(machine)
    registry("stall on")
    try:
        machine.run(f"systemctl start --no-block {UNIT}; sleep 2; systemctl stop {UNIT}")
    finally:
        registry("stall off")
    assert result(machine) == ("inactive", "success")


def test_failed_pass_is_a_failure(machine: Machine, timer: str) -> None:
    """A pass that the registry refuses is a failed unit, with an error in the journal."""
    stop_timer(machine)
    machine.run("echo WRONG >/etc/tagsync/swr-secret-key")
    assert machine.attempt(f"systemctl start {UNIT}").returncode != 0
    assert result(machine) == ("failed", "exit-code")
    assert journal(machine, "-p", "err", unit=UNIT, since=timer)
