"""The command ``log``, which shows the recorded changes."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final, Literal

import click
import msgspec
from click.core import ParameterSource

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.queries import Audit
from tagsync.audit.rows import ImmutableLogRow, LogRow, as_rows
from tagsync.cli import Settings
from tagsync.cli.answers import stream_answer
from tagsync.cli.formats import count_text, duration_text, seconds_between
from tagsync.cli.immutable import immutable_blocks
from tagsync.cli.options import (
    OutputOptions,
    StrictCommand,
    check_number,
    output_options,
    patterns_argument,
    since_option,
    until_option,
)
from tagsync.cli.output import write_data
from tagsync.cli.setup import load_config, open_audit
from tagsync.cli.streams import wait_while_read
from tagsync.cli.suggestions import complete_tag
from tagsync.cli.tables import (
    Block,
    Column,
    Line,
    Row,
    View,
    aligned_tables,
    repository_column,
    tag_column,
)
from tagsync.clock import utc_now
from tagsync.config.moments import parse_span

FOLLOW_EVERY: Final = 1.0
"""Seconds between two queries of ``--follow``."""


@click.command(cls=StrictCommand)
@patterns_argument
@since_option
@until_option
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["added", "updated", "deleted"]),
    multiple=True,
    help="Show only changes of this kind. May be repeated.",
)
@click.option(
    "--tag",
    metavar="GLOB",
    help="Show only tags whose names match this glob.",
    shell_complete=complete_tag,
)
@click.option("--moved", is_flag=True, help="Show only moves to another digest.")
@click.option(
    "--immutable", is_flag=True, help="Show only alarms: moves and deletions of immutable tags."
)
@click.option(
    "--accepted", is_flag=True, help="With --immutable, show also what was accepted, and why."
)
@click.option(
    "--baseline/--no-baseline",
    default=None,
    help="Include the first listings or not. By default, only the table leaves them out.",
)
@click.option(
    "-n",
    "newest",
    metavar="N",
    type=click.IntRange(1),
    callback=check_number,
    help="Show only the newest N changes.",
)
@click.option("--reverse", is_flag=True, help="Show the newest change first.")
@click.option(
    "--after",
    metavar="ID",
    type=click.IntRange(0),
    callback=check_number,
    help="Show only later changes.",
)
@click.option("--follow", is_flag=True, help="Print changes as JSON lines when they come.")
@output_options
@click.pass_obj
def log(
    settings: Settings,
    patterns: tuple[str, ...],
    since: str | None,
    until: str | None,
    kinds: tuple[str, ...],
    tag: str | None,
    moved: bool,
    immutable: bool,
    accepted: bool,
    baseline: bool | None,
    newest: int | None,
    reverse: bool,
    after: int | None,
    follow: bool,
    output: OutputOptions,
) -> None:
    """Show the changes, oldest first.

    A change happened after not_before and no later than observed_at. Without not_before, the tag
    existed when its repository was first listed (the baseline). --since and --until show every
    change that may have happened between these times. --follow starts after --after, or now.

    --immutable shows the changes of tags that must not move, until tagsync accept takes them off
    this list.

    \b
    Example:
      tagsync log 'swr/team-a/*:v1.*' --since 7d --moved
      tagsync log --immutable
    """
    if moved and kinds and "updated" not in kinds:
        raise click.UsageError("--moved and --kind exclude each other: a move has the kind updated")
    if accepted and not immutable:
        raise click.UsageError("--accepted needs --immutable")
    start, end = parse_span(since, until, utc_now())
    with_baseline = (follow or output.format != "table") if baseline is None else baseline
    alarms: Literal["open", "all"] | None = None
    if immutable:
        alarms = "all" if accepted else "open"
    wanted = ChangeFilter(start, end, kinds, tag, moved, with_baseline, after, alarms)
    if follow:
        _check_follow(output, until=until, newest=newest, reverse=reverse)
        _print_following(load_config(settings).database, patterns, wanted)
        return
    with open_audit(settings) as audit:
        audit.check_tags(patterns, tag)
        rows = audit.log(patterns, wanted, newest=newest, reverse=reverse)

        def document(rows: Iterable[Row], view: View) -> Iterator[Block]:
            if immutable:
                yield from immutable_blocks(rows)
                return
            is_summed_up = baseline is None and not with_baseline
            left_out = audit.count_baseline(patterns, wanted) if is_summed_up else (0, 0)
            yield from log_blocks(rows, view, left_out)

        stream_answer(settings, output, _row_type(wanted), rows, document)


def _row_type(wanted: ChangeFilter) -> type[LogRow]:
    return LogRow if wanted.immutable is None else ImmutableLogRow


def log_blocks(rows: Iterable[Row], view: View, left_out: tuple[int, int]) -> Iterator[Block]:
    """Yield the changes, one on each line, and their totals. The rows are read part by part.

    Args:
        rows: The changes.
        view: How to show them.
        left_out: The number of tags of the baseline that are left out, and of their repositories.
    """
    del view
    kinds: Counter[str] = Counter()
    for table in aligned_tables(CHANGE_COLUMNS, rows, header=False):
        kinds.update(map(change_word, table.rows))
        yield table
    counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds[kind])
    tags, repositories = left_out
    sentence = count_text(kinds.total(), "change") + (f": {counts}" if counts else "")
    if tags:
        sentence += (
            f"; the baseline of {count_text(tags, 'tag')} in"
            f" {count_text(repositories, 'repository', 'repositories')} is left out (--baseline"
            " shows it)"
        )
    yield Line(sentence, "faint")


KINDS: Final = ("moved", "added", "updated", "deleted")
"""The kinds of changes in totals."""


def change_word(row: Row) -> str:
    """Return the kind of a change, with ``moved`` for a move."""
    moved = row["kind"] == "updated" and bool(row["old_digest"]) and bool(row["new_digest"])
    return "moved" if moved and row["old_digest"] != row["new_digest"] else str(row["kind"] or "")


def change_text(row: Row, view: View) -> str:
    """Return the digests of a change, or the names of the fields that it changed."""
    old, new = view.digest(row["old_digest"]), view.digest(row["new_digest"])
    if row["kind"] == "updated" and old == new:
        return ", ".join(row["fields"] or ())
    return f" {view.arrow} ".join(filter(None, (old, new))) or "not resolved"


def _name_text(row: Row, view: View) -> str:
    del view
    return f"{row['repository']}:{row['tag']}"


def _within_text(row: Row, view: View) -> str:
    del view
    if row["not_before"] is None:
        return "(baseline)"
    seconds = max(seconds_between(row["not_before"], row["observed_at"]), 1)
    return f"(within {duration_text(seconds)})"


CHANGE_COLUMNS: Final = (
    Column("observed_at", "time"),
    Column("name", "name", text=_name_text, limit=104, only=1),
    repository_column(common=False, only=2),
    tag_column(only=2),
    Column("kind", "name", line=2, text=lambda row, _: change_word(row), style=change_word),
    Column("change", "words", line=2, text=change_text),
    Column("within", "name", line=2, optional=1, text=_within_text, style=lambda _: "faint"),
)
"""The columns of one change on a line."""


def _check_follow(
    output: OutputOptions, *, until: str | None, newest: int | None, reverse: bool
) -> None:
    source = click.get_current_context().get_parameter_source("output_format")
    if output.format != "jsonl" and source is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--follow prints JSON lines: leave out --format {output.format}")
    excluded = {"--until": until is not None, "-n": newest is not None, "--reverse": reverse}
    for option, given in excluded.items():
        if given:
            raise click.UsageError(f"--follow and {option} exclude each other")


def _print_following(database: Path, patterns: Sequence[str], wanted: ChangeFilter) -> None:
    """Print the changes as they are recorded, until the command is interrupted."""
    kind = _row_type(wanted)
    try:
        for row in follow(database, patterns, wanted, wait_while_read):
            write_data(as_rows([row], kind), kind, "jsonl", sys.stdout)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def follow(
    database: Path, patterns: Sequence[str], wanted: ChangeFilter, wait: Callable[[float], object]
) -> Iterator[Row]:
    """Yield changes as they are recorded. Ends only by an exception.

    Args:
        database: The database file.
        patterns: Patterns, see `tagsync.audit.selection`.
        wanted: Which changes to yield. If ``after`` is None, only those that are recorded from now
            on.
        wait: Called with the seconds to wait before the next query.
    """
    after = wanted.after
    for turn in count():
        with Audit.open(database) as audit:
            if turn == 0:
                audit.check_tags(patterns, wanted.tag)
            newest = audit.last_change_id()
            after = newest if after is None else after
            later = msgspec.structs.replace(wanted, after=after)
            rows = list(audit.log(patterns, later)) if newest > after else []
        yield from rows
        after = max(after, newest)
        wait(FOLLOW_EVERY)
