"""Pure: values as people read them in a table, such as times, durations, sizes and digests."""

import re
from datetime import datetime, timedelta, tzinfo
from typing import Final

_DIGEST: Final = re.compile(r"(?:([A-Za-z0-9+._-]+):)?([0-9a-f]{32,})")

_DIGITS: Final = 12
"""Number of hexadecimal digits of a short digest."""

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
"""Units of a duration, with their seconds, the longest first."""

_FEW: Final = 9.95
"""Scaled sizes below this one have a decimal."""


def digest_text(digest: str | None, *, full: bool = False) -> str:
    """Return a digest for a table: the first 12 digits, or the whole digest.

    ``sha256:`` is left out of a short digest; other algorithms stay. A text that is not a digest is
    returned unchanged, and None is returned as an empty text.
    """
    match = _DIGEST.fullmatch(digest or "")
    if full or match is None:
        return digest or ""
    mark = "" if match[1] in {None, "sha256"} else f"{match[1]}:"
    return f"{mark}{match[2][:_DIGITS]}"


def time_text(text: str | None, zone: tzinfo | None) -> str:
    """Return a time as ``2026-11-26 12:38``.

    Args:
        text: A time in ISO 8601. Any other text, such as a registry may send, is returned
            unchanged, and None is returned as an empty text.
        zone: The zone in which to show the time. None means the zone of this computer.
    """
    moment = _moment(text)
    return (text or "") if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def between_text(start: str | None, end: str | None, zone: tzinfo | None) -> str:
    """Return a period in words, such as ``between 2026-11-26 12:38 and 12:43``.

    The date is not repeated. The times have seconds if their minutes are the same, and milliseconds
    if their seconds are, too.

    Args:
        start: A time in ISO 8601. None means that the period has no start.
        end: A time in the same form. None means that the period has not ended.
        zone: As in `time_text`.
    """
    first, last = _moment(start), _moment(end)
    if first is None or last is None:
        since = f"since {time_text(start, zone)}" if first else ""
        return since or (f"until {time_text(end, zone)}" if last else "at any time")
    first, last = first.astimezone(zone), last.astimezone(zone)
    exact = [each.isoformat(" ", "milliseconds") for each in (first, last)]
    # The texts end after the minutes, the seconds or the milliseconds.
    length = next(end for end in (16, 19, 23) if end == 23 or exact[0][:end] != exact[1][:end])  # noqa: PLR2004  see above
    begins = len("2026-11-26 ") if first.date() == last.date() else 0
    return f"between {exact[0][:length]} and {exact[1][begins:length]}"


def seconds_between(start: str, end: str) -> float:
    """Return the seconds from one time to another, both in ISO 8601."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def duration_text(seconds: float) -> str:
    """Return a duration with its two longest units, such as ``2 h 5 min``."""
    if seconds < 1:
        return "< 1 s"
    rest, parts = int(seconds), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        parts.append(f"{count} {unit}" if count else "")
    first = next(index for index, part in enumerate(parts) if part)
    return " ".join(filter(None, parts[first : first + 2]))


def age_text(text: str | None, now: datetime) -> str:
    """Return how long ago a time was, in its longest unit, such as ``3 min ago``.

    Args:
        text: A time in ISO 8601. None is returned as ``never``.
        now: The current time. A time after it is shown as ``in 3 min``.
    """
    moment = _moment(text)
    if moment is None:
        return "never" if text is None else text
    seconds = int((now - moment) / timedelta(seconds=1))
    if not seconds:
        return "now"
    size, unit = next((size, unit) for size, unit in _UNITS if abs(seconds) >= size)
    count = abs(seconds) // size
    return f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"


def size_text(size: int | None) -> str:
    """Return a number of bytes with a unit, such as ``1.3 MB`` (1,000,000 bytes each)."""
    if size is None:
        return ""
    scaled, units = float(size), iter(("B", "kB", "MB", "GB", "TB", "PB", "EB"))
    unit = next(units)
    while abs(scaled) >= 999.5:  # noqa: PLR2004  it would be shown as 1000
        scaled, unit = scaled / 1000, next(units)
    if unit == "B":
        return f"{size} B"
    return f"{scaled:.1f} {unit}" if scaled < _FEW else f"{scaled:.0f} {unit}"


def number_text(number: int | None) -> str:
    """Return a number with separators, such as ``1,234``. None is an empty text."""
    return "" if number is None else f"{number:,}"


def count_text(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as ``1 tag`` or ``1,234 tags``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def reason_text(error: str, repository: str) -> str:
    """Return an error without the address or the name of the repository with which it begins.

    A row names the repository, and a column is often too narrow for an address and a reason.

    Args:
        error: The error of a poll, in a sentence.
        repository: The full name of the repository.
    """
    subject, _, reason = error.partition(" ")
    name = repository.partition("/")[2]
    known = subject == name or subject.startswith(("https://", "http://"))
    return reason if known and reason else error


def _moment(text: str | None) -> datetime | None:
    """Return the time of a text, or None if the text is not a time with a zone."""
    try:
        moment = datetime.fromisoformat(text or "")
        moment.astimezone()
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else None
