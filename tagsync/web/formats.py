"""Texts and HTML that pages show for recorded values."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
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


def visible(value: object) -> object:
    """Escape the control characters in HTML of Datasette, such as labels of links."""
    if isinstance(value, Markup):
        return Markup(escape_control_characters(str(value)))  # noqa: S704  is HTML, and stays it
    return value


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
    """Return a digest's first 12 digits, as the commands show them.

    An algorithm other than SHA-256 is named before them. A text of another form is escaped.
    """
    return escaped(short_digest(digest or "").removeprefix("sha256:"))


def with_code(text: str) -> Markup:
    """Return a text as HTML. Its parts in backticks become ``<code>`` elements."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped before


def whole(text: str) -> Markup:
    """Return all of a text as HTML. JSON objects and arrays are indented, but not changed."""
    if not text:
        return Markup('<span class="none">empty</span>')
    if pretty := pretty_json(text):
        # A line break of JSON is outside of its texts, so it may stay one.
        shown = "\n".join(map(escape_control_characters, pretty.split("\n")))
        return Markup('<pre class="whole">{}</pre>').format(shown)
    element = "code" if _is_code(text) else "span"
    return Markup('<{0} class="whole">{1}</{0}>').format(element, escape_control_characters(text))


def pretty_json(text: str) -> str | None:
    """Indent a JSON object or array without changing its names and values.

    The result is None if the text is something else, or is nested too deeply.
    """
    if not text.startswith(("{", "[")):
        return None
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _is_code(text: str) -> bool:
    return re.fullmatch("([a-z0-9]+:)?[0-9a-f]{32,}", text) is not None
