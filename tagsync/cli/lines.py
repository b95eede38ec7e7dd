"""Print the lines of a table for people."""

import shutil
import sys
from collections.abc import Iterable
from typing import Final

from tagsync.cli import Settings
from tagsync.cli.tables import View
from tagsync.clock import utc_now

_WIDTH: Final = 200
"""Width of a table if standard output is not a terminal and ``$COLUMNS`` is not set."""


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output, and flush it, so that they are visible at once."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make_view(settings: Settings) -> View:
    """Return the view of standard output."""
    terminal = sys.stdout.isatty()
    color = settings.color == "always" or (terminal and settings.color == "auto")
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return View(width, utc_now(), color=color, encoding=encoding)
