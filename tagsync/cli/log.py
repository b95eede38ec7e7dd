"""The command ``log``, which shows the recorded changes."""

from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.moments import parse_span
from tagsync.cli.options import (
    StrictCommand,
    format_option,
    patterns_argument,
    since_option,
    until_option,
)
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit
from tagsync.cli.suggestions import complete_tag
from tagsync.clock import utc_now

COLUMNS: Final = (
    *("id", "observed_at", "not_before", "repository", "tag", "kind"),
    *("old_digest", "new_digest", "fields"),
)


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
@format_option
@click.pass_obj
def log(
    settings: Settings,
    patterns: tuple[str, ...],
    since: str | None,
    until: str | None,
    kinds: tuple[str, ...],
    tag: str | None,
    output_format: str,
) -> None:
    """Show the changes, oldest first.

    A change happened after not_before and no later than observed_at. If not_before is empty, the
    tag existed when its repository was first listed. PATTERN is a glob over
    registry/namespace/repository. TIME is ISO 8601 (UTC unless it says otherwise) or an age such
    as 2h or 3d.

    With --since and --until, the command shows every change that may have happened between these
    times. If not_before is before --since, the change may have happened before --since. If
    observed_at is after --until, the change may have happened after --until.

    \b
    Example:
      tagsync log swr/team-a/api --format jsonl
      tagsync log --since 7d --kind deleted
      tagsync log --since 2026-05-03 --until 2026-05-04 --tag 'v1.*'
    """
    start, end = parse_span(since, until, utc_now())
    with open_audit(settings) as audit:
        rows = audit.log(patterns, since=start, until=end, kinds=kinds, tag=tag)
        show(rows, COLUMNS, output_format)
