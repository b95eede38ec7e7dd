"""Query the recorded changes, and count the baseline."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Final, Literal

import msgspec

from tagsync.audit.immutable_changes import immutable_change
from tagsync.audit.selection import Selection
from tagsync.database.acceptances import OPEN_SQL, VIOLATIONS_SQL
from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, check_timestamp, check_values, decode, decode_fields
from tagsync.models import Kind, is_glob

Row = dict[str, Any]

_CHANGES_SQL: Final = """
    SELECT id, observed_at, not_before, repository, tag, kind, moved, old_digest, new_digest,
           fields, hash
    FROM change_log
"""
_BASELINE_SQL: Final = "SELECT repository, tag FROM change_log"
_COUNTS_SQL: Final = "SELECT repository, tag, kind, moved, count(*) AS changes FROM change_log"
_IN_REPOSITORIES_SQL: Final = """
    repository_id IN (SELECT id FROM repositories
                      WHERE full_name IN (SELECT value FROM json_each(?)))
"""

_IMMUTABLE_SQL: Final = {"open": f"id IN ({OPEN_SQL})", "all": f"id IN ({VIOLATIONS_SQL})"}


class ChangeFilter(msgspec.Struct, frozen=True):
    """Which changes to return. All conditions have to hold.

    Attributes:
        since: A time, as `tagsync.clock.timestamp` writes it. Changes that certainly happened
            before this time are left out.
        until: A time in the same form. Changes that certainly happened after this time are left
            out, and so are the tags of a repository that was first listed after this time.
        kinds: The kinds of changes to include. If the sequence is empty, all kinds.
        tag: The name of a tag, or a glob over names of tags. None means all tags.
        moved: Whether to include only moves to another digest.
        baseline: Whether to include the tags that existed when their repository was first listed.
        after: Include only changes with a higher id. None means all.
        immutable: Include only changes that moved or deleted an immutable tag: the ``open`` ones,
            which were not accepted, or ``all``. None means all changes of all tags.
    """

    since: str | None = None
    until: str | None = None
    kinds: Sequence[str] = ()
    tag: str | None = None
    moved: bool = False
    baseline: bool = True
    after: int | None = None
    immutable: Literal["open", "all"] | None = None

    def has_tag(self, tag: str) -> bool:
        """Return whether the filter includes a tag with this name."""
        return self.tag is None or fnmatchcase(tag, self.tag)


EVERYTHING: Final = ChangeFilter()
"""The filter that includes every change."""


def changes(
    db: Connection,
    selection: Selection | None,
    wanted: ChangeFilter,
    *,
    newest: int | None = None,
    reverse: bool = False,
) -> Iterator[Row]:
    """Yield changes, oldest first.

    Changes of immutable tags have more columns, if only these are wanted; see
    `tagsync.audit.rows.ImmutableLogRow`.

    Args:
        db: A connection to the database.
        selection: The repositories and tags. None means all.
        wanted: Which changes to yield.
        newest: The number of changes to yield, counted from the newest. None means all.
        reverse: Whether to yield the newest change first.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    where, values = _conditions(selection, wanted)
    backwards = reverse or newest is not None
    sql = f"{_CHANGES_SQL} WHERE {where} ORDER BY id {'DESC' * backwards}"
    rows = (
        row
        for row in map(_checked, db.query(sql, values))
        if wanted.has_tag(row["tag"])
        and (selection is None or selection.has(row["repository"], row["tag"]))
    )
    if wanted.immutable is not None:
        rows = ({**row, **_violation(db, row["id"])} for row in rows)
    if newest is None or reverse:
        return islice(rows, newest)
    return reversed(list(islice(rows, newest)))


def _violation(db: Connection, change_id: int) -> Row:
    """Return the columns that a change of an immutable tag has in addition."""
    change = immutable_change(db, change_id)
    assert change is not None, change_id  # noqa: S101  the same snapshot found it by its event
    return {
        "violation": change.kind,
        "previous_digest": change.previous_digest,
        "pattern": change.pattern,
        "accepted_at": change.accepted_at,
        "accepted_by": change.accepted_by,
        "reason": change.reason,
    }


class ChangeCount(msgspec.Struct, frozen=True, array_like=True):
    """The number of changes of a tag that have the same kind.

    Attributes:
        moved: 1 if the changes are moves to another digest.
    """

    repository: str
    tag: str
    kind: Kind
    moved: int
    changes: Count


def count_changes(
    db: Connection, selection: Selection | None, wanted: ChangeFilter
) -> Iterator[ChangeCount]:
    """Yield how many changes each tag had, by kind.

    Args:
        db: A connection to the database.
        selection: The repositories and tags. None means all.
        wanted: Which changes to count.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    where, values = _conditions(selection, wanted)
    # The plus keeps SQLite from reading all changes by the index that has their order.
    group = "+repository_id" if selection is None else "repository_id"
    sql = f"{_COUNTS_SQL} WHERE {where} GROUP BY {group}, tag, kind, moved"
    for row in db.execute(sql, values):
        count: ChangeCount = decode(row, ChangeCount, "the changes")
        if wanted.has_tag(count.tag) and (
            selection is None or selection.has(count.repository, count.tag)
        ):
            yield count


def count_baseline(
    db: Connection, selection: Selection | None, wanted: ChangeFilter
) -> tuple[int, int]:
    """Return how many tags of the baseline a filter includes, and of how many repositories.

    The attribute ``baseline`` of the filter does not count.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    where, values = _conditions(selection, msgspec.structs.replace(wanted, baseline=True))
    sql = f"{_BASELINE_SQL} WHERE not_before IS NULL AND {where}"
    tags: Counter[str] = Counter()
    for row in db.execute(sql, values):
        repository, tag = decode(row, tuple[str, str], "the baseline")
        if wanted.has_tag(tag) and (selection is None or selection.has(repository, tag)):
            tags[repository] += 1
    return tags.total(), len(tags)


def _conditions(selection: Selection | None, wanted: ChangeFilter) -> tuple[str, list[Any]]:
    """Return the SQL of a filter, and its values. Globs over tags are not included."""
    conditions: list[tuple[str, Any]] = []
    if selection is not None:
        names = [repository.full_name for repository in selection.repositories]
        conditions.append((_IN_REPOSITORIES_SQL, json.dumps(names)))
    if wanted.since is not None:
        conditions.append(("observed_at >= ?", wanted.since))
    if wanted.until is not None:
        conditions.append(("coalesce(not_before, observed_at) <= ?", wanted.until))
    if wanted.kinds:
        conditions.append(("kind IN (SELECT value FROM json_each(?))", json.dumps(wanted.kinds)))
    if wanted.tag is not None and not is_glob(wanted.tag):
        conditions.append(("tag = ?", wanted.tag))
    if wanted.after is not None:
        conditions.append(("id > ?", wanted.after))
    fixed = ["moved"] * wanted.moved + ["not_before IS NOT NULL"] * (not wanted.baseline)
    if wanted.immutable is not None:
        fixed.append(_IMMUTABLE_SQL[wanted.immutable])
    where = " AND ".join([*(condition for condition, _ in conditions), *fixed]) or "1"
    return where, [value for _, value in conditions]


def _checked(row: Row) -> Row:
    what = f"change {row['id']}"
    check_values(row, what)
    fields = decode_fields(row["fields"], what)
    for name in ("not_before", "observed_at"):
        check_timestamp(row[name], what)
    decode(row["kind"], Kind, what)
    return {**row, "fields": fields, "moved": bool(row["moved"])}
