"""Texts and HTML that pages show for recorded values."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from markupsafe import Markup, escape

from tagsync.clock import parse_timestamp
from tagsync.escaping import escape_control_characters, short_digest

LONGEST_TEXT: Final = 300
"""Maximum number of characters of a text in a list. Pages of one thing show the whole text."""


def escaped(text: str, limit: int | None = LONGEST_TEXT) -> str:
    """Escape the control characters of a text, and truncate a long one.

    Args:
        text: The text, for instance of a registry.
        limit: Maximum number of characters. None means that the text is shown in full.
    """
    shown = escape_control_characters(text[:limit])
    return f"{shown}…" if limit is not None and len(text) > limit else shown


def moment(text: str | None) -> str:
    """Return a recorded time as ``2026-05-03 12:00:00``, or an empty text for None."""
    return text[:19].replace("T", " ") if text else ""


def age_at(now: datetime) -> Callable[[str], float]:
    """Return a function that returns the age of a recorded time, in seconds."""
    return lambda text: (now - parse_timestamp(text)).total_seconds()


def duration(seconds: float) -> str:
    """Format a duration for people: ``40 s``, ``5 min``, ``2.7 h``, ``27 days``."""
    for unit, size, least in (("days", 86400, 2 * 86400), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= least:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{max(seconds, 0):.0f} s"


def brief_digest(digest: str | None) -> str:
    """Shorten a digest to 12 digits and an ellipsis. Escape a text of another form."""
    short = short_digest(digest or "")
    return escaped(short) if short == digest else f"{short}…" if short else ""


def with_code(text: str) -> Markup:
    """Return a text as HTML. Its parts in backticks become ``<code>`` elements."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped before
