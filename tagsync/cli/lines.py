"""Print the lines of a table for people, and find out how to show them."""

import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Final, Literal

from tagsync.cli import Settings
from tagsync.cli.options import OutputOptions
from tagsync.cli.output import output_encoding, terminal_width
from tagsync.cli.tables import View
from tagsync.clock import utc_now

_DEFAULT: Final = OutputOptions()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output, and flush it, so that they are visible at once."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_view(settings: Settings, output: OutputOptions = _DEFAULT) -> View:
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
