"""Write events to a database, with the changes that caused them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tagsync.clock import timestamp
from tagsync.database.connection import Connection
from tagsync.database.events import Event, EventChange, EventKind, NewEvent, append_events
from tagsync.database.outbox import Destination, Outbox
from tagsync.database.store import Store
from tests.support.clock import FakeClock

AT = timestamp(FakeClock().now)
OLD = f"sha256:{'a' * 64}"
NEW = f"sha256:{'b' * 64}"


@contextmanager
def outbox_of(path: Path) -> Iterator[Outbox]:
    """Open a database, and its outbox."""
    with Store.open(path) as store:
        yield store.outbox


def add_moves(path: Path, count: int, tag: str = "prod", name: str = "team/app") -> None:
    """Append moves of one tag, with their changes, as the recorder writes them."""
    with closing(sqlite3.connect(path, factory=Connection)) as db:
        db.execute(
            "INSERT OR IGNORE INTO repositories (registry, name, last_attempt_at, hash)"
            " VALUES ('swr', ?, '', '')",
            (name,),
        )
        (repository,) = db.execute("SELECT id FROM repositories WHERE name = ?", (name,)).fetchone()
        (first,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM changes").fetchone()
        numbers = range(first, first + count)
        db.executemany(
            "INSERT INTO changes (id, repository_id, tag, kind, old_digest, new_digest, fields,"
            " not_before, observed_at, hash) VALUES (?, ?, ?, 'updated', ?, ?, '{}', ?, ?, ?)",
            [(number, repository, tag, OLD, NEW, AT, AT, f"hash {number}") for number in numbers],
        )
        append_events(db, [NewEvent(AT, "moved", repository, tag, number) for number in numbers])
        db.commit()


def add_stale(path: Path, count: int = 1) -> None:
    """Append events that no change caused."""
    with closing(sqlite3.connect(path, factory=Connection)) as db:
        append_events(db, [NewEvent(AT, "stale", detail="{}") for _ in range(count)])
        db.commit()


def event(
    kind: EventKind = "moved",
    *,
    number: int = 1,
    repository: str | None = "swr/team/app",
    tag: str | None = "prod",
    detail: dict[str, object] | None = None,
    old: str | None = OLD,
    new: str | None = NEW,
    change: bool = True,
) -> Event:
    """Return an event about a change of a tag, or without a change."""
    cause = EventChange(number, "updated", old, new, "{}", AT, AT, "head") if change else None
    return Event(number, AT, kind, repository, tag, detail or {}, cause)


def destination(outbox: Outbox, name: str = "ops") -> Destination:
    found = outbox.destination(name)
    assert found is not None
    return found
