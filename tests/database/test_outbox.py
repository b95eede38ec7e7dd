"""The outbox: events are append-only, and a destination loses and repeats nothing by itself."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.database.connection import Connection
from tagsync.database.events import NewEvent, append_events
from tagsync.database.outbox import Destination, Outbox
from tagsync.database.store import Store

AT = "2026-05-01T00:00:00.000Z"
LATER = "2026-05-01T00:01:00.000Z"
LATEST = "2026-05-01T00:02:00.000Z"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tagsync.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    """The outbox of a database with three events."""
    with Store.open(path) as store:
        add_events(path, 3)
        yield store.outbox


def add_events(path: Path, count: int) -> None:
    with closing(sqlite3.connect(path, factory=Connection)) as db:
        append_events(db, [NewEvent(AT, "stale", detail='{"hours": 1}') for _ in range(count)])
        db.commit()


def alter(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(sql)


def only(outbox: Outbox) -> Destination:
    (destination,) = stored(outbox)
    return destination


def stored(outbox: Outbox) -> list[Destination]:
    return [each for each in map(outbox.destination, outbox.names()) if each is not None]


def test_events_are_numbered_without_gaps(outbox: Outbox, path: Path) -> None:
    """Events have the ids 1, 2, 3 … in the order in which they were appended."""
    add_events(path, 2)
    assert [event.id for event in outbox.events(0, 10)] == [1, 2, 3, 4, 5]
    assert [event.id for event in outbox.events(2, 2)] == [3, 4]
    assert outbox.newest_event() == 5
    assert outbox.events(0, 1)[0].detail == {"hours": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET kind = 'held'",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events (id, at, kind) VALUES (1, '', 'held')",
    ],
)
def test_events_are_append_only(outbox: Outbox, path: Path, statement: str) -> None:
    """Triggers refuse to alter, delete or replace an event."""
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        alter(path, statement)
    assert [event.kind for event in outbox.events(0, 10)] == ["stale"] * 3


def test_a_new_destination_begins_at_the_present(outbox: Outbox) -> None:
    """A destination gets no event from before it was added, unless it asks for it."""
    outbox.add("ops")
    outbox.add("all", after=0)
    outbox.add("all")
    assert {each.name: each.cursor for each in stored(outbox)} == {"ops": 3, "all": 0}


def test_a_lease_has_one_holder(outbox: Outbox) -> None:
    """Another process gets the lease only after it has run out or was given up."""
    outbox.add("ops", after=0)
    assert outbox.acquire("ops", "a", AT, LATER)
    assert not outbox.acquire("ops", "b", AT, LATER)
    assert outbox.renew("ops", "a", LATEST)
    assert not outbox.acquire("ops", "b", LATER, LATEST)
    assert outbox.acquire("ops", "b", LATEST, LATEST)
    assert not outbox.renew("ops", "a", LATEST)
    outbox.release("ops", "a")
    assert only(outbox).lease_holder == "b"
    outbox.release("ops", "b")
    assert outbox.acquire("ops", "a", AT, LATER)


def test_only_the_holder_moves_the_cursor(outbox: Outbox) -> None:
    """A process that has lost its lease alters nothing of the destination."""
    outbox.add("ops", after=0)
    assert outbox.acquire("ops", "a", AT, LATER)
    assert outbox.acquire("ops", "b", LATER, LATEST)
    before = only(outbox)
    assert not outbox.begin("ops", "a", [1])
    assert not outbox.accept("ops", "a", 3, 1, AT)
    assert not outbox.refuse("ops", "a", "status 500", AT, LATER)
    assert not outbox.skip("ops", "a", 3)
    assert only(outbox) == before


def test_a_batch_keeps_its_bounds_until_it_is_accepted(outbox: Outbox) -> None:
    """The ids of a batch survive failures, and the cursor moves only when it is accepted."""
    outbox.add("ops", after=0)
    outbox.acquire("ops", "a", AT, LATER)
    outbox.begin("ops", "a", [1, 3])
    outbox.refuse("ops", "a", "status 500", AT, LATER)
    outbox.refuse("ops", "a", "status 503", LATER, LATEST)
    assert not outbox.skip("ops", "a", 3)
    failed = only(outbox)
    assert (failed.cursor, failed.batch_ids, failed.failures) == (0, (1, 3), 2)
    assert (failed.failing_since, failed.last_error) == (AT, "status 503")
    assert [event.id for event in outbox.events_by_id(failed.batch_ids)] == [1, 3]
    outbox.accept("ops", "a", 3, 2, LATEST)
    accepted = only(outbox)
    assert (accepted.cursor, accepted.batch_ids, accepted.sequence) == (3, (), 2)
    assert (accepted.failures, accepted.failing_since, accepted.retry_at) == (0, None, None)
    assert (accepted.last_error, accepted.last_accepted_at) == (None, LATEST)


def test_events_that_are_not_wanted_are_passed_over(outbox: Outbox) -> None:
    """The cursor passes events that no filter lets through, and never goes back by itself."""
    outbox.add("ops", after=0)
    outbox.acquire("ops", "a", AT, LATER)
    assert outbox.skip("ops", "a", 2)
    assert outbox.skip("ops", "a", 1)
    assert only(outbox).cursor == 2
    outbox.move("ops", 0)
    assert only(outbox).cursor == 0


def test_events_are_read_in_parts(outbox: Outbox, path: Path) -> None:
    """All events after one are read, however many there are."""
    add_events(path, 2000)
    assert [event.id for event in outbox.events_after(2)] == list(range(3, 2004))


def test_the_first_event_from_a_time_on_is_found(outbox: Outbox) -> None:
    """A time leads to the id before its first event, or to the newest event if there is none."""
    assert [outbox.last_event_before(at) for at in (AT, LATER)] == [0, 3]
