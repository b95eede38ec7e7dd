"""Report an error to the user: one sentence on standard error, and an exit status.

An error that tagsync expects is reported as one sentence. Any other exception is a bug, and is
reported with its traceback.
"""

import errno
import os
import sys
from typing import Final

import click

from tagsync.cli.streams import is_stream
from tagsync.errors import (
    AddressUnavailable,
    ConfigError,
    RefusedAcceptance,
    TagsyncError,
    UnclearQuestion,
    UnknownRepository,
    UnknownTag,
)
from tagsync.journal import leads_to_journal, with_priority

FAILED: Final = 1
"""Exit status: a repository, the database or an output failed.

Also the exit status of ``verify`` if it found a fault.
"""

REFUSED: Final = 2
"""Exit status: the command line, the configuration or a secret is wrong."""

HELD: Final = 3
"""Exit status: a listing was held, and nothing failed."""

BUG: Final = os.EX_SOFTWARE
"""Exit status 70: a bug in tagsync."""

INTERRUPTED: Final = 130
"""Exit status: interrupted by Ctrl-C."""

_REFUSALS: Final = (
    ConfigError,
    RefusedAcceptance,
    UnclearQuestion,
    UnknownRepository,
    UnknownTag,
)
"""Errors whose exit status is `REFUSED`.

The user can correct them in the command line or in the configuration.
"""


def _is_refusal(error: TagsyncError) -> bool:
    # The service manager starts the daemon again, unless its status is REFUSED.
    return isinstance(error, _REFUSALS) and not isinstance(error, AddressUnavailable)


def report(error: Exception) -> int:
    """Print an error on standard error and return the exit status for this error."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        _print(error.format_message())
        return REFUSED
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context else "tagsync"
        complain(f"{error.format_message().rstrip('.')}: see {command} --help")
        return REFUSED
    if isinstance(error, TagsyncError):
        complain(str(error))
        return REFUSED if _is_refusal(error) else FAILED
    if isinstance(error, OSError) and (sentence := _explain(error)):
        complain(sentence)
        return FAILED
    _report_bug(error)
    return BUG


_ADVICE: Final = {
    errno.ENOENT: "check the path, and create its folder if that is missing",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file, not a folder",
    errno.EACCES: "check the permissions of the file and of its folders",
    errno.EPERM: "check the permissions of the file and of its folders",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space, or raise the quota of the user",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the symbolic links of the path",
    errno.EXDEV: "choose two places on the same disk",
}
"""The advice for an error of the file system."""


def complain(sentence: str) -> None:
    """Print one sentence on standard error. An error of standard error is ignored."""
    from tagsync.escaping import escape_control_characters  # noqa: PLC0415  errors only

    _print(f"tagsync: {escape_control_characters(sentence)}")


def _explain(error: OSError) -> str | None:
    """Return a sentence that names the file, stream or limit that caused an error.

    Returns:
        The sentence, or None if the error names neither a file nor a stream nor a limit.
    """
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return f"tagsync has too many open files and sockets ({error.strerror}): raise ulimit -n"
    if is_stream(error.filename):
        return f"{error.filename} cannot be written: {error.strerror}"
    paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if _is_path(path)]
    if not paths and _working_directory_is_gone():
        # The error of os.getcwd does not name the directory.
        return f"the working directory cannot be used: {error.strerror}; change to one that exists"
    if not paths:
        return None
    sentence = f"{' and '.join(paths)} cannot be used: {error.strerror}"
    advice = _group_advice(paths) if error.errno == errno.EACCES else None
    advice = advice or _ADVICE.get(error.errno or 0)
    return f"{sentence}; {advice}" if advice else sentence


def _group_advice(paths: list[str]) -> str | None:
    from pathlib import Path  # noqa: PLC0415  errors only

    from tagsync.permissions import group_advice  # noqa: PLC0415

    return next(filter(None, map(group_advice, map(Path, paths))), None)


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _working_directory_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  pathlib's function calls the same
    except OSError:
        return True
    return False


def _report_bug(error: Exception) -> None:
    """Print the traceback, and below it a request to report the bug.

    A terminal shows the last lines, so the request comes last.
    """
    from traceback import format_exception  # noqa: PLC0415  bugs only

    from tagsync.escaping import escape_control_characters  # noqa: PLC0415

    lines = "".join(format_exception(error)).removesuffix("\n").split("\n")
    _print("\n".join(map(escape_control_characters, lines)))
    complain("this is a bug in tagsync: please report it with the traceback above")


def _print(text: str) -> None:
    if leads_to_journal(sys.stderr, os.environ):
        text = with_priority(text, "error")
    # If standard error is broken, the exit status still reports the failure.
    try:
        click.echo(text, err=True)
    except OSError:
        return
