"""Show the answer of a query: a table for people, in a pager if it is long, or data."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, Literal

from tagsync.cli import Settings
from tagsync.cli.options import OutputOptions
from tagsync.cli.output import output_encoding, terminal_width, write_data
from tagsync.cli.pager import paged
from tagsync.cli.tables import Block, View, render
from tagsync.clock import utc_now

Row = Mapping[str, Any]
Document = Callable[[Sequence[Row], View], Iterable[Block]]
"""A function that arranges rows as the tables and sentences for people."""


def answer(
    settings: Settings,
    output: OutputOptions,
    columns: Sequence[str],
    rows: Iterable[Row],
    document: Document,
) -> None:
    """Print rows on standard output.

    Args:
        settings: The global options, of which the colour and the pager count.
        output: The options of the command.
        columns: The columns of the data formats.
        rows: The rows. Each has at least these columns.
        document: Arranges the rows if the format is ``table``.
    """
    view = make_view(settings, output)
    with paged(enabled=settings.pager) as stream:
        if output.format == "table":
            for line in render(document(list(rows), view), view):
                stream.write(f"{line}\n")
        else:
            write_data(rows, columns, output.format, stream)


def make_view(settings: Settings, output: OutputOptions) -> View:
    """Return the view of standard output."""
    return View(
        width=terminal_width(),
        now=utc_now(),
        zone=None if output.local else UTC,
        full=output.full,
        color=use_color(settings.color, os.environ, terminal=sys.stdout.isatty()),
        encoding=output_encoding(),
    )


def use_color(
    choice: Literal["auto", "always", "never"], environment: Mapping[str, str], *, terminal: bool
) -> bool:
    """Return whether to use colours.

    ``$NO_COLOR`` and ``$FORCE_COLOR`` count only for ``auto``, and only if they are not empty.
    Without them, ``auto`` means colours on a terminal.
    """
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return terminal and environment.get("TERM", "dumb") != "dumb"
