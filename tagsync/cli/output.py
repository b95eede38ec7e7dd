"""Print rows as data, JSON, JSON lines or CSV, and as a plain table.

Text is escaped for terminals, and in CSV also for spreadsheets.
"""

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

import msgspec

from tagsync.audit.rows import AnyRow, column_names
from tagsync.cli.tables import Column, Kind, Line, Table, View, render
from tagsync.clock import utc_now
from tagsync.escaping import escape_control_characters, escape_formulas

WIDTH: Final = 200
"""Width of a table if standard output is not a terminal and ``$COLUMNS`` is not set."""

LEAST_WIDTH: Final = 20

_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("detail", "advice"), "text"),
    **dict.fromkeys(("rows", "tags", "added", "updated", "deleted"), "number"),
    **dict.fromkeys(("old_digest", "new_digest"), "digest"),
}
"""How `show` shows a column. All others are names, which are never cut."""


def show(rows: Iterable[AnyRow], kind: type[AnyRow], output_format: str) -> None:
    """Print rows on standard output, all of them in every format.

    Args:
        rows: The rows.
        kind: Their type, whose fields are the columns.
        output_format: One of `tagsync.cli.options.FORMATS`.
    """
    if output_format == "table":
        show_table(map(msgspec.to_builtins, rows), column_names(kind))
        return
    write_data(rows, kind, output_format, sys.stdout)
    # Flush here, so that a broken pipe raises its error now and not when Python exits.
    sys.stdout.flush()


def show_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a plain table on standard output.

    Args:
        rows: The rows. Each row has at least the columns to print.
        columns: The columns to print, in this order.
    """
    shown = [Column(name, _KINDS.get(name, "name"), line=_line(name)) for name in columns]
    view = View(terminal_width(), utc_now(), encoding=output_encoding())
    table = Table(shown, list(rows))
    titles = Line("  ".join(columns))
    for line in render([table if table.rows else titles], view):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_data(
    rows: Iterable[AnyRow], kind: type[AnyRow], output_format: str, stream: TextIO
) -> None:
    """Write rows as data.

    Args:
        rows: The rows.
        kind: Their type, whose fields are the columns.
        output_format: One of `tagsync.cli.options.FORMATS`, but not ``table``.
        stream: Receives the text.
    """
    if output_format == "json":
        _json(rows, stream)
    elif output_format == "jsonl":
        _jsonl(rows, stream)
    else:
        _csv(rows, column_names(kind), stream)


def terminal_width() -> int:
    """Return the width of standard output in cells, or of ``$COLUMNS`` if that is set."""
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, LEAST_WIDTH)


def output_encoding() -> str:
    """Return the encoding of standard output."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _line(column: str) -> int:
    return 2 if _KINDS.get(column) == "text" or column == "hash" else 1


def _json(rows: Iterable[msgspec.Struct], stream: TextIO) -> None:
    """Write one list, a row at a time, so that no more than one row is in memory."""
    before = "[\n  "
    for row in rows:
        # json.dumps escapes everything that is not ASCII; its own indentation is slow.
        text = msgspec.json.format(json.dumps(msgspec.to_builtins(row)), indent=2)
        stream.write(before + text.replace("\n", "\n  "))
        before = ",\n  "
    stream.write("[]\n" if before.startswith("[") else "\n]\n")


def _jsonl(rows: Iterable[msgspec.Struct], stream: TextIO) -> None:
    stream.writelines(f"{json.dumps(msgspec.to_builtins(row))}\n" for row in rows)


def _csv(rows: Iterable[msgspec.Struct], columns: Sequence[str], stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, msgspec.structs.astuple(row)) for row in rows)


def _cell(value: object) -> str:
    """Return the text of a cell. Objects and lists are JSON text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return escape_formulas(escape_control_characters(text))
