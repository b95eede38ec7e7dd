"""Print rows as a table, JSON, JSON lines or CSV.

Text is escaped for terminals, and in CSV also for spreadsheets.
"""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tagsync.escaping import escape_control_characters, escape_formulas, short_digest

_UNFOLDED: Final = frozenset(
    {"id", "kind", "unsure_from", "unsure_until", "valid_from", "valid_to", "from", "to", "state"}
)
"""Columns whose values a table on a terminal shows on one line, because the values are short."""

FORMATS: Final = ("table", "json", "jsonl", "csv")


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output_format: str) -> None:
    """Print rows on standard output.

    Args:
        rows: The rows. Each row has at least the columns to print.
        columns: The columns to print, in this order.
        output_format: One of `FORMATS`.
    """
    picked = ({column: row[column] for column in columns} for row in rows)
    printers: dict[str, Callable[[Iterable[dict[str, Any]], Sequence[str]], None]] = {
        "table": _table,
        "json": _json,
        "jsonl": _jsonl,
        "csv": _csv,
    }
    printers[output_format](picked, columns)
    # Flush here, so that a broken pipe raises its error now and not when Python exits.
    sys.stdout.flush()


def _table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    (_table_on_terminal if sys.stdout.isatty() else _plain_table)(rows, columns)


def _plain_table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print a table for files and pipes: as wide as its values, with whole digests."""
    cells = [[escape_control_characters(_text(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _table_on_terminal(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415  terminals only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        unfolded = column in _UNFOLDED or column.endswith(("_at", "not_before"))
        table.add_column(column, overflow="fold", no_wrap=unfolded)
    for row in rows:
        values = (_abbreviated(column, row) for column in columns)
        table.add_row(*(Text(escape_control_characters(_text(value))) for value in values))
    Console(highlight=False).print(table)


def _abbreviated(column: str, row: Mapping[str, Any]) -> object:
    """Return a value of a row, shortened for a terminal.

    A digest is shortened to its first 12 digits, and a time to whole seconds. ``fields`` of an
    updated tag is shortened to the names of the fields. For an added or deleted tag, the result for
    ``fields`` is empty, because all fields differ.
    """
    value = row[column]
    if not isinstance(value, str):
        return value
    if column == "fields":
        return ", ".join(json.loads(value)) if row.get("kind") == "updated" else ""
    return re.sub(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}Z$", r"\1Z", short_digest(value))


def _json(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:  # noqa: ARG001
    json.dump([_structured(row) for row in rows], sys.stdout, indent=2)
    sys.stdout.write("\n")


def _jsonl(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:  # noqa: ARG001
    for row in rows:
        sys.stdout.write(json.dumps(_structured(row)) + "\n")


def _csv(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
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
