"""Changes of immutable tags, as a poll records them, and what people answer."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from tagsync.database.connection import Connection
from tagsync.database.events import NewEvent, append_events
from tests.support.record import query

ACCEPTED_AT: Final = "2026-05-03T13:00:00.000Z"


def add_violation(
    database: Path,
    change_id: int,
    kind: Literal["immutable_moved", "immutable_deleted"] = "immutable_moved",
    previous: str | None = "sha256:1",
) -> None:
    """Record the event that a change moved or deleted an immutable tag."""
    sql = f"SELECT observed_at, repository_id, tag FROM changes WHERE id = {change_id}"
    ((at, repository_id, tag),) = query(database, sql)
    detail = json.dumps({"previous_digest": previous, "pattern": "v*"})
    with closing(sqlite3.connect(database, factory=Connection)) as db:
        append_events(db, [NewEvent(at, kind, repository_id, tag, change_id, detail)])
        db.commit()


def add_acceptance(database: Path, change_id: int, reason: str = "a rebuild") -> None:
    """Record that a person accepted a change."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(
            "INSERT INTO acceptances VALUES (?, ?, 'alice (uid 1000)', ?)",
            (change_id, ACCEPTED_AT, reason),
        )
