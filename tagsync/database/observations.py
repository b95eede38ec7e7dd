"""Observations: the evidence of when tagsync polled, and with which result.

Each row is a run of consecutive polls of a repository with the same result, within one UTC day.
Only the newest row of a repository may grow. Every other one has ended: it has its place in the
hash chain of observations, and never changes again.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final, NamedTuple

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.decoding import check_timestamp
from tagsync.database.hash_chain import OBSERVATION_COLUMNS, link_observation, read_heads
from tagsync.database.outcomes import Damaged, Failed, Held, Outcome
from tagsync.database.state import RepositoryState
from tagsync.models import Unchanged

_NEWEST: Final = """
    SELECT outcome, reasons, reason_key, source, detail, tags, id, last_at, clock_said, ended
    FROM observations WHERE repository_id = ? ORDER BY id DESC LIMIT 1
"""
_NEWEST_LISTED: Final = """
    SELECT outcome, reasons, reason_key, source, detail, tags
    FROM observations WHERE repository_id = ? AND outcome = 'ok' ORDER BY id DESC LIMIT 1
"""
_WAS_HELD: Final = """
    SELECT EXISTS (
        SELECT 1 FROM observations
        WHERE repository_id = ?1 AND outcome = 'held' AND reason_key = ?2 AND id > coalesce((
            SELECT id FROM observations WHERE repository_id = ?1 AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1
        ), 0)
    )
"""
_INSERT: Final = """
    INSERT INTO observations (repository_id, outcome, reasons, reason_key, source, detail, tags,
                              clock_said, first_at, last_at, polls)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
"""
_EXTEND: Final = "UPDATE observations SET last_at = ?, polls = polls + 1, tags = ? WHERE id = ?"
_END: Final = "UPDATE observations SET ended = ?, change_id = ?, hash = ? WHERE id = ?"
_ROWS_TO_END: Final = f"""
    SELECT o.id, r.full_name, {", ".join(f"o.{name}" for name in OBSERVATION_COLUMNS)}
    FROM observations AS o LEFT JOIN repositories AS r ON r.id = o.repository_id
"""  # noqa: S608  constants
_IS_PAST: Final = "ended IS NULL AND last_at < ?"
"""SQL condition for the observations whose UTC day is before the given one."""

_TICK: Final = timedelta(milliseconds=1)
"""The smallest difference between two timestamps."""


class PollTime(NamedTuple):
    """The time of a poll, as it is recorded.

    Attributes:
        at: The time to record.
        clock_said: The clock's time, if it was before the last recorded time. Otherwise None.
    """

    at: str
    clock_said: str | None = None


class Result(NamedTuple):
    """The result of a poll, in the columns of an observation."""

    outcome: str
    reasons: str | None
    reason_key: str | None
    source: str | None
    detail: str | None
    tags: int | None


class Newest(NamedTuple):
    """The newest observation of a repository.

    The attributes after ``result`` are columns of ``observations``.
    """

    result: Result
    id: int
    last_at: str
    clock_said: str | None
    ended: int | None


def poll_time(outcome: Outcome, state: RepositoryState, seen: RepositoryState) -> PollTime:
    """Return the time to record for a poll, so that recorded times stay in order.

    If the clock was set back, the result is one millisecond after the repository's last recorded
    time. Such a time only shows the order of the polls, not when they took place.

    Args:
        outcome: The outcome of the poll.
        state: The repository's current state.
        seen: The state that the poll read when it began.
    """
    last = state.last_attempt_at
    if isinstance(outcome, Failed):
        # Concurrent polls that fail may be recorded in either order. An earlier time does not mean
        # that the clock was set back.
        return PollTime(max(outcome.finished_at, last or ""))
    at = (outcome if isinstance(outcome, Unchanged) else outcome.listing).finished_at
    if last is None or at >= last:
        return PollTime(at)
    if at >= (seen.last_attempt_at or at):
        # Another poll began later, failed and was recorded first: the clock was not set back.
        return PollTime(last)
    return PollTime(timestamp(parse_timestamp(last) + _TICK), clock_said=at)


def read_newest(db: Connection, repository_id: int) -> Newest | None:
    """Return the newest observation of a repository, or None if there is none.

    Raises:
        DamagedRecord: If its time is not one that tagsync wrote.
    """
    row = db.execute(_NEWEST, (repository_id,)).fetchone()
    if row is None:
        return None
    newest = Newest(Result(*row[:6]), *row[6:])
    check_timestamp(newest.last_at, f"observation {newest.id}")
    return newest


def was_held(db: Connection, repository_id: int, held: Held, newest: Newest | None) -> bool:
    """Return whether a listing since the last recorded one was held with the same ``reason_key``.

    Args:
        db: The database, before the poll is recorded.
        repository_id: The repository.
        held: The outcome of the poll.
        newest: The newest observation.
    """
    if newest is not None and (newest.result.outcome, newest.result.reason_key) == (
        "held",
        held.reason_key,
    ):
        return True
    (found,) = db.execute(_WAS_HELD, (repository_id, held.reason_key)).fetchone()
    return bool(found)


def observe(
    db: Connection,
    repository_id: int,
    outcome: Outcome,
    time: PollTime,
    interval: timedelta,
    newest: Newest | None,
) -> None:
    """Add a poll to its repository's newest observation, or end that one and begin another.

    A new observation begins if the result differs, after a gap in coverage, and on a new UTC day.
    It begins with the last poll of the observation before it if only the day is new, or if both
    have complete listings without a gap between them: the time between the two is covered.

    Args:
        db: Within a write transaction, after the poll's changes were recorded.
        repository_id: The repository.
        outcome: The outcome of the poll.
        time: The time to record.
        interval: Planned time between two polls. After more than twice this time there is a gap.
        newest: The newest observation before the poll.
    """
    result = _result_of(db, repository_id, outcome, newest)
    _add(db, repository_id, newest, result, time, interval)


def observe_damage(
    db: Connection,
    repository_id: int,
    damage: Damaged,
    at: str,
    interval: timedelta,
    newest: Newest | None,
) -> None:
    """Record that a poll failed because the repository's record is damaged.

    Only observations are read and written. The repository's row stays as it is, so that
    `tagsync verify` still finds the damage.

    Args:
        db: Within a write transaction.
        repository_id: The repository.
        damage: The damage.
        at: The time to record.
        interval: As in `observe`.
        newest: As in `observe`.
    """
    result = Result("failed", "damaged", damage.reason_key, None, damage.detail, None)
    _add(db, repository_id, newest, result, PollTime(at), interval)


def has_past(db: Connection, today: str) -> bool:
    """Return whether `end_past` has anything to do."""
    sql = f"SELECT 1 FROM observations WHERE {_IS_PAST} LIMIT 1"  # noqa: S608  constants
    return db.execute(sql, (today,)).fetchone() is not None


def end_past(db: Connection, today: str, limit: int) -> None:
    """End observations whose UTC day is over, because they can no longer grow.

    Args:
        db: Within a write transaction.
        today: The current UTC day, as ``YYYY-MM-DD``.
        limit: Maximum number of observations to end.
    """
    sql = f"{_ROWS_TO_END} WHERE {_IS_PAST} ORDER BY last_at, o.id LIMIT ?"
    _end(db, db.execute(sql, (today, limit)).fetchall())


def _add(
    db: Connection,
    repository_id: int,
    newest: Newest | None,
    result: Result,
    time: PollTime,
    interval: timedelta,
) -> None:
    """Extend the newest observation, or end it and insert the next one."""
    first_at = time.at
    if newest is not None and _follows(newest, time, interval):
        is_same = newest.result[:4] == result[:4]
        if is_same and newest.ended is None and newest.last_at[:10] == time.at[:10]:
            db.execute(_EXTEND, (time.at, result.tags, newest.id))
            return
        if is_same or newest.result.outcome == result.outcome == "ok":
            first_at = newest.last_at
    if newest is not None and newest.ended is None:
        _end(db, db.execute(f"{_ROWS_TO_END} WHERE o.id = ?", (newest.id,)).fetchall())
    db.execute(_INSERT, (repository_id, *result, time.clock_said, first_at, time.at))


def _end(db: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Append growing observations, as `_ROWS_TO_END` returns them, to the hash chain."""
    heads = read_heads(db)
    ended, digest = heads.observations.ended, heads.observations.hash
    change_id = heads.changes.change_id or None
    updates = []
    for number, repository, *columns in rows:
        ended += 1
        digest = link_observation(digest, ended, repository, columns, change_id, heads.changes.hash)
        updates.append((ended, change_id, digest, number))
    db.executemany(_END, updates)


def _follows(newest: Newest, time: PollTime, interval: timedelta) -> bool:
    """Return whether the next poll follows an observation without a gap.

    A time that shows only the order of polls does not follow one that the clock has said, nor the
    other way around.
    """
    gap = parse_timestamp(time.at) - parse_timestamp(newest.last_at)
    was_behind, is_behind = newest.clock_said is not None, time.clock_said is not None
    return was_behind == is_behind and gap <= 2 * interval


def _result_of(
    db: Connection, repository_id: int, outcome: Outcome, newest: Newest | None
) -> Result:
    if isinstance(outcome, Unchanged):
        # The registry returned the recorded listing again, so the result is the recorded one.
        if newest is not None and newest.result.outcome == "ok":
            return newest.result
        row = db.execute(_NEWEST_LISTED, (repository_id,)).fetchone()
        return Result(*row) if row else Result("ok", None, None, None, None, None)
    reasons = ",".join(sorted(outcome.reasons)) or None
    about = (reasons, outcome.reason_key)
    if isinstance(outcome, Failed):
        return Result("failed", *about, None, outcome.detail, None)
    listing = outcome.listing
    kind = "held" if isinstance(outcome, Held) else "ok"
    return Result(kind, *about, listing.source, outcome.detail, len(listing.tags))
