"""Query the changes that moved or deleted an immutable tag, and whether they were accepted."""

import json
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, Timestamp, decode
from tagsync.database.events import violation_of
from tagsync.database.outcomes import ViolationKind

_IS_IMMUTABLE: Final = "e.kind IN ('immutable_moved', 'immutable_deleted')"
_OPEN_SQL: Final = """
    NOT EXISTS (SELECT 1 FROM acceptances WHERE change_id = e.change_id)
"""
_IN_REPOSITORIES_SQL: Final = """
    e.repository_id IN (SELECT id FROM repositories
                        WHERE full_name IN (SELECT value FROM json_each(?)))
"""
# CROSS JOIN, so that SQLite reads the few events by their index first, not all changes.
_CHANGES_SQL: Final = f"""
    SELECT e.change_id, e.kind, r.full_name, e.tag, c.not_before, c.observed_at,
           c.old_digest, c.new_digest, a.at, a.who, a.reason, e.detail
    FROM events AS e
    CROSS JOIN changes AS c ON c.id = e.change_id
    CROSS JOIN repositories AS r ON r.id = c.repository_id
    LEFT JOIN acceptances AS a ON a.change_id = e.change_id
    WHERE {_IS_IMMUTABLE}
"""  # noqa: S608  constants
_COUNT_SQL: Final = f"SELECT count(*) FROM events AS e WHERE {_IS_IMMUTABLE}"  # noqa: S608  constants


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


class ImmutableFilter(msgspec.Struct, frozen=True):
    """Which changes of immutable tags to return. All conditions have to hold.

    Attributes:
        accepted: Whether to include changes that were accepted.
        repositories: The full names of repositories. None means all.
        tag: The name of a tag. None means all.
    """

    accepted: bool = False
    repositories: Collection[str] | None = None
    tag: str | None = None


OPEN: Final = ImmutableFilter()
"""The filter that includes every change that was not accepted."""


def immutable_changes(
    db: Connection, wanted: ImmutableFilter = OPEN, newest: int | None = None
) -> list[ImmutableChange]:
    """Return changes of immutable tags, the newest first.

    Args:
        db: A connection to the database.
        wanted: Which changes to return.
        newest: Maximum number of changes. None for all of them.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    conditions, values = _conditions(wanted)
    sql = f"{_CHANGES_SQL} {conditions} ORDER BY e.change_id DESC LIMIT ?"
    return _read(db, sql, [*values, -1 if newest is None else newest])


def count_immutable_changes(db: Connection, wanted: ImmutableFilter = OPEN) -> int:
    """Return the number of changes of immutable tags that a filter includes."""
    conditions, values = _conditions(wanted)
    (count,) = db.execute(f"{_COUNT_SQL} {conditions}", values).fetchone()
    return int(count)


def immutable_change(db: Connection, change_id: int) -> ImmutableChange | None:
    """Return one change of an immutable tag, or None for any other change.

    Raises:
        DamagedRecord: If its row is not what tagsync wrote.
    """
    changes = _read(db, f"{_CHANGES_SQL} AND e.change_id = ?", [change_id])
    return changes[0] if changes else None


def _conditions(wanted: ImmutableFilter) -> tuple[str, list[str]]:
    """Return the SQL of a filter, which continues a WHERE clause, and its values."""
    conditions = [] if wanted.accepted else [_OPEN_SQL]
    values = []
    if wanted.repositories is not None:
        conditions.append(_IN_REPOSITORIES_SQL)
        values.append(json.dumps(sorted(wanted.repositories)))
    if wanted.tag is not None:
        conditions.append("e.tag = ?")
        values.append(wanted.tag)
    return "".join(f" AND {condition}" for condition in conditions), values


def _read(db: Connection, sql: str, values: Sequence[object]) -> list[ImmutableChange]:
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
