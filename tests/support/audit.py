"""Name moments and tags, read the rows of audit queries, and alter a database."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.models import Tag
from tests.support.clock import FakeClock
from tests.support.record import without_triggers

Row = dict[str, Any]
RunQuery = Callable[..., list[Row]]
PollAt = Callable[..., None]
Edit = str | Callable[[sqlite3.Connection], object]

CHECKS = (
    "schema",
    "chain",
    "images",
    "tags",
    "days",
    "events",
    "observations",
    "repositories",
    "heads",
)
"""The checks of `tagsync verify`, in their order."""


def at(minutes: float) -> str:
    """Return the moment this many minutes after the tests' clock starts."""
    return timestamp(FakeClock().now + timedelta(minutes=minutes))


def pointing(tag: str, digest: str) -> Tag:
    """Return a tag that points to a digest."""
    return Tag(tag, f"sha256:{digest}")


def tag_states(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Return the state of the tag in each row, and how certain it is."""
    return [
        tuple(
            row[name]
            for name in ("tag", "digest", "present", "certainty", "unsure_from", "unsure_until")
        )
        for row in rows
    ]


def faults_of(database: Path, *heads: str) -> dict[str, str | None]:
    """Return the fault that each check of `tagsync verify` found."""
    with Audit.open(database) as audit:
        rows = list(audit.verify(heads))
    assert [row["check"] for row in rows] == list(CHECKS)
    return {row["check"]: row["detail"] for row in rows if row["result"] == "fault"}


def altered_copy(original: Path, to: Path, *edits: Edit) -> Path:
    """Return a copy of a database that was edited while its triggers were dropped."""
    to.write_bytes(original.read_bytes())
    with closing(sqlite3.connect(to)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        with without_triggers(connection):
            for edit in edits:
                if callable(edit):
                    edit(connection)
                else:
                    assert connection.execute(edit).rowcount, edit
    return to
