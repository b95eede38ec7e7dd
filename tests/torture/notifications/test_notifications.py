"""The torture of the notifications in a short form, and what its judge finds."""

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from secrets import randbelow
from threading import Thread
from typing import Any

import pytest

from tagsync.clock import utc_now
from tagsync.database.store import Store
from tagsync.notify.messages import cloud_events, message_of
from tagsync.notify.signatures import signed_headers
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.secrets import Secret
from tests.support.events import add_moves, add_stale
from tests.torture.notifications.judge import Verdict, judge_receiver, read_record
from tests.torture.notifications.log import append, entries
from tests.torture.notifications.receiver import HONEST, receiver
from tests.torture.notifications.run import torture

KEY = bytes(range(24))
SIZE = 2
"""Events in a message of the made-up log."""

Entry = dict[str, Any]


@pytest.mark.torture
def test_notifications_survive_torture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad receivers, kills and full disks lose nothing, invent nothing, and repeat the same ids."""
    seed = randbelow(10**6)
    try:
        outcome = torture(seed, changes=10_000, seconds=40, folder=tmp_path)
    except PermissionError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {outcome}\n")
    assert not outcome.wrong, f"python -m tests.torture.notifications --seed {seed}"
    for figure in ("changes", "kills", "refused", "repeats", "receivers killed", "full disks"):
        assert outcome.figures.get(figure, 0) > 0, figure


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with six moves and two other events."""
    path = tmp_path / "tagsync.db"
    with Store.open(path):
        add_moves(path, 4)
        add_stale(path, 2)
        add_moves(path, 2)
    return path


def log_of(path: Path) -> list[Entry]:
    """Return the log of a receiver that accepts everything at once."""
    rule = Rule("ops", WebhookTarget(Secret("https://ops.example.com")))
    log = []
    with Store.open(path) as store:
        number = store.outbox.database_id()
        for after in range(0, store.outbox.newest_event(), SIZE):
            events = store.outbox.events(after, SIZE)
            message = message_of(rule, number, after + 1, events)
            body = json.dumps(cloud_events(rule, message))
            now = utc_now()
            headers = signed_headers(KEY, message.id, now, body.encode())
            entry = {"at": now.timestamp(), "fault": "accepts", "accepted": True}
            log.append({**entry, "headers": headers, "body": body})
    return log


def verdict_on(path: Path, log: list[Entry], key: bytes | None = None) -> Verdict:
    """Judge a log, by default without signatures, which every change of a body breaks."""
    record, wrong = read_record(path)
    assert not wrong
    return judge_receiver("ops", log, record, lambda _: True, key)


def test_a_true_log_is_accepted(database: Path) -> None:
    """A message that was refused first, and one that is repeated, are no faults."""
    log = log_of(database)
    log = [{**log[0], "accepted": False}, *log[:2], log[0], *log[2:]]
    verdict = verdict_on(database, log, KEY)
    assert verdict.wrong == []
    assert (verdict.events, verdict.messages, verdict.refused, verdict.repeats) == (8, 6, 1, 2)


def altered(log: list[Entry], place: int, **values: Any) -> list[Entry]:
    """Return the log with other values in the first event of a message."""
    events = json.loads(log[place]["body"])
    events[0].update(values)
    return [*log[:place], {**log[place], "body": json.dumps(events)}, *log[place + 1 :]]


def split(log: list[Entry]) -> list[Entry]:
    """Return the log with a refused message whose events are sent again in another message."""
    events = json.loads(log[0]["body"])
    other = {"headers": {"webhook-id": "msg_other"}, "accepted": False}
    return [{**log[0], **other, "body": json.dumps(events[:1])}, *log]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda log: log[:-1], "6 events were accepted of 8 wanted ones"),
        (lambda log: [log[0], *log[2:]], "were accepted where [3] and the 1 after it were next"),
        (lambda log: [log[1], log[0], *log[2:]], "were accepted where [1]"),
        (
            lambda log: altered(log, 1, sequence=f"{7:020}"),
            "have sequences 7 to 4 where 3 was next",
        ),
        (lambda log: altered(log, 1, id="99"), "event 99 does not exist"),
        (lambda log: altered(log, 1, time="2026-01-01"), "event 3 differs from the record in time"),
        (lambda log: altered(log, 1, source="x"), "event 3 differs from the record in source"),
        (lambda log: [*log, *altered(log, 1, x=1)[1:2]], "was repeated with another content"),
        (split, "event 1 came in"),
    ],
)
def test_a_false_log_is_found(
    change: Callable[[list[Entry]], list[Entry]], sentence: str, database: Path
) -> None:
    """The judge finds each way in which a log can contradict the record."""
    verdict = verdict_on(database, change(log_of(database)))
    assert any(sentence in each for each in verdict.wrong), verdict.wrong


def test_a_wrong_signature_is_found(database: Path) -> None:
    """The judge checks the signature of each message, accepted or not."""
    log = log_of(database)
    log.append({**altered(log, 0, x=1)[0], "accepted": False})
    assert any("no valid signature" in each for each in verdict_on(database, log, KEY).wrong)


def test_a_change_without_event_is_found(database: Path) -> None:
    """The judge finds a change whose event is missing or appears twice."""
    add_change = "INSERT INTO changes SELECT id + 10, repository_id, tag, kind, old_digest,"
    add_change += " new_digest, fields, not_before, observed_at, hash || 'x' FROM changes LIMIT 1"
    with closing(sqlite3.connect(database)) as db:
        db.execute(add_change)
        db.commit()
    assert read_record(database)[1] == ["change 11 has not one event"]


def test_half_a_line_hides_no_entry(tmp_path: Path) -> None:
    """A log to which a killed process has written half a line keeps all entries around it."""
    path = tmp_path / "log"
    append(path, {"number": 1})
    with path.open("a") as file:
        file.write('{"numb')
    append(path, {"number": 2})
    assert [entry["number"] for entry in entries(path)] == [1, 2]


@pytest.mark.parametrize("sent", [b"", b"[{"])
def test_a_message_that_is_cut_off_is_not_accepted(sent: bytes, tmp_path: Path) -> None:
    """A sender that is killed before the end of its message leaves no acceptance in the log."""
    head = b"POST /web HTTP/1.1\r\nHost: ops\r\nwebhook-id: msg_1\r\nContent-Length: 9\r\n\r\n"
    with receiver(0, tmp_path, HONEST) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            connection.sendall(head + sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1)
        server.shutdown()
        thread.join()
    assert answer == b""
    (entry,) = entries(tmp_path / "web.log")
    assert (entry["fault"], entry["accepted"], entry["body"]) == ("cut off", False, None)
