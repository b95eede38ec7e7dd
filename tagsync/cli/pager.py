"""Show long results in a pager, such as ``less``."""

import codecs
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from subprocess import PIPE, Popen
from typing import Final, TextIO

_DEFAULT: Final = "less -FRX"

_LESS: Final = "FRX"
"""Options for a pager of the user's that reads ``$LESS``: it shows colours, and may end at once."""


@contextmanager
def paged(*, enabled: bool) -> Iterator[TextIO]:
    """Yield the stream to write a result to: a pager's input, or standard output.

    There is a pager only if standard output is a terminal. It is an end as any other if the user
    leaves the pager before it has read everything: the rest of the ``with`` block is skipped.

    Args:
        enabled: Whether a pager may be used.
    """
    process = _start(os.environ) if enabled and sys.stdout.isatty() else None
    if process is None:
        yield sys.stdout
        # Flush here, so that a broken pipe raises its error now and not when Python exits.
        sys.stdout.flush()
        return
    assert process.stdin is not None  # noqa: S101  tells the type checker
    stream = TextIOWrapper(process.stdin, encoding=sys.stdout.encoding, errors="backslashreplace")
    try:
        with suppress(BrokenPipeError):
            yield stream
    finally:
        with suppress(BrokenPipeError):
            stream.close()
        _wait(process)


def pager_command(environment: Mapping[str, str]) -> list[str]:
    """Return the pager and its arguments. The result is empty if there is to be none."""
    if environment.get("TERM", "dumb") == "dumb":
        return []
    names = ("TAGSYNC_PAGER", "PAGER")
    text = next((environment[name] for name in names if name in environment), _DEFAULT)
    try:
        command = shlex.split(text)
    except ValueError:  # a quotation mark that is not closed
        return []
    return [] if command == ["cat"] else command


def _start(environment: Mapping[str, str]) -> Popen[bytes] | None:
    command = pager_command(environment)
    if not command:
        return None
    sys.stdout.flush()
    try:
        return Popen(command, stdin=PIPE, env={**_defaults(), **environment})  # noqa: S603  the user's choice
    except OSError:
        return None


def _defaults() -> dict[str, str]:
    """Return the variables of the pager that the user may override."""
    # With LC_ALL=C, Python still writes UTF-8, and less would show each byte of it in hexadecimal.
    is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    return {"LESS": _LESS, **({"LESSCHARSET": "utf-8"} if is_utf8 else {})}


def _wait(process: Popen[bytes]) -> None:
    """Wait until the user leaves the pager, to which an interrupt belongs meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
