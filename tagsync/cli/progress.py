"""A line of progress on a terminal that stays below everything else that is printed."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, Final, TextIO, cast

_ERASE: Final = "\r\x1b[2K"
"""Moves the cursor to the beginning of its line, and erases the line."""

_DEFAULT_COLUMNS: Final = 80

Show = Callable[[str], None]
"""Shows a text as progress, in place of the one before it."""


class ProgressLine:
    """A line of progress. It is erased before other text is printed, and drawn again below it.

    Safe to use from several threads.
    """

    def __init__(self, stream: TextIO, columns: Callable[[], int]) -> None:
        """Show progress on a terminal.

        Args:
            stream: The terminal.
            columns: Returns the width of the terminal.
        """
        self._stream = stream
        self._columns = columns
        # A signal handler may print while its own thread draws.
        self._lock = RLock()
        self._text = ""
        self._drawn = False
        self._is_line_open = False

    def show(self, text: str) -> None:
        """Show a text of printable ASCII characters, cut at the edge of the terminal."""
        with self._lock:
            self._text = text
            self._draw()

    def print_above(self, stream: TextIO, text: str) -> int:
        """Write to a stream of the same terminal, above the progress.

        Returns:
            The result of the stream's own method.

        Raises:
            OSError: If the text cannot be written.
        """
        with self._lock:
            self._erase()
            written = stream.write(text)
            stream.flush()
            if text:
                self._is_line_open = not text.endswith("\n")
            self._draw()
            return written

    def close(self) -> None:
        """Erase the progress. It is not drawn again."""
        with self._lock:
            self._text = ""
            self._erase()

    def _draw(self) -> None:
        if self._text and not self._is_line_open:
            # A line as wide as the terminal would wrap, and could not be erased as one.
            self._write(_ERASE + self._text[: max(self._columns() - 1, 0)])
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self._write(_ERASE)
            self._drawn = False

    def _write(self, text: str) -> None:
        # A command must not fail because its progress cannot be shown.
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class _Above:
    """A stream whose text is printed above a line of progress."""

    def __init__(self, stream: TextIO, line: ProgressLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        return self._line.print_above(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shows_progress() -> bool:
    """Return whether standard error is a terminal that can show a line of progress."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_line(*, wanted: bool = True) -> Iterator[Show]:
    """Show progress on standard error, if that is a terminal, until the block ends.

    In the block, text for standard output and standard error is printed above the progress.

    Args:
        wanted: Whether to show progress at all.

    Yields:
        A function that shows a text. It does nothing if progress is not shown.
    """
    if not wanted or not shows_progress():
        yield lambda _: None
        return
    line = ProgressLine(sys.stderr, error_columns)
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    for name, stream in streams.items():
        if stream.isatty():
            setattr(sys, name, cast("TextIO", _Above(stream, line)))
    try:
        yield line.show
    finally:
        line.close()
        for name, stream in streams.items():
            setattr(sys, name, stream)


def error_columns() -> int:
    """Return the width of the terminal that standard error is."""
    try:
        return int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        pass
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS
