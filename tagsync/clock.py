"""The current time, and the text form in which tagsync stores times.

A time that tagsync takes from the clock is stored as ``YYYY-MM-DDTHH:MM:SS.mmmZ`` in UTC. Sorting
such texts sorts them by time. A time that a registry states is stored exactly as the registry sent
it.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""A function that returns the current time, with a time zone. Tests pass a clock of their own."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Return the text that the database stores for a time.

    Args:
        moment: A time with a time zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """Return the time for a text that `timestamp` wrote."""
    return datetime.fromisoformat(text)
