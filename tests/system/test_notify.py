"""Notifications from a registry to a receiver, through real processes."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import error_line, events_of, rows_of, tagsync
from tests.support.processes import Process, configure, registry

pytestmark = pytest.mark.processes


@pytest.fixture
def swr() -> Iterator[Emulator]:
    """An emulated registry with one tag."""
    with Emulator() as emulator:
        emulator.push("team/api", "v1", "1")
        yield emulator


def destination(folder: Path, name: str, script: str = "cat >> received") -> str:
    """Write a program that keeps what it gets, and return a destination for it."""
    program = folder / name
    program.write_text(f"#!/bin/sh\ncd '{folder}' || exit 9\n{script}\n")
    program.chmod(0o755)
    events = '["baselined", "added", "moved"]'
    return (
        f'[[notify]]\nname = "{name}"\nkind = "command"\nargv = ["{program}"]\nevents = {events}\n'
    )


def received(folder: Path) -> list[dict[str, Any]]:
    """Return the events that the program got."""
    path = folder / "received"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_pass_sends_what_it_recorded(tmp_path: Path, swr: Emulator) -> None:
    """`sync` sends each event once, in order, and a dry run sends nothing."""
    configure(tmp_path, registry("swr", swr.url, "team/api"), more=destination(tmp_path, "program"))
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    swr.push("team/api", "v1", "2")
    assert tagsync("sync", "--dry-run", cwd=tmp_path).returncode == 0
    assert [event["type"] for event in received(tmp_path)] == ["tagsync.repository.baselined"]
    for _ in range(2):
        assert tagsync("sync", cwd=tmp_path).returncode == 0
    assert [(event["id"], event["type"]) for event in received(tmp_path)] == [
        *(("1", "tagsync.repository.baselined"), ("2", "tagsync.tag.moved"))
    ]
    assert [int(event["sequence"]) for event in received(tmp_path)] == [1, 2]


def test_a_replayed_event_is_sent_again(tmp_path: Path, swr: Emulator) -> None:
    """After a replay, the next pass sends the events with the same ids and new sequences."""
    configure(tmp_path, registry("swr", swr.url, "team/api"), more=destination(tmp_path, "program"))
    tagsync("sync", cwd=tmp_path)
    finished = tagsync("notify", "replay", "program", "--since", "1", cwd=tmp_path)
    assert finished.stdout == (
        "1 event from event 1 on will be sent to program; the newest event is 1.\n"
    )
    tagsync("sync", cwd=tmp_path)
    assert [(event["id"], int(event["sequence"])) for event in received(tmp_path)] == [
        *(("1", 1), ("1", 2))
    ]


def test_a_destination_that_refuses_does_not_fail_the_pass(tmp_path: Path, swr: Emulator) -> None:
    """The exit status of `sync` is that of its polls; `notify status` has the error."""
    refusing = destination(tmp_path, "program", "echo no; exit 3")
    configure(tmp_path, registry("swr", swr.url, "team/api"), more=refusing)
    finished = tagsync("sync", cwd=tmp_path)
    assert finished.returncode == 0
    assert any(event["event"] == "notify.failed" for event in events_of(finished))
    (row,) = rows_of(tagsync("notify", "status", "--format", "json", cwd=tmp_path))
    assert (row["waiting"], row["sending"]) == (1, 1)
    assert row["last_error"].endswith("program ended with exit status 3: no")


def test_a_destination_without_its_secret_is_refused_at_start(
    tmp_path: Path, swr: Emulator
) -> None:
    """`sync` and `run` refuse to start without a secret and record nothing; `check` names it."""
    wrong = '[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "env:TAGSYNC_TEST_MISSING"\n'
    configure(tmp_path, registry("swr", swr.url, "team/api"), more=wrong)
    for command in ("sync", "run"):
        line = error_line(tagsync(command, cwd=tmp_path), 2)
        assert "env:TAGSYNC_TEST_MISSING" in line
    checked = tagsync("check", "--format", "json", cwd=tmp_path)
    assert checked.returncode == 2
    assert [row["result"] for row in rows_of(checked)].count("failed") == 1
    # A dry run sends nothing, so it needs no secret of a destination.
    assert tagsync("sync", "--dry-run", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "tagsync.db").exists()


def test_a_reload_adds_a_destination(tmp_path: Path, swr: Emulator) -> None:
    """A running daemon sends to a destination that a reload has added, from then on."""
    one = registry("swr", swr.url, "team/api")
    configure(tmp_path, one)
    daemon = Process(tmp_path)
    try:
        daemon.await_event("repository.baselined")
        configure(tmp_path, one, more=destination(tmp_path, "program"))
        daemon.popen.send_signal(signal.SIGHUP)
        daemon.await_event("config.reloaded")
        swr.push("team/api", "v2", "2")
        daemon.await_event("notify.sent", destination="program")
        assert [event["type"] for event in received(tmp_path)] == ["tagsync.tag.added"]
    finally:
        assert daemon.stop() == 0
