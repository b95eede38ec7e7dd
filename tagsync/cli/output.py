"""Print rows as data, JSON, JSON lines or CSV, and as a plain table.

Text is escaped for terminals, and in CSV also for spreadsheets.
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

from tagsync.cli.tables import Column, Kind, Line, Table, View, render
from tagsync.clock import utc_now
from tagsync.escaping import escape_control_characters, escape_formulas

FORMATS: Final = ("table", "json", "jsonl", "csv")

WIDTH: Final = 200
"""Width of a table if standard output is not a terminal and ``$COLUMNS`` is not set."""

LEAST_WIDTH: Final = 20

_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("detail", "advice"), "text"),
    **dict.fromkeys(("rows", "tags", "added", "updated", "deleted"), "number"),
    **dict.fromkeys(("old_digest", "new_digest"), "digest"),
}
"""How `show` shows a column. All others are names, which are never cut."""


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output_format: str) -> None:
    """Print rows on standard output, all of them in every format.

    Args:
        rows: The rows. Each row has at least the columns to print.
        columns: The columns to print, in this order.
        output_format: One of `FORMATS`.
    """
    if output_format == "table":
        shown = [Column(name, _KINDS.get(name, "name"), line=_line(name)) for name in columns]
        view = View(terminal_width(), utc_now(), encoding=output_encoding())
        table = Table(shown, list(rows))
        titles = Line("  ".join(columns))
        for line in render([table if table.rows else titles], view):
            sys.stdout.write(f"{line}\n")
    else:
        write_data(rows, columns, output_format, sys.stdout)
    # Flush here, so that a broken pipe raises its error now and not when Python exits.
    sys.stdout.flush()


def write_data(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output_format: str, stream: TextIO
) -> None:
    """Write rows as data.

    Args:
        rows: The rows. Each row has at least the columns to print.
        columns: The columns to print, in this order.
        output_format: One of `FORMATS`, but not ``table``.
        stream: Receives the text.
    """
    picked = ({column: row[column] for column in columns} for row in rows)
    writers: dict[str, Callable[[Iterable[dict[str, Any]], Sequence[str], TextIO], None]] = {
        "json": _json,
        "jsonl": _jsonl,
        "csv": _csv,
    }
    writers[output_format](picked, columns, stream)


def terminal_width() -> int:
    """Return the width of standard output in cells, or of ``$COLUMNS`` if that is set."""
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, LEAST_WIDTH)


def output_encoding() -> str:
    """Return the encoding of standard output."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _line(column: str) -> int:
    return 2 if _KINDS.get(column) == "text" or column == "hash" else 1


def _json(rows: Iterable[dict[str, Any]], columns: Sequence[str], stream: TextIO) -> None:  # noqa: ARG001
    json.dump([_structured(row) for row in rows], stream, indent=2)
    stream.write("\n")


def _jsonl(rows: Iterable[dict[str, Any]], columns: Sequence[str], stream: TextIO) -> None:  # noqa: ARG001
    stream.writelines(json.dumps(_structured(row)) + "\n" for row in rows)


def _csv(rows: Iterable[dict[str, Any]], columns: Sequence[str], stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])


def _structured(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with ``fields`` decoded from the JSON text in the database."""
    if isinstance(row.get("fields"), str):
        return {**row, "fields": json.loads(row["fields"])}
    return row


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _cell(value: object) -> str:
    text = escape_control_characters(_text(value))
    return escape_formulas(text) if isinstance(value, str) else text
