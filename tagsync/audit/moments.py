"""Pure: the times of a query, as the database has them."""

from datetime import UTC, datetime

from tagsync.clock import timestamp
from tagsync.errors import UnclearQuestion


def parse_iso(text: str) -> datetime:
    """Return the time for a text in ISO 8601, in UTC unless the text has another time zone.

    Raises:
        ValueError: If the text is not a time.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def to_recorded(moment: datetime, now: datetime, said: str, *, clip: bool = False) -> str:
    """Return a time in the format of `tagsync.clock.timestamp`.

    Args:
        moment: The time.
        now: The current time.
        said: The time as the user said it, for the message.
        clip: Whether a time in the future means now. Otherwise it is an error.

    Raises:
        OverflowError, ValueError: If the time cannot be converted to UTC.
        UnclearQuestion: If the time is in the future.
    """
    recorded = timestamp(moment)
    if moment <= now:
        return recorded
    if clip:
        return timestamp(now)
    raise UnclearQuestion(
        f"the time {said!r} is in the future, and the record ends now, at {timestamp(now)}:"
        " give an earlier time"
    )


def check_order(start: str | None, end: str | None, since: str, until: str) -> None:
    """Check that a period does not end before it starts.

    Args:
        start: The start. None means no start.
        end: The end. None means no end.
        since: The start as the user said it.
        until: The end as the user said it.

    Raises:
        UnclearQuestion: If the end is before the start.
    """
    if start and end and end < start:
        raise UnclearQuestion(f"{until!r} is before {since!r}: give the earlier time first")
