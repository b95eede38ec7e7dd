"""The moments that a command line names: ISO 8601, or an age."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from tagsync.clock import timestamp
from tagsync.config.values import Duration
from tagsync.errors import UnclearQuestion

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_moment(text: str, now: datetime) -> str:
    """The moment that is meant, as `timestamp` writes it.

    Args:
        text: ISO 8601, in UTC unless it says otherwise, a date alone being its first moment; or an
            age such as ``2h``, ``3d`` or ``1w``.
        now: the present.

    Raises:
        UnclearQuestion: it is neither, or in the future, of which nothing can be known.
    """
    try:
        moment = _ago(text, now) if re.fullmatch(r"(\d+[a-z]+)+", text) else _iso(text)
        recorded = timestamp(moment)
    except (ValueError, OverflowError):
        raise UnclearQuestion(
            f"{text!r} is no moment: write it as 2026-05-03, as 2026-05-03T12:00 (UTC),"
            " as 2026-05-03T12:00+02:00, or as an age such as 90m, 2h, 3d or 1w"
        ) from None
    if moment > now:
        raise UnclearQuestion(
            f"{text!r} is in the future, of which nothing can be known: it is {timestamp(now)}"
        )
    return recorded


def parse_span(
    since: str | None, until: str | None, now: datetime
) -> tuple[str | None, str | None]:
    """Two moments, either of which may be left open.

    Raises:
        UnclearQuestion: as `parse_moment`, or the second is before the first.
    """
    start, end = (None if text is None else parse_moment(text, now) for text in (since, until))
    if start and end and end < start:
        raise UnclearQuestion(f"{until!r} is before {since!r}: give the earlier moment first")
    return start, end


def since_option(command: Command) -> Command:
    """Gives a command its ``--since``."""
    return click.option("--since", metavar="TIME", help="Leave out what was over before.")(command)


def until_option(command: Command) -> Command:
    """Gives a command its ``--until``."""
    return click.option("--until", metavar="TIME", help="Leave out what came later.")(command)


def _ago(text: str, now: datetime) -> datetime:
    # An age may well be of weeks, which no interval or timeout of the configuration is.
    return now - Duration.parse(re.sub(r"(\d+)w", lambda week: f"{7 * int(week[1])}d", text))


def _iso(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
