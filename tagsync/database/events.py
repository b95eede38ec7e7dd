"""The events of the outbox, each written in the transaction that caused it."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import msgspec
from msgspec.structs import astuple

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, damaged, decode
from tagsync.database.outcomes import Violation, ViolationKind
from tagsync.models import Kind

EventKind = Literal[
    "added",
    "moved",
    "updated",
    "deleted",
    "held",
    "failed",
    "recovered",
    "stale",
    "immutable_moved",
    "immutable_deleted",
    "unverified",
    "baselined",
    "verification_failed",
]
"""The kind of an event. docs/notifications.md explains each kind."""

EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
"""All kinds of events."""


class NewEvent(msgspec.Struct, frozen=True):
    """An event to record. Each attribute is the column of ``events`` of the same name.

    Attributes:
        at: When it was observed.
        kind: The kind of the event.
        repository_id: None if the event is about the whole database.
        tag: None if the event is not about one tag.
        change_id: None if no change caused the event.
        detail: A JSON object. None if the change says everything.
    """

    at: str
    kind: EventKind
    repository_id: int | None = None
    tag: str | None = None
    change_id: int | None = None
    detail: str | None = None


class EventChange(msgspec.Struct, frozen=True, array_like=True):
    """The change that caused an event. Each attribute is the column of ``changes``.

    Attributes:
        fields: The fields that differ, as JSON.
        not_before: The change happened after this time.
    """

    id: Count
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    fields: str
    not_before: Timestamp | None
    observed_at: Timestamp
    hash: str


class Event(msgspec.Struct, frozen=True):
    """A recorded event, with its repository and its change.

    Attributes:
        id: Its number.
        at: When it was observed.
        kind: The kind of the event.
        repository: The full name. None if the event is about the whole database.
        tag: None if the event is not about one tag.
        detail: Further facts, by name. Empty if the change says everything.
        change: None if no change caused the event.
    """

    id: int
    at: str
    kind: EventKind
    repository: str | None
    tag: str | None
    detail: dict[str, object]
    change: EventChange | None


class EventKey(msgspec.Struct, frozen=True, array_like=True):
    """The columns of an event that a filter needs. Attributes as in `Event`."""

    id: Count
    at: Timestamp
    kind: EventKind
    repository: str | None
    tag: str | None


class _Row(msgspec.Struct, frozen=True, array_like=True):
    id: Count
    at: Timestamp
    kind: EventKind
    repository: str | None
    tag: str | None
    detail: str | None


class _ViolationDetail(msgspec.Struct, frozen=True):
    """The detail of an event about an immutable tag."""

    previous_digest: str | None
    pattern: str


_NEXT: Final = "SELECT coalesce(max(id), 0) + 1 FROM events"
_INSERT: Final = """
    INSERT INTO events (id, at, kind, repository_id, tag, change_id, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SELECT: Final = """
    SELECT e.id, e.at, e.kind, r.full_name, e.tag, e.detail,
           c.id, c.kind, c.old_digest, c.new_digest, c.fields, c.not_before, c.observed_at, c.hash
    FROM events AS e
    LEFT JOIN repositories AS r ON r.id = e.repository_id
    LEFT JOIN changes AS c ON c.id = e.change_id
"""
_AFTER: Final = f"{_SELECT} WHERE e.id > ? ORDER BY e.id LIMIT ?"
_BY_ID: Final = f"{_SELECT} WHERE e.id IN (SELECT value FROM json_each(?)) ORDER BY e.id"  # noqa: S608  constants
_KEYS: Final = """
    SELECT e.id, e.at, e.kind, r.full_name, e.tag
    FROM events AS e LEFT JOIN repositories AS r ON r.id = e.repository_id
    WHERE e.id > ? ORDER BY e.id LIMIT ?
"""
_VIOLATIONS: Final = """
    SELECT change_id, kind, detail FROM events
    WHERE kind IN ('immutable_moved', 'immutable_deleted') AND change_id >= ? AND repository_id = ?
"""
_COLUMNS: Final = len(_Row.__struct_fields__)
_violation_decoder: Final = msgspec.json.Decoder(_ViolationDetail)
_detail_decoder: Final = msgspec.json.Decoder(dict[str, object])


def append_events(db: Connection, events: Iterable[NewEvent]) -> None:
    """Append events to the outbox, within the caller's write transaction."""
    rows = [astuple(event) for event in events]
    if rows:
        (first,) = db.execute(_NEXT).fetchone()
        db.executemany(_INSERT, ((number, *row) for number, row in enumerate(rows, first)))


def newest_event(db: Connection) -> int:
    """Return the id of the newest event. 0 if there is none."""
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    return int(newest)


def read_events(db: Connection, after: int, limit: int) -> list[Event]:
    """Return the events that follow a given one, the oldest first.

    Args:
        db: The database.
        after: Id of an event. 0 for the beginning.
        limit: Maximum number of events.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    return [_event(row) for row in db.execute(_AFTER, (after, limit)).fetchall()]


def read_event_keys(db: Connection, after: int, limit: int) -> list[EventKey]:
    """Like `read_events`, but return only what a filter needs. This is five times faster.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = db.execute(_KEYS, (after, limit)).fetchall()
    keys: list[EventKey] = [decode(row, EventKey, f"event {row[0]}") for row in rows]
    return keys


def read_events_by_id(db: Connection, ids: Sequence[int]) -> list[Event]:
    """Return the events with these ids, the oldest first. A missing one is left out.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = db.execute(_BY_ID, (msgspec.json.encode(ids).decode(),)).fetchall()
    return [_event(row) for row in rows]


def read_violations(db: Connection, repository_id: int, first: int) -> dict[int, Violation]:
    """Return the changes of immutable tags of a repository, by the id of the change.

    Args:
        db: The database.
        repository_id: The value of ``repositories.id``.
        first: Id of the first change to return.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = db.execute(_VIOLATIONS, (first, repository_id)).fetchall()
    return {number: violation_of(kind, detail, number) for number, kind, detail in rows}


def violation_of(kind: ViolationKind, detail: str | None, change_id: object) -> Violation:
    """Return how a change breaks the promise of an immutable tag.

    Args:
        kind: The column ``events.kind``.
        detail: The column ``events.detail``.
        change_id: The id of the change, for the message.

    Raises:
        DamagedRecord: If the detail is not what tagsync wrote.
    """
    try:
        stated = _violation_decoder.decode(detail or "")
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(f"the event of change {change_id}", error) from error
    return Violation(kind, stated.previous_digest, stated.pattern)


def _event(columns: Sequence[object]) -> Event:
    what = f"event {columns[0]}"
    row: _Row = decode(columns[:_COLUMNS], _Row, what)
    change: EventChange | None = None
    if columns[_COLUMNS] is not None:
        change = decode(columns[_COLUMNS:], EventChange, what)
    return Event(
        row.id, row.at, row.kind, row.repository, row.tag, _decode_detail(row.detail, what), change
    )


def _decode_detail(text: str | None, what: str) -> dict[str, object]:
    if text is None:
        return {}
    try:
        return _detail_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(what, error) from error
