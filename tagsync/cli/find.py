"""The command ``find``, which shows every tag that leads, or led, to a digest."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click

from tagsync.audit.digest_search import is_whole, leads_there_now, summarize
from tagsync.audit.rows import FindRow, FindSummaryRow
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.exit_status import FAILED
from tagsync.cli.formats import count_text
from tagsync.cli.options import OutputOptions, StrictCommand, output_options
from tagsync.cli.setup import open_audit
from tagsync.cli.tables import Block, Column, Line, Row, Table, View, repository_column, tag_column
from tagsync.errors import UnclearQuestion

_STANDARD_INPUT: Final = Path("/dev/stdin")


@click.command(cls=StrictCommand)
@click.argument("digests", metavar="[DIGEST]...", nargs=-1)
@click.option(
    "--digests",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also find the whole digests in this file (-: standard input), one a line; # begins a"
    " comment.",
)
@click.option("--current", is_flag=True, help="Show only tags that lead to a digest now.")
@click.option("--summary", is_flag=True, help="Count the tags and repositories of each digest.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if a tag leads to a digest now.")
@output_options
@click.pass_obj
def find(
    settings: Settings,
    digests: tuple[str, ...],
    file: Path | None,
    current: bool,
    summary: bool,
    exit_code: bool,
    output: OutputOptions,
) -> int:
    """Show every tag that leads to a digest, now or earlier.

    DIGEST is the digest of a manifest, a configuration (image_id) or a layer, with or without
    sha256:. A unique prefix of at least 6 digits is enough. A tag leads to the manifest that it
    points to, to the configuration and layers of this manifest, and, if it points to an index, to
    the images in the index. platform is the platform of such an image.

    The tag began to lead to the digest after not_before and no later than valid_from. It still did
    at still_at, but no longer at valid_to; without valid_to, it did in the last listing. A digest
    to which no tag ever led has one row, with the role "unknown".

    \b
    Example:
      tagsync find 8ac8bfaff55a
      tagsync find --digests incident.txt --summary --exit-code
    """
    if current and summary:
        raise click.UsageError("--current and --summary exclude each other")
    wanted = (*digests, *(read_digests(file) if file else ()))
    if not wanted:
        raise click.UsageError("give at least one DIGEST, or --digests FILE")
    with open_audit(settings) as audit:
        found = list(audit.find(*wanted))
        if summary:
            answer(settings, output, FindSummaryRow, list(summarize(found)), summary_blocks)
        else:
            rows = [row for row in found if not (current and row["valid_to"])]
            answer(settings, output, FindRow, rows, partial(find_blocks, found=found))
    return FAILED if exit_code and any(map(leads_there_now, found)) else 0


def read_digests(path: Path) -> list[str]:
    """Return the digests of a file: one a line, in which ``#`` begins a comment.

    Args:
        path: The file. ``-`` means standard input.

    Raises:
        UnclearQuestion: If the file cannot be read, or if a line is not a whole digest.
    """
    source = _STANDARD_INPUT if str(path) == "-" else path
    try:
        # utf-8-sig, because editors on Windows begin a file with a byte order mark.
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UnclearQuestion(f"the list of digests {path} cannot be read: {reason}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and not is_whole(text):
            raise UnclearQuestion(
                f"line {number} of {path} is not a whole digest: {text!r}; write one digest a line,"
                " such as sha256: and 64 hexadecimal digits"
            )
        found += [text] if text else []
    if not found:
        raise UnclearQuestion(f"the list of digests {path} is empty: write one digest a line")
    return found


def find_blocks(rows: Sequence[Row], view: View, found: Sequence[Row]) -> Iterator[Block]:
    """Yield the tags that lead, or led, to some digests, and their totals.

    Args:
        rows: The rows to show.
        view: How to show them.
        found: All rows of the digests, for the totals.
    """
    del view
    yield Table(FIND_COLUMNS, rows)
    queries = {row["query"] for row in found}
    ever = {(row["repository"], row["tag"]) for row in found if row["tag"] is not None}
    now = {(row["repository"], row["tag"]) for row in found if leads_there_now(row)}
    where = count_text(len(queries), "digest")
    sentence = f"{count_text(len(now), 'tag')} now, {len(ever):,} ever, for {where}"
    unknown = sum(row["role"] == "unknown" for row in found)
    yield Line(sentence + _unknown_text(unknown), "faint")


def summary_blocks(rows: Sequence[Row], view: View) -> Iterator[Block]:
    """Yield the counts of each digest, and how many are unknown."""
    del view
    yield Table(COUNT_COLUMNS, rows)
    unknown = sum(row["role"] == "unknown" for row in rows)
    current = sum(row["tags_now"] > 0 for row in rows)
    sentence = f"{count_text(len(rows), 'digest')}: {current:,} with tags now"
    yield Line(sentence + _unknown_text(unknown), "faint")


def _unknown_text(number: int) -> str:
    if not number:
        return ""
    return (
        f"; {number:,} unknown: no recorded tag leads there, or the manifest that references the"
        " digest is not recorded"
    )


def _role_text(row: Row, view: View) -> str:
    """Return the role of a digest. The column of the tag says if it is unknown."""
    del view
    return "" if row["tag"] is None else str(row["role"])


def _until_text(row: Row, view: View) -> str:
    if row["tag"] is None:
        return ""
    return view.time(row["valid_to"]) or "now"


FIND_COLUMNS: Final = (
    Column("query", "digest", common=True),
    repository_column(),
    tag_column(text=lambda row, _: row["tag"] or "unknown"),
    Column("role", "name", optional=2, common=True, text=_role_text),
    Column("platform", "name", optional=3, limit=20),
    Column("digest", "digest", line=2),
    Column("valid_from", "time", optional=1),
    Column(
        "valid_to",
        "time",
        line=2,
        text=_until_text,
        style=lambda row: "moved" if leads_there_now(row) else "",
    ),
)
"""The columns of one interval. Without an end it lasts until now."""

COUNT_COLUMNS: Final = (
    Column("query", "digest"),
    Column("role", "name"),
    *(Column(name, "number") for name in ("tags_now", "tags_ever", "repositories")),
)
"""The columns of the counts of one digest."""
