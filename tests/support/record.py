"""Write to a database, copy it, and check that its history is whole."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from tagsync.clock import timestamp
from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.models import Change, Image, Listing, Tag
from tagsync.polling.decide import apply, diff
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock


def assert_history_is_whole(database: Path) -> None:
    """Check the hash chain, and that replaying the changes gives the mirror."""
    with closing(sqlite3.connect(database)) as connection:
        changes = connection.execute(
            "SELECT c.id, registry || '/' || name, tag, kind, old_digest, new_digest, fields,"
            " c.not_before, observed_at, hash, repository_id FROM changes AS c"
            " JOIN repositories AS r ON r.id = repository_id ORDER BY c.id"
        ).fetchall()
        names = ", ".join(Tag.__struct_fields__)
        mirror = {
            (row[0], row[1]): row[1:]
            for row in connection.execute(f"SELECT repository_id, {names} FROM tags")
        }
    head = "0" * 64
    replayed: dict[int, dict[str, Tag]] = {}
    for *content, digest, repository_id in changes:
        text = json.dumps([head, *content], ensure_ascii=False, separators=(",", ":"))
        head = sha256(text.encode()).hexdigest()
        assert head == digest
        _, _, tag, kind, old, new, fields, _, _ = content
        change = Change(tag, kind, old, new, json.loads(fields))
        replayed[repository_id] = apply(replayed.get(repository_id, {}), [change])
    assert mirror == {
        (repository_id, name): msgspec.structs.astuple(tag)
        for repository_id, tags in replayed.items()
        for name, tag in tags.items()
    }


def record(
    store: Store, job: Job, clock: FakeClock, tags: dict[str, Tag], images: dict[str, Image]
) -> None:
    """Record a listing of these tags and images without polling a registry."""
    now = timestamp(clock())
    changes = diff(store.tags(job.repository), tags)
    accepted = Accepted(Listing(tags, images, now, now, None), changes)
    store.record(job.repository, accepted, store.state(job.repository), job.interval)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL on a database through a connection of its own."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def copy(database: Path, to: Path) -> None:
    """Copy a database, together with the contents of its WAL."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


@contextmanager
def without_triggers(connection: sqlite3.Connection) -> Iterator[None]:
    """Drop all triggers in this block, and restore them after it."""
    kept = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in kept:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in kept:
        connection.execute(sql)
