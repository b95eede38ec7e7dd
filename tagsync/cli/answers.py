"""Show the answer of a query: a table for people, in a pager if it is long, or data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tagsync.audit.rows import AnyRow, as_rows
from tagsync.cli import Settings
from tagsync.cli.lines import make_view
from tagsync.cli.options import OutputOptions
from tagsync.cli.output import write_data
from tagsync.cli.pager import paged
from tagsync.cli.tables import Block, View, render

Row = Mapping[str, Any]
Document = Callable[[Sequence[Row], View], Iterable[Block]]
"""A function that arranges rows as the tables and sentences for people."""

StreamedDocument = Callable[[Iterable[Row], View], Iterable[Block]]
"""Like `Document`, but the function reads the rows only once, while they are shown."""


def answer(
    settings: Settings,
    output: OutputOptions,
    kind: type[AnyRow],
    rows: Iterable[Row],
    document: Document,
) -> None:
    """Print rows on standard output.

    Raises:
        DamagedRecord: If a value is not of its type, because tagsync did not write it.

    Args:
        settings: The global options, of which the colour and the pager count.
        output: The options of the command.
        kind: The type of the rows in the formats of data.
        rows: The rows. Each has at least the fields of this type.
        document: Arranges the rows if the format is ``table``.
    """
    stream_answer(settings, output, kind, rows, lambda found, view: document(list(found), view))


def stream_answer(
    settings: Settings,
    output: OutputOptions,
    kind: type[AnyRow],
    rows: Iterable[Row],
    document: StreamedDocument,
) -> None:
    """Like `answer`, for rows that may be too many for the memory."""
    view = make_view(settings, output)
    with paged(enabled=settings.pager) as stream:
        if output.format == "table":
            for line in render(document(rows, view), view):
                stream.write(f"{line}\n")
        else:
            write_data(as_rows(rows, kind), kind, output.format, stream)
