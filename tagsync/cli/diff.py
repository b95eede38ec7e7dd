"""The command ``diff``, which shows the net difference between two times."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import click

from tagsync.audit.rows import DiffRow
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.exit_status import FAILED
from tagsync.cli.formats import count_text
from tagsync.cli.log import KINDS, change_text, change_word
from tagsync.cli.options import OutputOptions, StrictCommand, output_options
from tagsync.cli.setup import open_audit
from tagsync.cli.suggestions import complete_pattern
from tagsync.cli.tables import LONGEST_TAG, Block, Column, Line, Row, Table, View
from tagsync.clock import utc_now
from tagsync.config.moments import parse_span


@click.command(cls=StrictCommand)
@click.argument(
    "patterns",
    metavar="PATTERN...",
    nargs=-1,
    required=True,
    shell_complete=complete_pattern,
)
@click.option("--from", "start", metavar="TIME", required=True, help="The earlier time.")
@click.option(
    "--to",
    "end",
    metavar="TIME",
    help="The later time; default: the time of the last listing of each repository.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if something differs.")
@output_options
@click.pass_obj
def diff(
    settings: Settings,
    patterns: tuple[str, ...],
    start: str,
    end: str | None,
    exit_code: bool,
    output: OutputOptions,
) -> int:
    """Show the net difference between two times.

    A change that was undone between the two times is not shown. PATTERN is a glob over
    registry/namespace/repository; PATTERN:TAG narrows it to tags. TIME is ISO 8601 (UTC unless it
    says otherwise) or an age such as 2h or 3d.

    For each of the two times, tagsync tags --at shows a certainty. The column certainty has the
    lower of these two. A row without a tag means that tagsync was not looking at the repository at
    one of the two times.

    \b
    Example:
      tagsync diff 'swr/team-a/*' --from 2026-05-03 --to 2026-05-10
    """
    since, until = parse_span(start, end, utc_now())
    with open_audit(settings) as audit:
        audit.check_tags(patterns)
        rows = list(audit.diff(patterns, since or "", until))

        def document(rows: Sequence[Row], view: View) -> Iterator[Block]:
            return diff_blocks(rows, view, since, until)

        answer(settings, output, DiffRow, rows, document)
    return FAILED if exit_code and any(row["tag"] is not None for row in rows) else 0


def diff_blocks(
    rows: Sequence[Row], view: View, start: str | None, end: str | None
) -> Iterator[Block]:
    """Yield the differences of each repository, and their totals.

    Args:
        rows: The rows of `Audit.diff`.
        view: How to show them.
        start: The first moment, as `tagsync.clock.timestamp` writes it.
        end: The second moment in the same form. None means the last listing of each repository.
    """
    for repository, group in groupby(rows, key=lambda row: row["repository"]):
        found = list(group)
        yield Line(repository, "heading")
        for row in found:
            if row["tag"] is None:
                yield Line(
                    f"{_certainty_text(row, view)}; the record may miss changes", "uncertain"
                )
        yield Table(
            DIFFERENCE_COLUMNS, [row for row in found if row["tag"] is not None], header=False
        )
        yield Line()
    yield Line(_summary(rows, view, start, end), "faint")


def _summary(rows: Sequence[Row], view: View, start: str | None, end: str | None) -> str:
    differences = {(row["repository"], row["tag"], change_word(row)) for row in rows if row["tag"]}
    period = f"between {view.time(start)} and {view.time(end) or 'the last listing'}"
    kinds = Counter(word for _, _, word in differences)
    counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds[kind])
    repositories = len({repository for repository, _, _ in differences})
    unsure = len(
        {(row["repository"], row["tag"]) for row in rows if _is_unsure(row) and row["tag"]}
    )
    unseen = len({row["repository"] for row in rows if row["tag"] is None})
    sentence = f"no difference {period}"
    if differences:
        where = count_text(repositories, "repository", "repositories")
        sentence = f"{count_text(len(differences), 'difference')} in {where} {period}: {counts}"
    sentence += f"; {count_text(unsure, 'tag')} not certain" if unsure else ""
    where = count_text(unseen, "repository", "repositories")
    return sentence + (f"; {where} not observed at one of the times" if unseen else "")


_SIGNS: Final = {"added": "+", "deleted": "-", "moved": "~", "updated": "~"}


def _is_unsure(row: Row) -> bool:
    return bool(row["certainty"] != "certain")


def _sign_text(row: Row, view: View) -> str:
    del view
    return f"{_SIGNS[change_word(row)]} {change_word(row)}"


def _certainty_text(row: Row, view: View) -> str:
    if not _is_unsure(row):
        return ""
    if row["certainty"] == "unknown":
        return f"unknown {view.between(None, row['unsure_until'])}"
    return f"{row['certainty']} {view.between(row['unsure_from'], row['unsure_until'])}"


DIFFERENCE_COLUMNS: Final = (
    Column("kind", "name", text=_sign_text, style=change_word),
    Column("tag", "name", limit=LONGEST_TAG),
    Column("change", "words", text=change_text),
    Column(
        "certainty", "text", line=2, limit=40, text=_certainty_text, style=lambda _: "uncertain"
    ),
)
"""The columns of one difference."""
