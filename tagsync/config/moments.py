"""Parse times as people write them: ISO 8601, an age such as ``2h``, or a word."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from tagsync.audit.moments import check_order, parse_iso, to_recorded
from tagsync.config.values import Duration
from tagsync.errors import UnclearQuestion

_DAYS_AGO: Final = {"today": 0, "yesterday": 1}


def parse_moment(text: str, now: datetime, *, clip: bool = False) -> str:
    """Return the time for a text, in the format of `tagsync.clock.timestamp`.

    Args:
        text: A time in ISO 8601, in UTC unless the text has another time zone. A date alone means
            00:00. The text may also be an age such as ``2h``, ``3d`` or ``1w``, or one of ``now``,
            ``today`` and ``yesterday`` (00:00 UTC).
        now: The current time.
        clip: Whether a time in the future means now. Otherwise it is an error.

    Raises:
        UnclearQuestion: If the text is not a time, or the time is in the future.
    """
    try:
        return to_recorded(_moment(text, now), now, text, clip=clip)
    except (ValueError, OverflowError):
        raise UnclearQuestion(
            f"invalid time {text!r}: write it as 2026-05-03, as 2026-05-03T12:00 (UTC),"
            " as 2026-05-03T12:00+02:00, as an age such as 90m, 2h, 3d or 1w, or as now, today or"
            " yesterday"
        ) from None


def parse_span(
    since: str | None, until: str | None, now: datetime
) -> tuple[str | None, str | None]:
    """Return the start and the end of a period. None means no start or no end.

    An end in the future means now.

    Raises:
        UnclearQuestion: If a text is not a time, if the start is in the future, or if the end is
            before the start.
    """
    start = None if since is None else parse_moment(since, now)
    end = None if until is None else parse_moment(until, now, clip=True)
    check_order(start, end, str(since), str(until))
    return start, end


def parse_period(
    start: str | None, end: str | None, now: datetime
) -> tuple[str | None, str | None]:
    """Like `parse_span`, but an end in the future is an error.

    Raises:
        UnclearQuestion: If a text is not a time, if one of the times is in the future, or if the
            end is before the start.
    """
    first = None if start is None else parse_moment(start, now)
    last = None if end is None else parse_moment(end, now)
    check_order(first, last, str(start), str(end))
    return first, last


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``10m``.

    Raises:
        UnclearQuestion: If the text is not a duration.
    """
    try:
        return Duration.parse(text).total_seconds()
    except ValueError as error:
        raise UnclearQuestion(str(error)) from None


def _moment(text: str, now: datetime) -> datetime:
    if text == "now":
        return now
    if text in _DAYS_AGO:
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=_DAYS_AGO[text])
    if re.fullmatch(r"(\d+[a-z]+)+", text):
        return now - Duration.parse(text)
    return parse_iso(text)
