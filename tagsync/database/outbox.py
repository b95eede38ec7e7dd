"""The outbox: which events each destination has been sent, and which process may send.

Delivery is at least once. The cursor of a destination moves only after the receiver has accepted a
batch. The ids of a batch are stored before it is first sent, so a batch keeps its bounds over
retries, restarts and changes of the configuration. A process sends only while it holds the lease of
the destination. All times are given by the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, damaged, decode
from tagsync.database.events import (
    Event,
    EventKey,
    newest_event,
    read_event_keys,
    read_events,
    read_events_by_id,
)

ResultT = TypeVar("ResultT")


class Destination(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``destinations``. Each attribute is the column of the same name.

    Attributes:
        batch: JSON array of the ids of the events that are being sent. None if none are.
        lease_holder: The process that may send. None if none may.
        failing_since: The first of the consecutive failures. None if there is none.
        retry_at: When the next attempt is due. None if nothing failed.
        last_accepted_at: None if the receiver has never accepted anything.
    """

    name: str
    cursor: Count
    sequence: Count
    batch: str | None
    lease_holder: str | None
    lease_until: Timestamp | None
    failures: Count
    failing_since: Timestamp | None
    last_error: str | None
    retry_at: Timestamp | None
    last_accepted_at: Timestamp | None

    @property
    def batch_ids(self) -> tuple[int, ...]:
        """The ids of the events that are being sent. Empty if none are.

        Raises:
            DamagedRecord: If the column is not what tagsync wrote.
        """
        if self.batch is None:
            return ()
        try:
            return msgspec.json.decode(self.batch, type=tuple[int, ...])
        except msgspec.DecodeError as error:
            raise damaged(f"the destination {self.name}", error) from error


_COLUMNS: Final = ", ".join(Destination.__struct_fields__)
_NAMES: Final = "SELECT name FROM destinations ORDER BY name"
_ONE: Final = f"SELECT {_COLUMNS} FROM destinations WHERE name = ?"  # noqa: S608  constants
_ADD: Final = "INSERT INTO destinations (name, cursor) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
_ACQUIRE: Final = """
    UPDATE destinations SET lease_holder = ?2, lease_until = ?4
    WHERE name = ?1
          AND (lease_holder IS NULL OR lease_holder = ?2 OR lease_until IS NULL
               OR lease_until <= ?3
               -- No lease lasts that long: the clock was set back after it was taken.
               OR julianday(lease_until) > julianday(?4) + 60.0 / 86400)
"""
_RENEW: Final = "UPDATE destinations SET lease_until = ? WHERE name = ? AND lease_holder = ?"
_RELEASE: Final = """
    UPDATE destinations SET lease_holder = NULL, lease_until = NULL
    WHERE name = ? AND lease_holder = ?
"""
_BEGIN: Final = "UPDATE destinations SET batch = ? WHERE name = ? AND lease_holder = ?"
_SKIP: Final = """
    UPDATE destinations SET cursor = max(cursor, ?)
    WHERE name = ? AND lease_holder = ? AND batch IS NULL
"""
_ACCEPT: Final = """
    UPDATE destinations SET
        cursor = max(cursor, ?), sequence = sequence + ?, batch = NULL, failures = 0,
        failing_since = NULL, last_error = NULL, retry_at = NULL, last_accepted_at = ?
    WHERE name = ? AND lease_holder = ?
"""
_REFUSE: Final = """
    UPDATE destinations SET
        failures = failures + 1, failing_since = coalesce(failing_since, ?), last_error = ?,
        retry_at = ?
    WHERE name = ? AND lease_holder = ?
"""
_FIRST_SINCE: Final = "SELECT id FROM events WHERE at >= ? ORDER BY id LIMIT 1"
_PAGE: Final = 1000
"""How many events `Outbox.events_after` reads at once."""

_MOVE: Final = "UPDATE destinations SET cursor = ?, batch = NULL WHERE name = ?"


class Outbox:
    """The events and the destinations of a database, for the threads of one process.

    No method holds a lock of the database when it returns.
    """

    def __init__(
        self,
        read: Callable[[], AbstractContextManager[Connection]],
        write: Callable[[Callable[[Connection], Any]], Any],
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        """Use the connections of a store; see `tagsync.database.store.Store.outbox`.

        Args:
            read: Opens the connection that reads.
            write: Runs a function in a write transaction.
            flush: Brings the transactions to the disk. Only a caller that sends events needs it.
        """
        self._read: Final = read
        self._write: Final = write
        self._flush: Final = flush

    def database_id(self) -> str:
        """Return the database's id, which a restore renews."""
        with self._read() as db:
            (number,) = db.execute("SELECT database_id FROM info").fetchone()
        return str(number)

    def flush(self) -> None:
        """Wait until all that was recorded is safe from a power cut.

        Without this, a power cut could undo an event that was sent. Its id would then be that of
        another event, which a receiver would take for a repetition.

        Raises:
            StoreError: If the disk reports an error.
        """
        self._flush()

    def newest_event(self) -> int:
        """Return the id of the newest event. 0 if there is none."""
        with self._read() as db:
            return newest_event(db)

    def events(self, after: int, limit: int) -> list[Event]:
        """Return the events that follow a given one; see `read_events`."""
        with self._read() as db:
            return read_events(db, after, limit)

    def event_keys(self, after: int, limit: int) -> list[EventKey]:
        """Return what a filter needs of the events that follow one; see `read_event_keys`."""
        with self._read() as db:
            return read_event_keys(db, after, limit)

    def events_by_id(self, ids: Sequence[int]) -> list[Event]:
        """Return the events with these ids; see `read_events_by_id`."""
        with self._read() as db:
            return read_events_by_id(db, ids)

    def events_after(self, after: int) -> Iterator[Event]:
        """Yield all events that follow a given one, read in parts."""
        while page := self.events(after, _PAGE):
            yield from page
            after = page[-1].id

    def last_event_before(self, at: str) -> int:
        """Return the id that precedes the first event from a time on.

        Args:
            at: The time. Without an event from it on, the id is that of the newest event.
        """
        with self._read() as db:
            (first,) = db.execute(_FIRST_SINCE, (at,)).fetchone() or (newest_event(db) + 1,)
        return int(first) - 1

    def names(self) -> list[str]:
        """Return the names of all destinations, of those that are not configured, too."""
        with self._read() as db:
            return [name for (name,) in db.execute(_NAMES).fetchall()]

    def destination(self, name: str) -> Destination | None:
        """Return one destination, or None if it has not been added.

        Raises:
            DamagedRecord: If its row is not what tagsync wrote.
        """
        with self._read() as db:
            row = db.execute(_ONE, (name,)).fetchone()
        return None if row is None else _destination(row)

    def add(self, name: str, after: int | None = None) -> None:
        """Add a destination, unless it is there.

        Args:
            name: Its name in the configuration.
            after: It gets the events that follow this one. None for the events of the future.
        """

        def add(db: Connection) -> None:
            db.execute(_ADD, (name, newest_event(db) if after is None else after))

        self._write(add)

    def move(self, name: str, after: int) -> None:
        """Make a destination get the events that follow a given one, sent before or not."""
        self._write(lambda db: db.execute(_MOVE, (after, name)))

    def acquire(self, name: str, holder: str, now: str, until: str) -> bool:
        """Take the lease of a destination, or take it over if it has run out.

        Args:
            name: The destination.
            holder: The process that wants to send; unique among all processes.
            now: The current time.
            until: When the lease runs out.

        Returns:
            Whether this process may send.
        """
        return self._update(_ACQUIRE, (name, holder, now, until))

    def renew(self, name: str, holder: str, until: str) -> bool:
        """Extend a lease. Return False if another process has taken it over."""
        return self._update(_RENEW, (until, name, holder))

    def release(self, name: str, holder: str) -> None:
        """Give up a lease. If another process has taken it over, nothing happens."""
        self._update(_RELEASE, (name, holder))

    def begin(self, name: str, holder: str, ids: Sequence[int]) -> bool:
        """Store the ids of a batch before it is first sent. Return False without the lease."""
        return self._update(_BEGIN, (msgspec.json.encode(ids).decode(), name, holder))

    def skip(self, name: str, holder: str, through: int) -> bool:
        """Pass over events that a destination does not want. Return False without the lease."""
        return self._update(_SKIP, (through, name, holder))

    def accept(self, name: str, holder: str, through: int, messages: int, at: str) -> bool:
        """Record that a receiver has accepted its batch.

        Args:
            name: The destination.
            holder: This process.
            through: The newest event that the batch covers.
            messages: How many messages were sent, for the destination's sequence.
            at: The current time.

        Returns:
            False without the lease. The batch may then be sent again by its new holder.
        """
        return self._update(_ACCEPT, (through, messages, at, name, holder))

    def refuse(self, name: str, holder: str, error: str, at: str, retry_at: str) -> bool:
        """Record that an attempt failed. Return False without the lease.

        Args:
            name: The destination.
            holder: This process.
            error: Why it failed, without secrets.
            at: The current time.
            retry_at: When the next attempt is due.
        """
        return self._update(_REFUSE, (at, error, retry_at, name, holder))

    def _update(self, statement: str, values: Sequence[object]) -> bool:
        """Run an UPDATE of one row. Return whether it matched."""

        def update(db: Connection) -> bool:
            return db.execute(statement, values).rowcount > 0

        return bool(self._write(update))


def _destination(row: Sequence[object]) -> Destination:
    destination: Destination = decode(row, Destination, f"the destination {row[0]}")
    return destination
