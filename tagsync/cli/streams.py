"""Standard output and standard error, whose errors say which of the two failed."""

import os
import sys
from collections.abc import Iterable
from io import BufferedWriter, FileIO, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STREAMS: Final = {"stdout": "standard output", "stderr": "standard error"}
"""Attributes of `sys`, and the names that users read."""


class NamedOutput(FileIO):
    """A file descriptor that puts a name into the ``filename`` of its write errors.

    Without the name, an error of standard output cannot be told from one of a file or a socket.
    """

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._title = title

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes, like any raw stream."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self._title
            raise


def is_stream(name: object) -> bool:
    """Return whether the ``filename`` of an error means standard output or standard error."""
    return name in _STREAMS.values()


def name_streams() -> list[TextIO]:
    """Make standard output and standard error name themselves in errors, and return both.

    Characters that a terminal's encoding does not have are written as escapes. A stream that was
    closed when the process started is replaced by one that discards everything.
    """
    streams: list[TextIO] = []
    for attribute, title in _STREAMS.items():
        stream = getattr(sys, attribute)
        if stream is None:
            stream = Path(os.devnull).open("w")  # noqa: SIM115  until the end
        # Streams that replace the process's own, as in tests, may have no descriptor.
        elif stream is getattr(sys, f"__{attribute}__"):
            stream = _named(stream, title)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, attribute, stream)
        streams.append(stream)
    return streams


def _named(stream: TextIOWrapper, title: str) -> TextIOWrapper:
    output = NamedOutput(stream.fileno(), title)
    # python -u omits the buffer.
    unbuffered = isinstance(stream.buffer, RawIOBase)
    return TextIOWrapper(
        output if unbuffered else BufferedWriter(output),
        encoding=stream.encoding,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def discard_unwritten(streams: Iterable[TextIO]) -> bool:
    """Flush streams, and redirect those that fail to ``os.devnull``.

    Otherwise Python would flush them again at exit, and print an error.

    Returns:
        Whether all could be flushed.
    """
    flushed = True
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            flushed = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return flushed
