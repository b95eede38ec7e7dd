"""The command ``coverage``, which shows when tagsync was looking, and the gaps."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Final

import click

from tagsync.audit.coverage_summary import clip, merged, shares, summarize, unpolled
from tagsync.audit.rows import CoverageRow, CoverageSummaryRow
from tagsync.audit.selection import without_tags
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.formats import age_text, count_text, duration_text, reason_text
from tagsync.cli.options import (
    OutputOptions,
    StrictCommand,
    output_options,
    patterns_argument,
    since_option,
    until_option,
)
from tagsync.cli.setup import open_audit
from tagsync.cli.tables import Block, Column, Line, Row, Table, View, repository_column
from tagsync.clock import utc_now
from tagsync.config.moments import parse_duration, parse_span

_LONGEST_STRIP: Final = 60
_SHORT_STRIP: Final = 40
"""Slices of time in a strip: in a wide table, and in one of less than `_WIDE` cells."""

_WIDE: Final = 120

_UNPOLLED: Final = 10
"""Maximum number of times without any poll that a table lists, the longest ones."""


@click.command(cls=StrictCommand)
@patterns_argument
@since_option
@until_option
@click.option("--holes", is_flag=True, help="Show only the times without any poll.")
@click.option(
    "--longer-than", metavar="DURATION", help="Show only rows that are longer, such as 10m."
)
@click.option("--summary", is_flag=True, help="Show only the totals of each repository.")
@output_options
@click.pass_obj
def coverage(
    settings: Settings,
    patterns: tuple[str, ...],
    since: str | None,
    until: str | None,
    holes: bool,
    longer_than: str | None,
    summary: bool,
    output: OutputOptions,
) -> None:
    """Show when tagsync was looking, and the gaps in between.

    state is "looking" for a run of complete listings, "failed" for a run of polls that failed,
    "held" for a run of listings that were held, and "hole" for a gap without any poll. Without
    --until, the rows of a repository end with its last poll. PATTERN is a glob over
    registry/namespace/repository. TIME is ISO 8601 (UTC unless it says otherwise) or an age such as
    2h or 3d.

    \b
    Example:
      tagsync coverage swr/team-a/api --since 30d --longer-than 10m
    """
    if summary and (holes or longer_than):
        option = "--holes" if holes else "--longer-than"
        raise click.UsageError(f"--summary and {option} exclude each other")
    start, end = parse_span(since, until, utc_now())
    least = None if longer_than is None else parse_duration(longer_than)
    with open_audit(settings) as audit:
        found = list(audit.coverage(without_tags(patterns), since=start, until=end))
        clipped = clip(found, start, end)
        rows = [
            row
            for row in found
            if (not holes or row["state"] == "hole") and (least is None or row["seconds"] > least)
        ]
        shown = [] if summary else rows

        def document(_: Sequence[Row], view: View) -> Iterator[Block]:
            return coverage_blocks(clipped, shown, view)

        if summary:
            answer(settings, output, CoverageSummaryRow, list(summarize(clipped)), document)
        else:
            answer(settings, output, CoverageRow, rows, document)


def coverage_blocks(found: Sequence[Row], shown: Sequence[Row], view: View) -> Iterator[Block]:
    """Yield the totals of each repository, the times without any poll, and the rows.

    Args:
        found: All rows of `Audit.coverage`, clipped to the period.
        shown: The rows to show.
        view: How to show them.
    """
    if found:
        yield from _summary_blocks(found, view)
    for repository, group in groupby(shown, key=lambda row: row["repository"]):
        yield Line()
        yield Line(repository, "heading")
        yield Table(COVERAGE_COLUMNS, list(group))
    states = Counter(row["state"] for row in found)
    counts = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    repositories = len({row["repository"] for row in found})
    sentence = f"{count_text(repositories, 'repository', 'repositories')}"
    if found:
        last = max((row["to"] for row in found if row["state"] != "hole"), default=None)
        sentence += f", {count_text(len(found), 'row')}: {counts}"
        sentence += f"; the last poll shown was {age_text(last, view.now)}" if last else ""
    if len(shown) < len(found):
        sentence += f"; {len(found) - len(shown):,} rows left out"
    yield Line(sentence, "faint")


def _summary_blocks(found: Sequence[Row], view: View) -> Iterator[Block]:
    start, end = min(row["from"] for row in found), max(row["to"] for row in found)
    totals = list(summarize(found))
    slices = _LONGEST_STRIP if view.width >= _WIDE else _SHORT_STRIP
    covered = {
        repository: merged((row["from"], row["to"]) for row in group if row["state"] == "looking")
        for repository, group in groupby(found, key=lambda row: row["repository"])
    }
    strips = [
        {**row, "strip": _strip(shares(covered[row["repository"]], start, end, slices), view)}
        for row in totals
    ]
    yield Line(f"{view.time(start)} to {view.time(end)}", "heading")
    yield Table(SUMMARY, strips)
    unseen = sorted(unpolled(found), key=lambda gap: gap.seconds, reverse=True)
    if unseen:
        yield Line()
        total = duration_text(sum(gap.seconds for gap in unseen))
        yield Line(f"Nothing was polled at all for {total}:", "failed")
    for gap in sorted(unseen[:_UNPOLLED]):
        words = f"{view.between(gap.start, gap.end)} ({duration_text(gap.seconds)})"
        yield Line(words, indent=2)
    if len(unseen) > _UNPOLLED:
        yield Line(f"and {len(unseen) - _UNPOLLED:,} shorter times", indent=2)


def _strip(covered: Sequence[float], view: View) -> str:
    """Return a character for each slice of time: the fuller, the more of it was covered."""
    blocks = view.symbol("·░▒▓█", ".-+*#")
    last = len(blocks) - 1
    return "".join(
        blocks[0 if not share else last if share >= 1 else 1 + int(share * (last - 1))]
        for share in covered
    )


def _gap_text(row: Row, view: View) -> str:
    del view
    longest = row["longest_gap_seconds"]
    return "none" if longest is None else duration_text(longest)


def _percent_text(row: Row, view: View) -> str:
    del view
    return f"{row['percent']:.2f} %"


def _duration(key: str, row: Row, view: View) -> str:
    del view
    return duration_text(row[key])


def _detail_text(row: Row, view: View) -> str:
    detail = row["detail"] or ""
    return detail if view.full else reason_text(detail, row["repository"])


def _state_style(row: Row) -> str:
    return {"hole": "stale", "failed": "failed", "held": "held"}.get(row["state"], "")


SUMMARY: Final = (
    repository_column(common=False),
    Column("covered", "number", line=2, text=_percent_text),
    Column("longest gap", "words", line=2, text=_gap_text),
    Column("longest_gap_from", "time", optional=1),
    Column("strip", "name", line=2, limit=_LONGEST_STRIP),
)
"""The columns of the totals of a repository."""

COVERAGE_COLUMNS: Final = (
    Column("from", "time"),
    Column("to", "time"),
    Column("duration", "words", text=partial(_duration, "seconds")),
    Column("state", "name", style=_state_style),
    Column("polls", "number", optional=1),
    Column("detail", "cut", line=2, limit=30, text=_detail_text),
)
"""The columns of one run of polls, or of a gap."""
