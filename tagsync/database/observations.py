"""Observations: the evidence of when tagsync polled, and with which result.

Each row is a run of consecutive polls of a repository with the same result. A year of polls
without a change is therefore stored in a few rows.
"""

from datetime import timedelta
from typing import Final, NamedTuple

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.decoding import check_timestamp
from tagsync.database.outcomes import Failed, Held, Outcome
from tagsync.database.state import RepositoryState
from tagsync.models import Unchanged

_NEWEST: Final = """
    SELECT outcome, reasons, reason_key, source, detail, tags, id, last_at, clock_said
    FROM observations WHERE repository_id = ? ORDER BY id DESC LIMIT 1
"""
_NEWEST_LISTED: Final = """
    SELECT outcome, reasons, reason_key, source, detail, tags
    FROM observations WHERE repository_id = ? AND outcome = 'ok' ORDER BY id DESC LIMIT 1
"""
_INSERT: Final = """
    INSERT INTO observations (repository_id, outcome, reasons, reason_key, source, detail, tags,
                              clock_said, first_at, last_at, polls)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
"""
_EXTEND: Final = "UPDATE observations SET last_at = ?, polls = polls + 1, tags = ? WHERE id = ?"

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


class _Result(NamedTuple):
    """The result of a poll, in the columns of an observation."""

    outcome: str
    reasons: str | None
    reason_key: str | None
    source: str | None
    detail: str | None
    tags: int | None


class _Newest(NamedTuple):
    """The newest observation of a repository."""

    result: _Result
    id: int
    last_at: str
    clock_said: str | None


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


def observe(
    db: Connection, repository_id: int, outcome: Outcome, time: PollTime, interval: timedelta
) -> None:
    """Add a poll to its repository's newest observation, or begin a new one.

    A new observation begins if the result differs, and after a gap in coverage.

    Args:
        db: Within a write transaction.
        repository_id: The repository.
        outcome: The outcome of the poll.
        time: The time to record.
        interval: Planned time between two polls. After more than twice this time there is a gap.
    """
    newest = _read_newest(db, repository_id)
    result = _result_of(db, repository_id, outcome, newest)
    if newest is not None and _is_continued(newest, result, time, interval):
        db.execute(_EXTEND, (time.at, result.tags, newest.id))
        return
    db.execute(_INSERT, (repository_id, *result, time.clock_said, time.at, time.at))


def _is_continued(newest: _Newest, result: _Result, time: PollTime, interval: timedelta) -> bool:
    """Return whether a poll extends the newest observation: same result, no gap."""
    gap = parse_timestamp(time.at) - parse_timestamp(newest.last_at)
    was_behind, is_behind = newest.clock_said is not None, time.clock_said is not None
    same = newest.result[:4] == result[:4] and was_behind == is_behind
    return same and gap <= 2 * interval


def _read_newest(db: Connection, repository_id: int) -> _Newest | None:
    row = db.execute(_NEWEST, (repository_id,)).fetchone()
    if row is None:
        return None
    newest = _Newest(_Result(*row[:6]), *row[6:])
    check_timestamp(newest.last_at, f"observation {newest.id}")
    return newest


def _result_of(
    db: Connection, repository_id: int, outcome: Outcome, newest: _Newest | None
) -> _Result:
    if isinstance(outcome, Unchanged):
        # The registry returned the recorded listing again, so the result is the recorded one.
        if newest is not None and newest.result.outcome == "ok":
            return newest.result
        row = db.execute(_NEWEST_LISTED, (repository_id,)).fetchone()
        return _Result(*row) if row else _Result("ok", None, None, None, None, None)
    reasons = ",".join(sorted(outcome.reasons)) or None
    about = (reasons, outcome.reason_key)
    if isinstance(outcome, Failed):
        return _Result("failed", *about, None, outcome.detail, None)
    listing = outcome.listing
    kind = "held" if isinstance(outcome, Held) else "ok"
    return _Result(kind, *about, listing.source, outcome.detail, len(listing.tags))
