"""Count the recorded changes of each repository by UTC day.

The counts repeat what ``changes`` says, so that a chart of a long range need not read every change.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tagsync.database.connection import Connection
from tagsync.models import RecordedChange

COUNTS: Final = ("baseline", "added", "moved", "updated", "deleted")
"""The columns of ``daily_changes`` that count. Each change counts in exactly one of them."""

_ADD: Final = f"""
    INSERT INTO daily_changes (day, repository_id, {", ".join(COUNTS)})
    VALUES (?, ?, {", ".join("?" * len(COUNTS))})
    ON CONFLICT (day, repository_id) DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)}
"""  # noqa: S608  constants


def count_changes(db: Connection, repository_id: int, changes: Sequence[RecordedChange]) -> None:
    """Add the changes of one poll to the counts of its day. Without changes, write nothing.

    Args:
        db: Within the transaction that records the changes.
        repository_id: The value of ``repositories.id``.
        changes: The changes of one poll, which all have the same ``observed_at``.
    """
    if not changes:
        return
    counts = Counter(map(_column_of, changes))
    day = changes[0].observed_at[:10]
    db.execute(_ADD, (day, repository_id, *(counts[name] for name in COUNTS)))


def _column_of(change: RecordedChange) -> str:
    """Return the column in which a change counts."""
    if change.kind == "added":
        return "baseline" if change.not_before is None else "added"
    if change.kind == "updated" and None not in (change.old_digest, change.new_digest):
        return "updated" if change.old_digest == change.new_digest else "moved"
    return change.kind
