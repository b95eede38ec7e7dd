"""The command ``verify``, which checks that the record has not been altered."""

import re
import sys
from collections.abc import Iterable, Iterator
from time import monotonic

import click

from tagsync.audit.rows import VerifyRow, as_rows
from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED
from tagsync.cli.lines import make_view, print_lines
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.progress import progress_line, shows_progress
from tagsync.cli.setup import open_audit
from tagsync.cli.tables import Line, View, render
from tagsync.cli.verify_result import Progress, Row, conclusion, header, row_lines
from tagsync.errors import UnclearQuestion


@click.command(cls=StrictCommand)
@click.option(
    "--head",
    "heads",
    metavar="HASH",
    multiple=True,
    help="Also check that nothing up to this head, of either chain, was removed or rewritten. May"
    " be repeated.",
)
@format_option
@click.pass_obj
def verify(settings: Settings, heads: tuple[str, ...], output_format: str) -> int:
    """Check that the record has not been altered.

    The command recomputes both hash chains, the checksum of each repository, and the hash of every
    manifest. It replays all changes and compares the result with the current tags. It also compares
    each change with the observations. If a check finds a fault, its row names the first fault, and
    the exit status is 1.

    \b
    Example:
      tagsync verify --head "$(tail -1 /mnt/witness/heads)"
    """
    heads = check_heads(heads)
    wanted = not settings.quiet and shows_progress()
    with open_audit(settings) as audit, progress_line(wanted=wanted) as show_progress:
        progress = Progress(audit.rows_to_verify() if wanted else 0, monotonic())

        def on_rows(check: str, read: int) -> None:
            show_progress(progress.text(check, read, monotonic()))

        rows = audit.verify(heads, on_rows)
        if output_format == "table":
            view = make_view(settings)
            found = print_table(rows, view)
            proof = None if _has_fault(found) else audit.proof(heads)
            print_lines(render([Line(conclusion(found, proof, heads, view))], view))
        else:
            found = print_data(rows, output_format)
    return FAILED if _has_fault(found) else 0


def check_heads(heads: Iterable[str]) -> tuple[str, ...]:
    """Return the heads of a command line in lower case.

    Raises:
        UnclearQuestion: If a text is not a head.
    """
    for head in heads:
        if not re.fullmatch(r"[0-9a-f]{64}", head.lower()):
            raise UnclearQuestion(
                f"invalid head {head!r}: give the 64 hexadecimal digits that the log shows as head"
                " or observations_head"
            )
    return tuple(head.lower() for head in heads)


def _has_fault(rows: Iterable[Row]) -> bool:
    return any(row["result"] == "fault" for row in rows)


def print_table(rows: Iterable[Row], view: View) -> list[Row]:
    """Print each row when it is there, before the next check begins, and return all rows."""
    printed = []
    print_lines([header(view)])
    for row in rows:
        print_lines(row_lines(row, view))
        printed.append(row)
    return printed


def print_data(rows: Iterable[Row], output_format: str) -> list[Row]:
    """Like `print_table`, in a format of data."""
    printed = []

    def flushed() -> Iterator[Row]:
        for row in rows:
            printed.append(row)
            yield row
            sys.stdout.flush()

    show(as_rows(flushed(), VerifyRow), VerifyRow, output_format)
    return printed
