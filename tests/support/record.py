"""Write to a database, copy it, and check that its history is whole."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from tagsync.clock import timestamp
from tagsync.database.hash_chain import GENESIS, OBSERVATION_COLUMNS
from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.models import Change, Image, Listing, Tag
from tagsync.polling.decide import apply, diff
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock


def assert_history_is_whole(database: Path) -> None:
    """Check both hash chains and the checksums, and that replaying the changes gives the mirror."""
    with closing(sqlite3.connect(database)) as connection:
        changes = connection.execute(
            "SELECT c.id, registry || '/' || name, tag, kind, old_digest, new_digest, fields,"
            " c.not_before, observed_at, c.hash, repository_id FROM changes AS c"
            " JOIN repositories AS r ON r.id = repository_id ORDER BY c.id"
        ).fetchall()
        names = ", ".join(Tag.__struct_fields__)
        mirror = {
            (row[0], row[1]): row[1:]
            for row in connection.execute(f"SELECT repository_id, {names} FROM tags")
        }
        assert_observations_are_chained(connection)
    head = GENESIS
    replayed: dict[int, dict[str, Tag]] = {}
    for *content, digest, repository_id in changes:
        head = hash_of([head, *content])
        assert head == digest
        _, _, tag, kind, old, new, fields, _, _ = content
        change = Change(tag, kind, old, new, json.loads(fields))
        replayed[repository_id] = apply(replayed.get(repository_id, {}), [change])
    assert mirror == {
        (repository_id, name): msgspec.structs.astuple(tag)
        for repository_id, tags in replayed.items()
        for name, tag in tags.items()
    }


def assert_observations_are_chained(connection: sqlite3.Connection) -> None:
    """Check the chain of observations, which row of each repository grows, and the checksums."""
    ended = connection.execute(
        "SELECT o.ended, registry || '/' || name, o.repository_id, outcome, reasons, reason_key,"
        " source, clock_said, detail, first_at, last_at, polls, tags, change_id,"
        f" coalesce(c.hash, '{GENESIS}'), o.hash FROM observations AS o"
        " JOIN repositories AS r ON r.id = o.repository_id LEFT JOIN changes AS c"
        " ON c.id = change_id WHERE ended IS NOT NULL ORDER BY ended"
    ).fetchall()
    head = GENESIS
    for number, (*content, digest) in enumerate(ended, 1):
        head = hash_of([head, *content])
        assert (content[0], digest) == (number, head)
    growing = "SELECT id, ended, change_id, hash FROM observations WHERE ended IS NULL"
    newest = "SELECT max(id) FROM observations GROUP BY repository_id"
    rows = connection.execute(growing).fetchall()
    assert {row[0] for row in rows} <= {row[0] for row in connection.execute(newest)}
    assert all(row[1:] == (None, None, None) for row in rows)
    columns = (
        "id, registry, name, first_observed_at, last_attempt_at, last_complete_at, listing_hash,"
        " version, failures, last_error, not_before, unlogged_from"
    )
    for *values, digest in connection.execute(f"SELECT {columns}, hash FROM repositories"):
        assert digest == hash_of(values)


def hash_of(values: list[Any]) -> str:
    """Return the SHA-256 of some values as a JSON array, as the database's documentation says."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def rebuild_observation_chain(connection: sqlite3.Connection) -> None:
    """Give every ended observation a matching hash, as an attacker could who knows the formula."""
    head = GENESIS
    columns = ", ".join(f"o.{name}" for name in OBSERVATION_COLUMNS)
    rows = connection.execute(
        f"SELECT o.ended, registry || '/' || name, {columns}, change_id,"
        f" coalesce(c.hash, '{GENESIS}') FROM observations AS o"
        " JOIN repositories AS r ON r.id = o.repository_id LEFT JOIN changes AS c"
        " ON c.id = change_id WHERE ended IS NOT NULL ORDER BY ended"
    ).fetchall()
    for row in rows:
        head = hash_of([head, *row])
        connection.execute("UPDATE observations SET hash = ? WHERE ended = ?", (head, row[0]))


def recount_days(connection: sqlite3.Connection) -> None:
    """Make ``daily_changes`` count the changes that there are, as an attacker could."""
    moved = "kind = 'updated' AND ifnull(old_digest <> new_digest, 0)"
    connection.execute("DELETE FROM daily_changes")
    connection.execute(
        "INSERT INTO daily_changes SELECT substr(observed_at, 1, 10), repository_id,"
        " sum(kind = 'added' AND not_before IS NULL),"
        f" sum(kind = 'added' AND not_before IS NOT NULL), sum({moved}),"
        f" sum(kind = 'updated' AND NOT ({moved})), sum(kind = 'deleted')"
        " FROM changes GROUP BY 1, 2"
    )


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


def insert_names(path: Path, names: Iterable[str], tags: Iterable[object]) -> None:
    """Make a database in which each of these repositories of ``r`` has these tags."""
    time = "2026-05-03T12:00:00.000Z"
    Store.open(path).close()
    tags = list(tags)
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in names:
            added = connection.execute(
                "INSERT INTO repositories (registry, name, last_attempt_at, hash)"
                " VALUES ('r', ?, ?, '')",
                (name, time),
            )
            connection.executemany(
                "INSERT INTO tags (repository_id, tag, first_observed_at, changed_at)"
                " VALUES (?, ?, ?, ?)",
                [(added.lastrowid, tag, time, time) for tag in tags],
            )
