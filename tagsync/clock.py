"""The time: where it comes from, and how tagsync writes it down.

Times that tagsync takes are text, ``YYYY-MM-DDTHH:MM:SS.mmmZ`` in UTC, so that the order of the
text is the order of time. Times that a registry claims are stored as the registry sent them.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the current time, aware of its time zone. Injected, so that tests control the time."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Return the text that the database stores for a time.

    Args:
        moment: Aware of its time zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """Return the time that `timestamp` wrote."""
    return datetime.fromisoformat(text)
