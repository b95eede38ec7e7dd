"""The command ``diff``, which shows the net difference between two times."""

from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.moments import parse_span
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit
from tagsync.cli.suggestions import complete_pattern
from tagsync.clock import utc_now

COLUMNS: Final = (
    *("repository", "tag", "kind", "old_digest", "new_digest", "fields"),
    *("certainty", "unsure_from", "unsure_until"),
)


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
@format_option
@click.pass_obj
def diff(
    settings: Settings,
    patterns: tuple[str, ...],
    start: str,
    end: str | None,
    output_format: str,
) -> None:
    """Show the net difference between two times.

    A change that was undone between the two times is not shown. PATTERN is a glob over
    registry/namespace/repository. TIME is ISO 8601 (UTC unless it says otherwise) or an age such
    as 2h or 3d.

    For each of the two times, tagsync tags --at shows a certainty. The column certainty has the
    lower of these two. A row without a tag means that tagsync was not looking at the repository at
    one of the two times.

    \b
    Example:
      tagsync diff 'swr/team-a/*' --from 2026-05-03 --to 2026-05-10
    """
    since, until = parse_span(start, end, utc_now())
    with open_audit(settings) as audit:
        show(audit.diff(patterns, since or "", until), COLUMNS, output_format)
