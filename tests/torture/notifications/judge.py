"""Compare the logs of the receivers with the database. One sentence for everything that is wrong.

The judge shares no code with the delivery: it reads the tables and checks signatures by itself.

- The record: every change that is no baseline has its event, and every event of a change fits it.
- Lost: each event that a destination wants was accepted by its receiver.
- Order: events were first accepted in the order of their ids, and ``sequence`` counts them from 1.
- Invented: each event that arrived, accepted or not, equals the row of its id.
- Repeats: whatever arrives again under a ``webhook-id`` is the same, and an event that arrives
  again has the same ``webhook-id``.
- Signatures are valid for the time at which the message arrived.
"""

import base64
import hmac
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

_MOST: Final = 20
"""Maximum number of sentences about one receiver. The rest would say the same."""

_TOLERANCE: Final = 300
"""Maximum age of a signature in seconds, as Standard Webhooks has it."""

_EVENTS: Final = """
    SELECT e.id, e.at, e.kind, r.full_name AS repository, e.tag, e.change_id, e.detail, c.hash,
           c.kind AS change_kind, c.old_digest, c.new_digest, c.fields, c.not_before, c.observed_at,
           c.tag AS change_tag, c.repository_id IS e.repository_id AS same_repository
    FROM events AS e LEFT JOIN repositories AS r ON r.id = e.repository_id
    LEFT JOIN changes AS c ON c.id = e.change_id ORDER BY e.id
"""
_NOT_ONE_EVENT: Final = """
    WITH told AS (
        SELECT change_id, count(*) AS number FROM events
        WHERE kind IN ('added', 'moved', 'updated', 'deleted') GROUP BY change_id)
    SELECT c.id FROM changes AS c LEFT JOIN told ON told.change_id = c.id
    WHERE c.not_before IS NOT NULL AND told.number IS NOT 1 ORDER BY c.id
"""
_KINDS: Final = {"added": {"added"}, "deleted": {"deleted"}, "updated": {"moved", "updated"}}

Row = dict[str, Any]


class Verdict(NamedTuple):
    """What is wrong, and what arrived.

    Attributes:
        wrong: One sentence for everything that is wrong.
        events: How many different events were accepted.
        messages: How many messages arrived.
        refused: How many of them the receiver did not accept.
        repeats: How many of them had arrived before.
        faults: How often the receiver did what.
    """

    wrong: list[str]
    events: int
    messages: int
    refused: int
    repeats: int
    faults: Counter[str]


class Record(NamedTuple):
    """The events of a database.

    Attributes:
        source: The ``source`` of its CloudEvents.
        events: The rows by id, oldest first.
    """

    source: str
    events: Mapping[int, Row]


def read_record(database: Path) -> tuple[Record, list[str]]:
    """Return the events, and what is wrong between them and the changes."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        (number,) = db.execute("SELECT database_id FROM info").fetchone()
        events = {row["id"]: dict(row) for row in db.execute(_EVENTS)}
        without = [row["id"] for row in db.execute(_NOT_ONE_EVENT)]
    wrong = [f"change {number} has not one event" for number in without]
    if list(events) != list(range(1, len(events) + 1)):
        wrong.append("the ids of events have gaps")
    wrong += [f"event {row['id']} does not fit its change" for row in events.values() if _odd(row)]
    return Record(f"tagsync/{number}", events), wrong


def _odd(row: Row) -> bool:
    if row["change_id"] is None:
        return row["kind"] in {"added", "moved", "updated", "deleted"}
    moved = row["old_digest"] != row["new_digest"]
    return (
        row["kind"] not in _KINDS[row["change_kind"]]
        or (row["kind"] == "moved" and not moved)
        or row["tag"] != row["change_tag"]
        or not row["same_repository"]
        or row["at"] != row["observed_at"]
    )


def judge_receiver(
    name: str,
    log: Iterable[Mapping[str, Any]],
    record: Record,
    wants: Callable[[Row], bool],
    key: bytes | None,
) -> Verdict:
    """Compare the log of one receiver with the record.

    Args:
        name: The destination, for the sentences.
        log: The entries, in the order in which they were written.
        record: The events of the database.
        wants: Whether the filter of the destination lets a row through.
        key: The signing key. None if messages are not signed.
    """
    wanted = [number for number, row in record.events.items() if wants(row)]
    judged = _Receiver(name, record, wanted)
    for entry in log:
        judged.read(entry, key)
    return judged.verdict()


class _Receiver:
    def __init__(self, name: str, record: Record, wanted: list[int]) -> None:
        self._name = name
        self._record = record
        self._wanted = wanted
        self._accepted = 0
        self._messages: dict[str, bytes] = {}
        self._message_of: dict[int, str] = {}
        self._accepted_messages: set[str] = set()
        self._faults: Counter[str] = Counter()
        self._refused = self._repeats = 0
        self._wrong: list[str] = []

    def read(self, entry: Mapping[str, Any], key: bytes | None) -> None:
        self._faults[entry["fault"]] += 1
        self._refused += not entry["accepted"]
        if entry["body"] is None:
            return
        number = entry["headers"]["webhook-id"]
        if key is not None and not _is_signed(entry, key):
            self._say(f"message {number} has no valid signature")
        content = sha256(entry["body"].encode()).digest()
        events = _events_of(entry["body"])
        if number in self._messages:
            self._repeats += 1
            if self._messages[number] != content:
                self._say(f"message {number} was repeated with another content")
        else:
            self._messages[number] = content
            self._check_content(number, events)
        if entry["accepted"] and number not in self._accepted_messages:
            self._accepted_messages.add(number)
            self._accept(events)

    def _check_content(self, message: str, events: list[Row]) -> None:
        for event in events:
            number = int(event["id"])
            if self._message_of.setdefault(number, message) != message:
                self._say(f"event {number} came in {message} and {self._message_of[number]}")
            row = self._record.events.get(number)
            if row is None:
                self._say(f"event {number} does not exist")
            elif differing := list(_differences(event, row, self._record.source)):
                self._say(f"event {number} differs from the record in {', '.join(differing)}")

    def _accept(self, events: list[Row]) -> None:
        """Compare a message that was accepted for the first time with the events that are next."""
        following = self._wanted[self._accepted : self._accepted + len(events)]
        if [int(event["id"]) for event in events] != following:
            self._say(
                f"events {events[0]['id']} to {events[-1]['id']} were accepted where"
                f" {following[:1]} and the {len(events) - 1} after it were next"
            )
        sequences = [int(event["sequence"]) for event in events]
        if sequences != list(range(self._accepted + 1, self._accepted + len(events) + 1)):
            self._say(
                f"events from {events[0]['id']} on have sequences {sequences[0]} to"
                f" {sequences[-1]} where {self._accepted + 1} was next"
            )
        self._accepted += len(events)

    def verdict(self) -> Verdict:
        if self._accepted != len(self._wanted):
            self._say(f"{self._accepted} events were accepted of {len(self._wanted)} wanted ones")
        received = sum(self._faults.values())
        return Verdict(
            self._wrong[:_MOST],
            self._accepted,
            received,
            self._refused,
            self._repeats,
            self._faults,
        )

    def _say(self, sentence: str) -> None:
        self._wrong.append(f"{self._name}: {sentence}")


def _events_of(body: str) -> list[Row]:
    """Return the events of a webhook's body, or of the lines of a command's input."""
    try:
        content = json.loads(body)
    except ValueError:
        return [json.loads(line) for line in body.splitlines()]
    return content if isinstance(content, list) else [content]


def _differences(event: Row, row: Row, source: str) -> Iterator[str]:
    """Yield the names of what an event says differently from its row."""
    word = {"baselined": "repository", "verification_failed": "record"}.get(row["kind"], "tag")
    if row["kind"] in {"held", "failed", "recovered", "stale"}:
        word = "repository"
    expected = {
        "specversion": "1.0",
        "source": source,
        "type": f"tagsync.{word}.{row['kind']}",
        "time": row["at"],
    }
    data = {name: row[name] for name in ("kind", "repository", "tag", "change_id", "hash")}
    data |= {name: row[name] for name in ("old_digest", "new_digest", "not_before", "observed_at")}
    data["fields"] = None if row["fields"] is None else json.loads(row["fields"])
    data["detail"] = json.loads(row["detail"] or "{}")
    names = [each for each in (row["repository"], row["tag"]) if each is not None]
    if names:
        expected["subject"] = ":".join(names)
    yield from (name for name, value in expected.items() if event.get(name) != value)
    yield from (name for name, value in data.items() if event["data"].get(name) != value)


def _is_signed(entry: Mapping[str, Any], key: bytes) -> bool:
    headers = entry["headers"]
    number, seconds = headers["webhook-id"], headers["webhook-timestamp"]
    content = f"{number}.{seconds}.{entry['body']}".encode()
    expected = base64.b64encode(hmac.digest(key, content, sha256)).decode()
    is_recent = abs(entry["at"] - int(seconds)) <= _TOLERANCE
    return is_recent and bool(headers.get("webhook-signature") == f"v1,{expected}")
