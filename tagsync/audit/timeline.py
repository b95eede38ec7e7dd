"""The runs of polls of a repository, and the gaps between them, in time order."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from tagsync.audit.ranges import Range
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode
from tagsync.models import Repository

Row = dict[str, Any]

_COLUMNS: Final = """
    SELECT outcome, first_at, last_at, polls, detail, clock_said, reasons, reason_key, source
    FROM observations
"""
_ALL_SQL: Final = f"""
    {_COLUMNS}
    WHERE repository_id = (SELECT id FROM repositories WHERE registry = ? AND name = ?)
    ORDER BY first_at, id
"""  # noqa: S608  constants
_NEWEST_SQL: Final = f"""
    {_COLUMNS} WHERE repository_id = ? AND id < ? ORDER BY id DESC LIMIT ?
"""
_POSITION_SQL: Final = """
    SELECT id, first_at FROM observations
    WHERE repository_id = ? AND id >= ? ORDER BY id LIMIT 1
"""


class Observation(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``observations``. Each attribute is the column of the same name."""

    outcome: str
    first_at: Timestamp
    last_at: Timestamp
    polls: int
    detail: str | None
    clock_said: str | None
    reasons: str | None
    reason_key: str | None
    source: str | None

    def goes_on_in(self, other: "Observation") -> bool:
        """Return whether another row only continues this run after midnight (UTC)."""
        result, next_result = (
            (each.outcome, each.reasons, each.reason_key, each.source, each.clock_said is None)
            for each in (self, other)
        )
        return other.first_at == self.last_at and next_result == result

    @property
    def remark(self) -> str | None:
        """The detail, with a note if the clock was behind the last recorded time."""
        if self.clock_said is None:
            return self.detail
        behind = (
            f"the clock was behind the record: it showed {self.clock_said} for the poll that is"
            f" recorded at {self.first_at}"
        )
        return f"{self.detail}; {behind}" if self.detail else behind


_STATES: Final = {"ok": "looking", "failed": "failed", "held": "held"}


def read_observations(db: Connection, repository: Repository) -> list[Observation]:
    """Return all observations of a repository, in time order.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    rows = db.execute(_ALL_SQL, (repository.registry, repository.name)).fetchall()
    found: list[Observation] = decode(
        rows, list[Observation], f"the observations of {repository.full_name}"
    )
    return found


def observations_in(
    db: Connection, repository_id: int, period: Range, limit: int
) -> tuple[list[Observation], Range]:
    """Return the observations of a repository that overlap a range, in time order.

    Args:
        db: A connection to the database.
        repository_id: The value of ``repositories.id``.
        period: The range.
        limit: Maximum number of rows to read.

    Returns:
        The observations, and the range that they cover. It is the newest part of ``period`` if the
        whole range has more rows.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    what = f"the observations of repository {repository_id}"
    end = _first_from(db, repository_id, period.end)
    found: list[Observation] = []
    for row in db.execute(_NEWEST_SQL, (repository_id, end, limit)):
        observation: Observation = decode(row, Observation, what)
        if observation.last_at < period.start:
            break
        found.append(observation)
    if len(found) == limit:
        period = period.shortened_to(found[-1].first_at)
    return found[::-1], period


def _first_from(db: Connection, repository_id: int, moment: str) -> int:
    """Return the id of a repository's first observation from a moment on, by bisection.

    The observations of a repository are in time order. Without such a row, the result is greater
    than each id.
    """
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM observations").fetchone()
    low, high = 1, int(newest) + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(_POSITION_SQL, (repository_id, middle)).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = int(row[0]) + 1
    return low


def joined(observations: Iterable[Observation]) -> Iterator[Observation]:
    """Yield the observations, with those as one that were only divided by midnight (UTC)."""
    run: Observation | None = None
    for row in observations:
        if run is not None and run.goes_on_in(row):
            run = msgspec.structs.replace(run, last_at=row.last_at, polls=run.polls + row.polls)
            continue
        if run is not None:
            yield run
        run = row
    if run is not None:
        yield run


def timeline(
    observations: Iterable[Observation], since: str | None, until: str | None
) -> Iterator[Row]:
    """Yield a row for each observation and for each gap between two observations.

    If ``since`` is before the first observation, there is also a gap between them. If ``until`` is
    after the last observation, there is also a gap between these two.
    """
    reached: str | None = None
    for row in joined(observations):
        before = since if reached is None else reached
        if before is not None and before < row.first_at:
            yield _hole(before, row.first_at)
        yield {
            "from": row.first_at,
            "to": row.last_at,
            "state": _STATES.get(row.outcome, row.outcome),
            "polls": row.polls,
            "detail": row.remark,
        }
        reached = max(reached or "", row.last_at)
    before = since if reached is None else reached
    if before is not None and until is not None and before < until:
        yield _hole(before, until)


def _hole(start: str, end: str) -> Row:
    return {"from": start, "to": end, "state": "hole", "polls": 0, "detail": None}
