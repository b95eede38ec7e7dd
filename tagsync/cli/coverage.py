"""The command ``coverage``, which shows when tagsync was looking, and the gaps."""

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
from tagsync.clock import utc_now

COLUMNS: Final = ("repository", "from", "to", "state", "polls", "detail")


@click.command(cls=StrictCommand)
@patterns_argument
@since_option
@until_option
@format_option
@click.pass_obj
def coverage(
    settings: Settings,
    patterns: tuple[str, ...],
    since: str | None,
    until: str | None,
    output_format: str,
) -> None:
    """Show when tagsync was looking, and the gaps in between.

    state is "looking" for a run of complete listings, "failed" for a run of polls that failed,
    "held" for a run of listings that were held, and "hole" for a gap without any poll. Without
    --until, the rows of a repository end with its last poll. PATTERN is a glob over
    registry/namespace/repository. TIME is ISO 8601 (UTC unless it says otherwise) or an age such as
    2h or 3d.

    \b
    Example:
      tagsync coverage swr/team-a/api --since 30d
    """
    start, end = parse_span(since, until, utc_now())
    with open_audit(settings) as audit:
        show(audit.coverage(patterns, since=start, until=end), COLUMNS, output_format)
