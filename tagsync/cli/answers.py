"""Show the answer of a query: a table for people, in a pager if it is long, or data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tagsync.cli import Settings
from tagsync.cli.lines import make_view
from tagsync.cli.options import OutputOptions
from tagsync.cli.output import write_data
from tagsync.cli.pager import paged
from tagsync.cli.tables import Block, View, render

Row = Mapping[str, Any]
Document = Callable[[Sequence[Row], View], Iterable[Block]]
"""A function that arranges rows as the tables and sentences for people."""


def answer(
    settings: Settings,
    output: OutputOptions,
    columns: Sequence[str],
    rows: Iterable[Row],
    document: Document,
) -> None:
    """Print rows on standard output.

    Args:
        settings: The global options, of which the colour and the pager count.
        output: The options of the command.
        columns: The columns of the data formats.
        rows: The rows. Each has at least these columns.
        document: Arranges the rows if the format is ``table``.
    """
    view = make_view(settings, output)
    with paged(enabled=settings.pager) as stream:
        if output.format == "table":
            for line in render(document(list(rows), view), view):
                stream.write(f"{line}\n")
        else:
            write_data(rows, columns, output.format, stream)
