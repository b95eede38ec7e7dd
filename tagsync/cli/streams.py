"""Standard output and standard error, with errors that name the failed stream."""

import errno
import os
import select
import sys
from collections.abc import Iterable
from io import BufferedWriter, FileIO, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STREAMS: Final = {"stdout": "standard output", "stderr": "standard error"}
"""The name of each stream in messages, by the stream's attribute of `sys`."""


class NamedOutput(FileIO):
    """An output stream whose write errors have the stream's name as ``filename``.

    Without the name, a write error of a stream cannot be told from an error of a file or socket.
    """

    def __init__(self, descriptor: int, title: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._title = title

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes. If that fails, add the stream's name to the error."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self._title
            raise


def is_stream(name: object) -> bool:
    """Return whether an error's ``filename`` is the name of one of the two streams."""
    return name in _STREAMS.values()


def name_streams() -> list[TextIO]:
    """Replace standard output and standard error by `NamedOutput`, and return both.

    Characters that the encoding of a stream does not have are written as escape sequences. If a
    stream was closed when the process started, its replacement discards everything.
    """
    streams: list[TextIO] = []
    for attribute, title in _STREAMS.items():
        stream = getattr(sys, attribute)
        if stream is None:
            stream = Path(os.devnull).open("w")  # noqa: SIM115  open until the process ends
        # Tests replace the streams of the process. Such a stream may have no descriptor.
        elif stream is getattr(sys, f"__{attribute}__"):
            stream = _named(stream, title)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, attribute, stream)
        streams.append(stream)
    return streams


def _named(stream: TextIOWrapper, title: str) -> TextIOWrapper:
    output = NamedOutput(stream.fileno(), title)
    # With python -u, the streams have no buffer.
    unbuffered = isinstance(stream.buffer, RawIOBase)
    return TextIOWrapper(
        output if unbuffered else BufferedWriter(output),
        encoding=stream.encoding,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def wait_while_read(seconds: float) -> None:
    """Wait, but not longer than standard output has a reader.

    Without a write, a process does not notice that the other end of its pipe was closed.

    Raises:
        BrokenPipeError: If the reader of standard output is gone.
    """
    poller = select.poll()
    poller.register(sys.stdout, 0)  # without any event, only a closed pipe ends the wait
    if poller.poll(seconds * 1000):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), _STREAMS["stdout"])


def discard_unwritten(streams: Iterable[TextIO]) -> bool:
    """Flush streams, and redirect each stream that fails to ``os.devnull``.

    Otherwise Python would flush the stream again at exit, and print an error.

    Returns:
        Whether all streams could be flushed.
    """
    flushed = True
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            flushed = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return flushed
