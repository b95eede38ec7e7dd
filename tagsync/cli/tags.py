"""The command ``tags``, which shows what each tag points to, now or earlier."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import click

from tagsync.audit.rows import TagsAtRow, TagsRow
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.formats import count_text, duration_text, seconds_between
from tagsync.cli.options import OutputOptions, StrictCommand, output_options, patterns_argument
from tagsync.cli.setup import open_audit
from tagsync.cli.tables import (
    LONGEST_TAG,
    Block,
    Column,
    Line,
    Row,
    Table,
    View,
    repository_column,
    repository_tables,
    tag_column,
)
from tagsync.clock import utc_now
from tagsync.config.moments import parse_moment


@click.command(cls=StrictCommand)
@patterns_argument
@click.option("--at", metavar="TIME", help="Show the state at this time, and how certain it is.")
@output_options
@click.pass_obj
def tags(
    settings: Settings, patterns: tuple[str, ...], at: str | None, output: OutputOptions
) -> None:
    """Show what each tag points to, now or at an earlier time.

    PATTERN is a glob over registry/namespace/repository; PATTERN:TAG narrows it to tags. TIME is
    ISO 8601 (UTC unless it says otherwise) or an age such as 2h or 3d.

    With --at, certainty is "certain" if the listings before and after TIME agree. It is "uncertain"
    if the tag changed between these listings, and the result has a row for each state that the tag
    may have had; present is "no" if it did not exist in a state. certainty is "not observed" if
    tagsync was not looking at TIME: the first row then shows the last known state, and a second row
    the next known state if it differs. certainty is "unknown" before the first listing. The answer
    is not certain for any time from unsure_from to unsure_until.

    \b
    Example:
      tagsync tags 'swr/team-a/*:v1.*' --at 2026-05-03T12:00
    """
    moment = None if at is None else parse_moment(at, utc_now())
    with open_audit(settings) as audit:
        audit.check_tags(patterns)
        if moment is None:
            answer(settings, output, TagsRow, audit.tags(patterns), tag_blocks)
            return

        def document(rows: Sequence[Row], view: View) -> Iterator[Block]:
            return moment_blocks(rows, view, moment)

        answer(settings, output, TagsAtRow, audit.tags_at(patterns, moment), document)


def tag_blocks(rows: Sequence[Row], view: View) -> Iterator[Block]:
    """Yield the tags as they are now, and their number."""
    yield from repository_tables(TAG_COLUMNS, rows, view)
    yield Line(_counted(rows), "faint")


def moment_blocks(rows: Sequence[Row], view: View, moment: str) -> Iterator[Block]:
    """Yield the tags at a moment: the certain ones, then the others with their possible states.

    Args:
        rows: The rows of `Audit.tags_at`.
        view: How to show them.
        moment: The moment, as `tagsync.clock.timestamp` writes it.
    """
    certain = [row for row in rows if row["certainty"] == "certain"]
    unsure = [row for row in rows if row["certainty"] != "certain"]
    yield from repository_tables(TAG_COLUMNS, certain, view)
    for number, (key, group) in enumerate(groupby(unsure, key=_window)):
        if certain or number:
            yield Line()
        yield Line(f"{key[0]}: {_window_text(key, view)}", "uncertain")
        possible = [
            {"tag": tag, "rows": list(states)}
            for tag, states in groupby(group, key=lambda row: row["tag"])
            if tag is not None
        ]
        yield Table(POSSIBLE_COLUMNS, possible, header=False)
    levels = Counter(row["certainty"] for row in {_name(row): row for row in unsure}.values())
    counts = "".join(f", {number:,} {level}" for level, number in sorted(levels.items()))
    yield Line(f"{_counted(rows)} at {view.time(moment)}{counts}", "faint")


def _name(row: Row) -> tuple[str, str | None]:
    return row["repository"], row["tag"]


def _counted(rows: Sequence[Row]) -> str:
    names = {_name(row) for row in rows}
    number = sum(tag is not None for _, tag in names)
    repositories = count_text(len({name for name, _ in names}), "repository", "repositories")
    return f"{count_text(number, 'tag')} in {repositories}"


_Window = tuple[str, str, str | None, str | None]
"""A repository, a certainty, and the times between which the certainty holds."""


def _window(row: Row) -> _Window:
    return row["repository"], row["certainty"], row["unsure_from"], row["unsure_until"]


def _window_text(window: _Window, view: View) -> str:
    _, certainty, start, end = window
    if certainty == "unknown":
        first = f"the first complete listing was at {view.time(end)}" if end else "never listed"
        return f"unknown; {first}"
    length = f" ({duration_text(seconds_between(start, end))})" if start and end else ""
    words = "uncertain; each of these tags changed" if certainty == "uncertain" else certainty
    return f"{words} {view.between(start, end)}{length}"


def _possible_text(row: Row, view: View) -> str:
    """Return the states in which a tag may have been."""
    states = [state_text(state, view) for state in row["rows"]]
    if len(states) > 1 and len(set(states)) == 1:
        return f"{states[0]}, with other fields"
    if row["rows"][0]["certainty"] == "uncertain":
        return " or ".join(dict.fromkeys(states))
    return f"{states[0]} before, {states[1]} after" if len(states) > 1 else states[0]


def state_text(row: Row, view: View) -> str:
    """Return the digest that a tag points to, or a word if there is none."""
    if row.get("present") is False:
        return "absent"
    return view.digest(row["digest"]) or "not resolved"


TAG_COLUMNS: Final = (
    repository_column(),
    tag_column(),
    Column("digest", "digest", line=2, text=state_text),
    Column("changed_at", "time", line=2, optional=1),
    Column("size", "size", optional=2),
    Column("updated", "time", optional=3),
    Column("image_id", "digest", optional=4),
)
"""The columns of one tag."""

POSSIBLE_COLUMNS: Final = (
    Column("tag", "name", limit=LONGEST_TAG),
    Column("states", "words", line=2, text=_possible_text),
)
"""The columns of one tag that may have been in several states."""
