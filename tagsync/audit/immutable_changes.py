"""Query the changes that moved or deleted an immutable tag, and whether they were accepted."""

from collections.abc import Sequence
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode
from tagsync.database.events import violation_of
from tagsync.database.outcomes import ViolationKind

_IS_IMMUTABLE: Final = "e.kind IN ('immutable_moved', 'immutable_deleted')"
_CHANGES_SQL: Final = f"""
    SELECT e.change_id, e.kind, r.full_name, e.tag, c.not_before, c.observed_at,
           c.old_digest, c.new_digest, a.at, a.who, a.reason, e.detail
    FROM events AS e
    JOIN changes AS c ON c.id = e.change_id
    JOIN repositories AS r ON r.id = c.repository_id
    LEFT JOIN acceptances AS a ON a.change_id = e.change_id
    WHERE {_IS_IMMUTABLE}
"""  # noqa: S608  constants
_COUNT_OPEN_SQL: Final = f"""
    SELECT count(*) FROM events AS e
    WHERE {_IS_IMMUTABLE}
          AND NOT EXISTS (SELECT 1 FROM acceptances WHERE change_id = e.change_id)
"""  # noqa: S608  constants


class ImmutableChange(msgspec.Struct, frozen=True):
    """A change that moved or deleted an immutable tag.

    Attributes:
        change_id: The id of the change.
        kind: Whether the tag moved or was deleted.
        repository: The full name of the repository.
        tag: The tag.
        not_before: The change happened after this time.
        observed_at: The change happened no later than this time.
        old_digest: The digest before the change. None if the tag was added again or unresolved.
        new_digest: The digest after the change. None if the tag was deleted.
        previous_digest: The last digest that the tag is known to have pointed to before the change.
            None if a tag was deleted that was never resolved.
        pattern: The glob of the key ``immutable`` that the tag matched when this was recorded.
        accepted_at: When the change was accepted. None if it is open.
        accepted_by: The user who accepted the change. None if it is open.
        reason: The reason that this user gave. None if it is open.
    """

    change_id: int
    kind: ViolationKind
    repository: str
    tag: str
    not_before: str | None
    observed_at: str
    old_digest: str | None
    new_digest: str | None
    previous_digest: str | None
    pattern: str
    accepted_at: str | None
    accepted_by: str | None
    reason: str | None

    @property
    def is_open(self) -> bool:
        """Whether the change is an alarm that was not accepted yet."""
        return self.accepted_at is None


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """A row of `_CHANGES_SQL`."""

    change_id: Count
    kind: ViolationKind
    repository: str
    tag: str
    not_before: Timestamp | None
    observed_at: Timestamp
    old_digest: str | None
    new_digest: str | None
    accepted_at: Timestamp | None
    accepted_by: str | None
    reason: str | None
    detail: str | None


def open_alarms(db: Connection, newest: int | None = None) -> list[ImmutableChange]:
    """Return the changes of immutable tags that were not accepted, the newest first.

    Args:
        db: A connection to the database.
        newest: Maximum number of changes. None for all of them.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    sql = f"{_CHANGES_SQL} AND a.change_id IS NULL ORDER BY e.change_id DESC LIMIT ?"
    return _read(db, sql, (-1 if newest is None else newest,))


def immutable_changes(db: Connection, newest: int | None = None) -> list[ImmutableChange]:
    """Return all changes of immutable tags, accepted ones included, the newest first.

    Args:
        db: A connection to the database.
        newest: Maximum number of changes. None for all of them.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    sql = f"{_CHANGES_SQL} ORDER BY e.change_id DESC LIMIT ?"
    return _read(db, sql, (-1 if newest is None else newest,))


def immutable_change(db: Connection, change_id: int) -> ImmutableChange | None:
    """Return one change of an immutable tag, or None if the change is no such change.

    Raises:
        DamagedRecord: If its row is not what tagsync wrote.
    """
    changes = _read(db, f"{_CHANGES_SQL} AND e.change_id = ?", (change_id,))
    return changes[0] if changes else None


def count_open_alarms(db: Connection) -> int:
    """Return how many changes of immutable tags were not accepted."""
    (count,) = db.execute(_COUNT_OPEN_SQL).fetchone()
    return int(count)


def _read(db: Connection, sql: str, values: Sequence[int]) -> list[ImmutableChange]:
    return [_change(columns) for columns in db.execute(sql, values).fetchall()]


def _change(columns: Sequence[object]) -> ImmutableChange:
    what = f"the alarm about change {columns[0]}"
    row: _Row = decode(columns, _Row, what)
    violation = violation_of(row.kind, row.detail, row.change_id)
    values = msgspec.structs.asdict(row)
    del values["detail"]
    return ImmutableChange(
        **values, previous_digest=violation.previous_digest, pattern=violation.pattern
    )
