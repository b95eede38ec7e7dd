"""The commands ``notify``: what they show, send and change."""

import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.cli.notify.preview import preview_rows
from tagsync.cli.notify.replay import begin_with
from tagsync.cli.notify.status import state, status_row
from tagsync.clock import timestamp, utc_now
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.database.outbox import Outbox
from tagsync.database.store import Store
from tagsync.errors import ConfigError, DatabaseInUse
from tagsync.notify.status import statuses
from tagsync.notify.targets import Rule
from tests.support.clock import FakeClock
from tests.support.commands import (
    contents,
    error_line,
    rows_of,
    tagsync,
    unprivileged,
)
from tests.support.configurations import parsed
from tests.support.http_server import HEAD, says, server
from tests.support.notified import DESTINATIONS, make_folder

OPS, PAGE = rules_without_secrets(parsed(DESTINATIONS))
SINCE = ("--since", "2026-05-01")
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two destinations and seven events."""
    return make_folder(tmp_path)


@pytest.fixture
def outbox(folder: Path) -> Iterator[Outbox]:
    """The events and destinations of the folder."""
    with Store.open(folder / "tagsync.db") as store:
        yield store.outbox


def never(seconds: float) -> None:
    """Fail, because nothing has to wait."""
    raise AssertionError(f"waited {seconds} s")


def cursor(outbox: Outbox, rule: Rule = OPS) -> int:
    destination = outbox.destination(rule.name)
    assert destination is not None
    return destination.cursor


def test_a_preview_has_the_messages_of_each_filter(outbox: Outbox) -> None:
    """Each destination has a row for each message that its filter and batch would have made."""
    rows = list(preview_rows(outbox, [OPS, PAGE], "2026-05-01"))
    assert [(row["destination"], row["first_event"], row["last_event"]) for row in rows] == [
        *(("ops", 3, 4), ("ops", 7, 7), ("page", 5, 5), ("page", 6, 6))
    ]
    assert [row["events"] for row in rows] == [2, 1, 1, 1]
    assert rows[1]["subject"] == "swr/team-a/web:preview was deleted"


def test_a_preview_begins_at_a_time(outbox: Outbox) -> None:
    """The first event of a preview is the first one from a time on."""
    starts = ["2026-05-03T12:10:00.000Z", "2026-05-03T12:10:00.001Z", "2026-05-04"]
    firsts = [[row["first_event"] for row in preview_rows(outbox, [OPS], at)] for at in starts]
    assert firsts == [[3, 7], [7], []]


def test_a_replay_sends_an_event_and_all_later_ones(outbox: Outbox) -> None:
    """The cursor moves before the event; a batch that was being sent is given up."""
    outbox.add("ops", after=7)
    begin_with(outbox, OPS, 4, never)
    assert cursor(outbox) == 3
    (status,) = [each for each in statuses(outbox, [OPS], utc_now()) if each.name == "ops"]
    assert status.waiting == 2


def test_a_replay_gives_up_the_batch_that_is_being_sent(outbox: Outbox) -> None:
    """A batch that was begun before a replay is not sent out of order."""
    outbox.add("ops", after=6)
    outbox.acquire("ops", "other", timestamp(utc_now()), timestamp(utc_now()))
    outbox.begin("ops", "other", [7])
    begin_with(outbox, OPS, 1, never)
    destination = outbox.destination("ops")
    assert destination is not None
    assert (destination.cursor, destination.batch_ids) == (0, ())


def test_a_new_destination_begins_with_the_event(outbox: Outbox) -> None:
    """A replay adds a destination that was never used."""
    begin_with(outbox, OPS, 3, never)
    assert cursor(outbox) == 2


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (8, "there is no event 8: the newest is 7"),
        (5, "ops has yet to get event 3, and gets event 5 after it: there is nothing to repeat"),
    ],
)
def test_a_replay_skips_nothing(outbox: Outbox, event: int, problem: str) -> None:
    """A replay refuses an event that does not exist, or that is still to be sent."""
    outbox.add("ops", after=2)
    with pytest.raises(ConfigError, match=problem):
        begin_with(outbox, OPS, event, never)
    assert cursor(outbox) == 2


def test_a_refused_replay_adds_no_destination(outbox: Outbox) -> None:
    """A replay of an event that does not exist leaves nothing behind."""
    with pytest.raises(ConfigError):
        begin_with(outbox, OPS, 8, never)
    assert outbox.names() == []


def test_a_replay_waits_for_the_process_that_sends(outbox: Outbox) -> None:
    """The cursor of a process that accepts a batch meanwhile does not undo the replay."""
    clock = FakeClock()
    outbox.add("ops", after=5)
    until = timestamp(clock.now + timedelta(seconds=60))
    outbox.acquire("ops", "daemon", timestamp(clock.now), until)
    outbox.begin("ops", "daemon", [7])

    def finish(seconds: float) -> None:
        clock.advance(seconds=seconds)
        assert outbox.accept("ops", "daemon", 7, 1, timestamp(clock.now))
        outbox.release("ops", "daemon")

    begin_with(outbox, OPS, 3, finish, clock)
    assert cursor(outbox) == 2
    destination = outbox.destination("ops")
    assert destination is not None
    assert destination.lease_holder is None


def test_a_replay_takes_over_the_lease_of_a_killed_process(outbox: Outbox) -> None:
    """A lease that is not renewed ends the wait; one that is renewed is refused in the end."""
    clock = FakeClock()
    outbox.add("ops", after=7)
    until = timestamp(clock.now + timedelta(seconds=60))
    outbox.acquire("ops", "killed", timestamp(clock.now), until)
    begin_with(outbox, OPS, 3, lambda seconds: clock.advance(seconds=seconds), clock)
    assert cursor(outbox) == 2

    def renew(seconds: float) -> None:
        clock.advance(seconds=seconds)
        outbox.renew("ops", "busy", timestamp(clock.now + timedelta(seconds=60)))

    outbox.acquire("ops", "busy", timestamp(clock.now), timestamp(clock.now + timedelta(minutes=1)))
    with pytest.raises(DatabaseInUse, match="another process has been sending to ops for 90 s"):
        begin_with(outbox, OPS, 1, renew, clock)
    assert cursor(outbox) == 2


def test_the_status_of_a_destination_is_one_word(outbox: Outbox) -> None:
    """A destination is new, waits, is up to date, fails, or is not configured."""

    def states() -> list[str]:
        return [state(status_row(each)) for each in statuses(outbox, [OPS, PAGE], utc_now())]

    assert states() == ["new", "new"]
    outbox.add("ops", after=2)
    outbox.add("page")
    outbox.add("old", after=3)
    assert states() == ["waiting", "up to date", "not configured"]
    now = timestamp(utc_now())
    outbox.acquire("ops", "me", now, now)
    outbox.refuse("ops", "me", "status 500", now, now)
    assert states() == ["failing", "up to date", "not configured"]


@pytest.mark.processes
def test_questions_about_notifications_need_no_permission_to_write(folder: Path) -> None:
    """Preview and status read the record, and neither secrets nor a folder to write in."""
    before = contents(folder)
    folder.chmod(0o555)
    try:
        shown = unprivileged("notify", "preview", *SINCE, "--format", "json", cwd=folder)
        assert [row["destination"] for row in rows_of(shown)] == ["ops", "ops", "page", "page"]
        shown = unprivileged("notify", "status", "--format", "json", cwd=folder)
        assert [row["kind"] for row in rows_of(shown)] == ["webhook", "command"]
    finally:
        folder.chmod(0o755)
    assert contents(folder) == before


@pytest.mark.processes
def test_a_destination_that_was_removed_is_shown(folder: Path) -> None:
    """Status also has the destinations that only the database knows, and takes their names."""
    tagsync("notify", "replay", "page", "--since", "5", cwd=folder)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace('"page"', '"pager"'))
    rows = rows_of(tagsync("notify", "status", "--format", "json", cwd=folder))
    assert [(row["destination"], row["kind"]) for row in rows] == [
        *(("ops", "webhook"), ("pager", "command"), ("page", None))
    ]
    (row,) = rows_of(tagsync("notify", "status", "page", "--format", "json", cwd=folder))
    assert row["cursor"] == 4
    line = error_line(tagsync("notify", "replay", "page", "--since", "5", cwd=folder), 2)
    assert line == "tagsync: there is no destination 'page'; the nearest is 'pager'"


@pytest.mark.processes
def test_a_replay_is_of_one_of_several_destinations(folder: Path) -> None:
    """A replay counts the events of its own destination, whatever others the database has."""
    tagsync("notify", "replay", "page", "--since", "5", cwd=folder)
    answer = tagsync("notify", "replay", "ops", "--since", "4", cwd=folder)
    assert answer.stdout == (
        "2 events from event 4 on will be sent to ops; the newest event is 7.\n"
    )


@pytest.mark.processes
def test_a_test_message_is_sent_and_its_answer_shown(folder: Path) -> None:
    """The receiver gets a message that says that it is a test; nothing else is changed."""
    received: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        received.append(connection.recv(65536))
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\nok \x1b[31m!")

    with server(talk) as address:
        url = f"http://{address}/hook/hunter2-not-to-be-seen"
        variables = {"OPS_URL": url, "OPS_KEY": KEY}
        tagsync("notify", "replay", "ops", "--since", "3", cwd=folder)
        before = tagsync("notify", "status", "--format", "json", cwd=folder).stdout
        finished = tagsync("notify", "test", "ops", cwd=folder, **variables)
    assert finished.returncode == 0, finished
    assert finished.stdout == "ops accepted the test message: status 200: ok \ufffd[31m!\n"
    assert "hunter2" not in finished.stdout + finished.stderr
    assert b"webhook-signature: v1," in received[0]
    assert tagsync("notify", "status", "--format", "json", cwd=folder).stdout == before


@pytest.mark.processes
def test_a_test_message_that_is_refused_ends_with_1(folder: Path) -> None:
    """The error has the receiver's answer, without parts of the URL, and the status is 1."""
    with server(says(b"HTTP/1.1 403 No\r\nContent-Length: 13\r\n\r\nno to hunter2!")) as address:
        url = f"http://{address}/hunter2"
        finished = tagsync("notify", "test", "ops", cwd=folder, OPS_URL=url, OPS_KEY=KEY)
    line = error_line(finished, 1)
    assert line.startswith("tagsync: ops did not accept the test message: ")
    assert "status 403" in line
    assert "hunter2" not in line


@pytest.mark.processes
def test_a_test_message_needs_no_database(folder: Path) -> None:
    """A destination can be tested before anything is recorded, and the test creates no file."""
    (folder / "tagsync.db").unlink()
    program = folder / "program"
    program.write_text("#!/bin/sh\ncat\n")
    program.chmod(0o755)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("/usr/local/bin/page", str(program)))
    finished = tagsync("notify", "test", "page", cwd=folder)
    assert finished.returncode == 0, finished
    answer = finished.stdout.removeprefix("page accepted the test message: exit status 0: ")
    assert '"source":"tagsync/no-database"' in answer
    assert not (folder / "tagsync.db").exists()


@pytest.mark.processes
def test_status_has_a_line_for_each_destination_that_fails(folder: Path) -> None:
    """The table of status ends with the failing destinations; json does not change."""
    before = tagsync("status", "--format", "json", cwd=folder)
    now = "2026-05-03T12:30:00.000Z"
    with Store.open(folder / "tagsync.db") as store:
        store.outbox.add("page", after=2)
        for name in ("ops", "old"):
            store.outbox.add(name, after=2)
            store.outbox.acquire(name, "me", now, now)
            store.outbox.refuse(name, "me", "status 500: \x1b[31mno", now, now)
    shown = tagsync("status", cwd=folder).stdout.splitlines()
    assert shown[-1] == (
        "ops has not accepted notifications since 2026-05-03 12:30 (1 attempt, 3 events waiting):"
        " status 500: \\x1b[31mno"
    )
    assert not any("has not accepted" in line for line in shown[:-1])
    after = tagsync("status", "--format", "json", cwd=folder)
    assert json.loads(after.stdout) == json.loads(before.stdout)


def checked(folder: Path, **variables: str) -> dict[str, dict[str, str]]:
    """Return the lines of `tagsync check` about destinations, by subject."""
    finished = tagsync("check", "--format", "json", cwd=folder, **variables)
    return {
        row["subject"]: row
        for row in rows_of(finished)
        if str(row["subject"]).startswith("destination")
    }


@pytest.mark.processes
def test_check_has_a_line_for_each_destination(folder: Path) -> None:
    """Each line is about secrets, the program, globs, or how much waits; nothing is sent."""
    program = folder / "program"
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("/usr/local/bin/page", str(program)))
    lines = checked(folder, OPS_URL="https://hooks.example.com/x")
    assert (lines["destination ops"]["result"], lines["destination page"]["result"]) == (
        *("failed", "failed"),
    )
    assert "env:OPS_KEY" in lines["destination ops"]["detail"]
    assert lines["destination page"]["detail"] == f"there is no file {program}"
    program.write_text("#!/bin/sh\n")
    assert "cannot execute" in checked(folder)["destination page"]["detail"]
    program.chmod(0o755)
    tagsync("notify", "replay", "ops", "--since", "3", cwd=folder)
    lines = checked(folder, OPS_URL="https://hooks.example.com/x", OPS_KEY=KEY)
    assert lines["destination ops"]["detail"] == "webhook; waiting: 3 events"
    assert "from the next pass on" in lines["destination page"]["detail"]
    now = "2026-05-03T12:30:00.000Z"
    with Store.open(folder / "tagsync.db") as store:
        store.outbox.acquire("ops", "me", now, now)
        store.outbox.refuse("ops", "me", "status 500", now, now)
    line = checked(folder, OPS_URL="https://hooks.example.com/x", OPS_KEY=KEY)["destination ops"]
    assert line["result"] == "warning"
    assert line["detail"] == f"webhook; failing since {now}: status 500; waiting: 3 events"
    assert line["advice"] == "run tagsync notify test ops"
    path.write_text(path.read_text().replace('"swr/team-a/*"', '"team-a/*"'))
    line = checked(folder)["destination page"]
    assert line["result"] == "warning"
    assert "'team-a/*' begins with no registry" in line["detail"]


@pytest.mark.processes
def test_names_of_destinations_are_completed(folder: Path) -> None:
    """The names of destinations are completed after each command; none without a configuration."""
    for command in ("test", "preview", "status", "replay"):
        words = {"COMP_LINE": f"tagsync notify {command} p", "COMP_POINT": "99"}
        finished = tagsync(cwd=folder, _TAGSYNC_COMPLETE="bash_complete", **words)
        assert (finished.stdout, finished.stderr) == ("plain,page\n", "")
    finished = tagsync(cwd=folder.parent, _TAGSYNC_COMPLETE="bash_complete", **words)
    assert (finished.stdout.strip(), finished.stderr) == ("", "")
