"""The current time, and the text form in which tagsync stores times.

A time that tagsync takes from the clock is stored as ``YYYY-MM-DDTHH:MM:SS.mmmZ`` in UTC. Sorting
such texts sorts them by time. A time that a registry states is stored exactly as the registry sent
it.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

_RFC_3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)

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


class StatedTime(NamedTuple):
    """A time that a registry stated. Two of them compare as the times do.

    Attributes:
        second: The time in whole seconds.
        fraction: The digits of the fraction of a second, without zeros at their end. A registry may
            state more digits than a datetime can have.
    """

    second: datetime
    fraction: str


def parse_stated_time(text: object) -> StatedTime | None:
    """Return the time for a text from a registry.

    Args:
        text: A time as RFC 3339 defines it, with any offset and any number of digits.

    Returns:
        None if the value is another text, or not a text.
    """
    match = _RFC_3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    date, time, fraction, offset = match.groups()
    try:
        second = datetime.fromisoformat(f"{date}T{time}{offset.upper()}")
    except ValueError:
        return None
    return StatedTime(second, (fraction or "").rstrip("0"))
