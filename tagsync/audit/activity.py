"""Query how many changes each day had, by kind, from the counts that the recorder keeps."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.decoding import Count, decode
from tagsync.models import Repository

MOST_ROWS: Final = 200_000
"""Maximum number of rows of ``daily_changes`` that a chart reads."""

_DAYS_SQL: Final = """
    SELECT day, sum(baseline), sum(added), sum(moved), sum(updated), sum(deleted), count(*)
    FROM (SELECT * FROM daily_changes WHERE day BETWEEN :first AND :last {among}
          ORDER BY day DESC LIMIT :limit)
    GROUP BY day ORDER BY day DESC
"""
_AMONG: Final = """AND repository_id IN (
    SELECT id FROM repositories WHERE full_name IN (SELECT value FROM json_each(:names)))
"""

_TOTAL_SQL: Final = """
    SELECT coalesce(sum(baseline + added + moved + updated + deleted), 0) FROM daily_changes
    WHERE repository_id IN (
        SELECT id FROM repositories WHERE full_name IN (SELECT value FROM json_each(?)))
"""


class Day(msgspec.Struct, frozen=True):
    """The changes that were recorded on a UTC day, by kind.

    Attributes:
        day: The day, as ``YYYY-MM-DD``.
        baseline: Tags that were there when their repository was first listed.
        added: Tags that were added later.
        moved: Updates to another digest.
        updated: All other updates.
        deleted: Tags that were deleted.
    """

    day: str
    baseline: int = 0
    added: int = 0
    moved: int = 0
    updated: int = 0
    deleted: int = 0


def changes_by_day(
    db: Connection,
    today: date,
    days: int = 30,
    repositories: Sequence[Repository] | None = None,
    *,
    most: int = MOST_ROWS,
) -> list[Day]:
    """Return the number of changes of each day, oldest first.

    Args:
        db: A connection to the database.
        today: The last day, in UTC.
        days: Number of days.
        repositories: The repositories to count. None means all.
        most: Maximum number of rows to read.

    Returns:
        Each day once, also without changes. There are fewer than ``days`` days if these have more
        than ``most`` rows.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    wanted = [(today - timedelta(days=before)).isoformat() for before in range(days)]
    names = None if repositories is None else [each.full_name for each in repositories]
    sql = _DAYS_SQL.format(among="" if names is None else _AMONG)
    rows = db.execute(
        sql,
        {
            "first": wanted[-1],
            "last": wanted[0],
            "limit": most,
            **({} if names is None else {"names": json.dumps(names)}),
        },
    ).fetchall()
    counted = decode(rows, list[tuple[str, Count, Count, Count, Count, Count, int]], "the counts")
    if sum(row[-1] for row in counted) == most:
        # The oldest day may be incomplete.
        wanted = [day for day in wanted if day > counted[-1][0]]
    found = {row[0]: Day(*row[:-1]) for row in counted}
    return [found.get(day, Day(day)) for day in reversed(wanted)]


def number_of_changes(db: Connection, repositories: Sequence[Repository]) -> int:
    """Return how many changes some repositories have, the baseline included.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    names = json.dumps([each.full_name for each in repositories])
    row = db.execute(_TOTAL_SQL, (names,)).fetchone()
    (number,) = decode(row, tuple[Count], "the counts")
    return int(number)
