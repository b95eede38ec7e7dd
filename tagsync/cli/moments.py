"""Parse the times of a command line: ISO 8601, or an age such as ``2h``."""

import re
from datetime import UTC, datetime

from tagsync.clock import timestamp
from tagsync.config.values import Duration
from tagsync.errors import UnclearQuestion


def parse_moment(text: str, now: datetime) -> str:
    """Return the time for a text, in the format of `tagsync.clock.timestamp`.

    Args:
        text: A time in ISO 8601, in UTC unless the text has another time zone. A date alone means
            00:00. The text may also be an age such as ``2h``, ``3d`` or ``1w``.
        now: The current time.

    Raises:
        UnclearQuestion: If the text is neither a time nor an age, or the time is in the future.
    """
    try:
        moment = _ago(text, now) if re.fullmatch(r"(\d+[a-z]+)+", text) else _iso(text)
        recorded = timestamp(moment)
    except (ValueError, OverflowError):
        raise UnclearQuestion(
            f"invalid time {text!r}: write it as 2026-05-03, as 2026-05-03T12:00 (UTC),"
            " as 2026-05-03T12:00+02:00, or as an age such as 90m, 2h, 3d or 1w"
        ) from None
    if moment > now:
        raise UnclearQuestion(
            f"the time {text!r} is in the future, and the record ends now, at {timestamp(now)}:"
            " give an earlier time"
        )
    return recorded


def parse_span(
    since: str | None, until: str | None, now: datetime
) -> tuple[str | None, str | None]:
    """Return the start and the end of a period. None means no start or no end.

    Raises:
        UnclearQuestion: If a text is not a time, or the end is before the start.
    """
    start, end = (None if text is None else parse_moment(text, now) for text in (since, until))
    if start and end and end < start:
        raise UnclearQuestion(f"{until!r} is before {since!r}: give the earlier time first")
    return start, end


def _ago(text: str, now: datetime) -> datetime:
    return now - Duration.parse(text)


def _iso(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
