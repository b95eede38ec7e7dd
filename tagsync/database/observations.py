"""Observations: the evidence of when tagsync was looking, and with which result.

A row is a run of polls with the same result, so that a year of quiet polling is a few rows.
"""

from datetime import timedelta
from typing import Final, NamedTuple

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.outcomes import Failed, Held, Outcome
from tagsync.database.state import RepositoryState, decoding
from tagsync.models import Unchanged

_NEWEST: Final = """
    SELECT outcome, reasons, reason_key, source, id, last_at, clock_said
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
    """The time under which a poll is recorded.

    Attributes:
        at: As it is recorded.
        clock_said: The time by the clock, if the clock was behind the record. Otherwise None.
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
    """The newest observation of a repository; attributes as its columns."""

    outcome: str
    reasons: str | None
    reason_key: str | None
    source: str | None
    id: int
    last_at: str
    clock_said: str | None


def poll_time(outcome: Outcome, state: RepositoryState, seen: RepositoryState) -> PollTime:
    """Return the time under which to record a poll, so that recorded times stay in order.

    If the clock was set back, the record continues one tick after its last time: such times tell
    the order, and nothing else.

    Args:
        outcome: The outcome of the poll.
        state: The repository's current state.
        seen: The state that the poll read when it began.
    """
    last = state.last_attempt_at
    if isinstance(outcome, Failed):
        # Concurrent failures may be recorded in either order; the clock did not go back.
        return PollTime(max(outcome.finished_at, last or ""))
    at = (outcome if isinstance(outcome, Unchanged) else outcome.listing).finished_at
    if last is None or at >= last:
        return PollTime(at)
    if at >= (seen.last_attempt_at or at):
        # A poll that began and failed meanwhile was recorded first: the clock was not set back.
        return PollTime(last)
    return PollTime(timestamp(parse_timestamp(last) + _TICK), clock_said=at)


def observe(
    db: Connection, repository_id: int, outcome: Outcome, time: PollTime, interval: timedelta
) -> None:
    """Extend the newest observation, or insert a new one after a difference or a gap.

    Args:
        db: Within a write transaction.
        repository_id: The repository.
        outcome: The outcome of the poll.
        time: The time under which to record it.
        interval: Time between two polls: twice this is the longest gap within an observation.
    """
    row = db.execute(_NEWEST, (repository_id,)).fetchone()
    newest = _Newest(*row) if row else None
    result = _result_of(db, repository_id, outcome)
    if newest is not None and _is_continued(newest, result, time, interval):
        db.execute(_EXTEND, (time.at, result.tags, newest.id))
        return
    db.execute(_INSERT, (repository_id, *result, time.clock_said, time.at, time.at))


def _is_continued(newest: _Newest, result: _Result, time: PollTime, interval: timedelta) -> bool:
    """Return whether a poll has the same result as the newest observation, without a gap."""
    with decoding(f"observation {newest.id}"):
        gap = parse_timestamp(time.at) - parse_timestamp(newest.last_at)
    was_behind, is_behind = newest.clock_said is not None, time.clock_said is not None
    return newest[:4] == result[:4] and was_behind == is_behind and gap <= 2 * interval


def _result_of(db: Connection, repository_id: int, outcome: Outcome) -> _Result:
    if isinstance(outcome, Unchanged):
        # The recorded listing again, and with it what was odd about it.
        row = db.execute(_NEWEST_LISTED, (repository_id,)).fetchone()
        return _Result(*row) if row else _Result("ok", None, None, None, None, None)
    reasons = ",".join(sorted(outcome.reasons)) or None
    about = (reasons, outcome.reason_key)
    if isinstance(outcome, Failed):
        return _Result("failed", *about, None, outcome.detail, None)
    listing = outcome.listing
    kind = "held" if isinstance(outcome, Held) else "ok"
    return _Result(kind, *about, listing.source, outcome.detail, len(listing.tags))
