"""Make the text of a report in a format, within its size, and write it to a file."""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from tagsync.errors import UnclearQuestion
from tagsync.report.content import Report
from tagsync.report.document import Drawing
from tagsync.report.html import to_html
from tagsync.report.markdown import to_markdown
from tagsync.report.outline import outline, title
from tagsync.report.shorten import shorten

Format = Literal["html", "md", "json"]

MAX_SIZE: Final = 5_000_000
"""Maximum size of a report, in bytes."""

MEDIA_TYPES: Final[dict[Format, str]] = {
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "json": "application/json",
}


def format_of(path: Path) -> Format:
    """Return the format for the name of a file.

    Raises:
        UnclearQuestion: If the name has another ending.
    """
    formats: dict[str, Format] = {f".{name}": name for name in MEDIA_TYPES}
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        raise UnclearQuestion(
            f"the format of {str(path)!r} is unclear: end the name of the report with .html, .md or"
            " .json"
        ) from None


def build(
    report: Report,
    output_format: Format,
    drawings: Sequence[Drawing] = (),
    *,
    max_size: int = MAX_SIZE,
) -> bytes:
    """Return a report as bytes. Its lists are shortened until it is small enough.

    Args:
        report: The report.
        output_format: The format.
        drawings: The charts, which only HTML shows. They are left out if they have no room.
        max_size: The maximum size, in bytes.

    Raises:
        UnclearQuestion: If the report is too large even without its lists.
    """
    while True:
        written = _WRITERS[output_format](report, drawings).encode()
        if len(written) <= max_size:
            return written
        if (shorter := shorten(report)) != report:
            report = shorter
        elif drawings:
            drawings = ()
        else:
            raise UnclearQuestion(
                f"a report on {report.question.pattern!r} would be larger than {max_size:,} bytes:"
                " narrow the pattern"
            )


def write(path: Path, written: bytes) -> None:
    """Write a file in one step: it is either replaced as a whole, or stays as it is.

    Raises:
        OSError: If the file cannot be written. It names ``path``.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(0, "it is not a regular file", str(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        # The name of the temporary file would mean nothing to the user.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _html(report: Report, drawings: Sequence[Drawing]) -> str:
    return to_html(outline(report, drawings), title(report))


def _markdown(report: Report, drawings: Sequence[Drawing]) -> str:
    del drawings
    return to_markdown(outline(report))


def _json(report: Report, drawings: Sequence[Drawing]) -> str:
    del drawings
    # json.dumps escapes everything that is not ASCII; its own indentation is slow.
    text = json.dumps(msgspec.to_builtins(report))
    return f"{msgspec.json.format(text, indent=2)}\n"


_WRITERS: Final[dict[Format, Callable[[Report, Sequence[Drawing]], str]]] = {
    "html": _html,
    "md": _markdown,
    "json": _json,
}
