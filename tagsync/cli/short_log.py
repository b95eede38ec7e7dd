"""Log lines for a person at a terminal: short, wrapped at words, and nothing twice."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from tagsync.cli.formats import digest_text
from tagsync.cli.layout import break_words
from tagsync.cli.tables import STYLES
from tagsync.escaping import escape_control_characters

_INDENT: Final = "  "
_COLORS: Final = {"warning": STYLES["moved"], "error": STYLES["failed"]}

_HEAD: Final = frozenset(
    {"timestamp", "level", "event", "dry_run", "registry", "repository", "repositories", "tag"}
)
"""The fields that a line begins with, in its own words."""

_OTHER: Final = frozenset(
    {"error", "detail", "exception", "reasons", "exclude", "requests", "bytes", "seconds"}
)
"""The fields that are the text of a line, and those that a person does not need."""


class ShortLines:
    """A processor of structlog that turns each event into a short text.

    Lines about what the result of the command shows are withheld until that is certain not to come.
    """

    def __init__(
        self, columns: Callable[[], int], *, color: bool, withheld: Collection[str] = ()
    ) -> None:
        """Begin.

        Args:
            columns: Returns the width of the terminal.
            color: Whether to use colours.
            withheld: The events that the result of the command shows.
        """
        self._columns = columns
        self._color = color
        self._withheld = withheld
        self._lines: list[str] = []

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        """Return the text of an event.

        Raises:
            structlog.DropEvent: If the event is withheld.
        """
        text = "\n".join(self._painted(event))
        if event["event"] in self._withheld:
            self._lines.append(text)
            raise structlog.DropEvent
        return text

    def write_withheld(self) -> None:
        """Write the lines that were withheld, because the command has no result."""
        # The error that ended the command matters more than one of the stream.
        with suppress(OSError):
            sys.stderr.write("".join(f"{line}\n" for line in self._lines))
        self._lines.clear()

    def _painted(self, event: Mapping[str, Any]) -> Iterator[str]:
        first, *rest = short_lines(event, self._columns())
        level = event["level"]
        if self._color and level in _COLORS:
            first = first.replace(level, f"\x1b[{_COLORS[level]}m{level}\x1b[0m", 1)
        yield first
        yield from rest


def short_lines(event: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the lines of an event, such as ``12:38 warning clock.behind swr/team/api: …``.

    Args:
        event: The fields of the event. ``timestamp`` is ISO 8601 in UTC, ``exception`` a traceback
            whose control characters are escaped.
        width: The width of the terminal in cells.
    """
    text = f"{event['timestamp'][11:16]} {event['level']} {event['event']}"
    text += " (dry run)" * bool(event.get("dry_run"))
    text += " ".join(["", *_subject(event)])
    message = event.get("error") or event.get("detail") or _fields_text(event)
    text += f": {message}" if message else ""
    escaped = escape_control_characters(text)
    for number, line in enumerate(break_words(escaped, max(width - len(_INDENT), 1))):
        yield _INDENT * (number > 0) + line
    if "exception" in event:
        yield event["exception"]


def _subject(event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what an event is about: a tag, a repository, globs or a registry."""
    registry = event.get("registry")
    if "repository" in event:
        tag = event.get("tag")
        yield event["repository"] if tag is None else f"{event['repository']}:{tag}"
    elif "repositories" in event:
        yield ", ".join(f"{registry}/{name}" for name in event["repositories"])
    elif registry is not None:
        yield registry


def _fields_text(event: Mapping[str, Any]) -> str:
    """Return the fields of an event without a message of its own."""
    return ", ".join(
        f"{name} {_value_text(value)}"
        for name, value in event.items()
        if value is not None and name not in _HEAD | _OTHER
    )


def _value_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return digest_text(value) if isinstance(value, str) else str(value)
