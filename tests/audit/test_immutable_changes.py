"""The changes of immutable tags: which are open, and what is known of each."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from tagsync.audit.immutable_changes import (
    ImmutableChange,
    ImmutableFilter,
    count_immutable_changes,
    immutable_change,
    immutable_changes,
)
from tagsync.database.connection import Connection, reading
from tagsync.database.store import Store
from tagsync.errors import DamagedRecord
from tagsync.models import Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

NEW = "sha256:new"
ALL = ImmutableFilter(accepted=True)


@pytest.fixture
def db(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> Iterator[Connection]:
    """A record in which `v1` was moved by change 3 and deleted by change 5, which is accepted."""
    for tags in (("v1", "x"), (Tag("v1", NEW), "x"), (Tag("v1", NEW), Tag("x", NEW)), ("x",)):
        scripted.then(*tags)
        clock.advance(minutes=5)
        poll(replace(job, immutable=("v*",)), store, clock=clock)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute(
            "INSERT INTO acceptances VALUES (5, '2026-05-01T01:00:00.000Z', 'ada', 'cleanup')"
        )
        writer.commit()
    with reading(database) as opened:
        yield opened


def test_open_alarms_are_those_without_an_acceptance(db: Connection) -> None:
    """An accepted change is no alarm any more, but is still listed among all of them."""
    assert [change.change_id for change in immutable_changes(db)] == [3]
    assert [change.change_id for change in immutable_changes(db, ALL)] == [5, 3]
    assert [change.change_id for change in immutable_changes(db, ALL, newest=1)] == [5]
    assert immutable_changes(db, newest=0) == []
    assert count_immutable_changes(db) == 1


def test_change_has_what_was_there_before(db: Connection) -> None:
    """A change is returned with its digests, its times, the glob and its acceptance."""
    assert immutable_change(db, 3) == ImmutableChange(
        3,
        "immutable_moved",
        "swr/team/api",
        "v1",
        "2026-05-03T12:00:00.000Z",
        "2026-05-03T12:05:00.000Z",
        "sha256:v1",
        NEW,
        "sha256:v1",
        "v*",
        None,
        None,
        None,
    )
    accepted = immutable_change(db, 5)
    assert accepted is not None
    assert not accepted.is_open
    assert (accepted.accepted_at, accepted.accepted_by, accepted.reason) == (
        "2026-05-01T01:00:00.000Z",
        "ada",
        "cleanup",
    )
    assert (accepted.new_digest, accepted.previous_digest) == (None, NEW)
    assert immutable_change(db, 4) is None


def test_damaged_detail_is_reported(db: Connection, database: Path) -> None:
    """A detail that tagsync did not write is damage, not an empty answer."""
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("DROP TRIGGER events_are_never_updated")
        writer.execute("UPDATE events SET detail = '[]' WHERE kind = 'immutable_moved'")
        writer.commit()
    with pytest.raises(DamagedRecord, match="change 3"):
        immutable_changes(db)
