"""The command ``tags``, which shows what each tag points to, now or earlier."""

from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.moments import parse_moment
from tagsync.cli.options import StrictCommand, format_option, patterns_argument
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit
from tagsync.clock import utc_now

COLUMNS: Final = ("repository", "tag", "digest", "image_id", "size", "updated", "changed_at")
COLUMNS_AT: Final = (*COLUMNS, "present", "certainty", "unsure_from", "unsure_until")
"""The columns if ``--at`` is given."""


@click.command(cls=StrictCommand)
@patterns_argument
@click.option("--at", metavar="TIME", help="Show the state at this time, and how certain it is.")
@format_option
@click.pass_obj
def tags(settings: Settings, patterns: tuple[str, ...], at: str | None, output_format: str) -> None:
    """Show what each tag points to, now or at an earlier time.

    PATTERN is a glob over registry/namespace/repository. TIME is ISO 8601 (UTC unless it says
    otherwise) or an age such as 2h or 3d.

    With --at, certainty is "certain" if the listings before and after TIME agree. It is "uncertain"
    if the tag changed between these listings. The result then has a row for each state that the tag
    may have had. If the tag did not exist in a state, present is "no" in the row of that state.

    certainty is "not observed" if tagsync was not looking at TIME. The first row then shows the
    last known state, and a second row shows the next known state if it differs. certainty is
    "unknown" before the first listing. The answer is not certain for any time from unsure_from to
    unsure_until.

    \b
    Example:
      tagsync tags 'swr/team-a/*' --format csv
      tagsync tags swr/team-a/api --at 2026-05-03T12:00
    """
    moment = None if at is None else parse_moment(at, utc_now())
    with open_audit(settings) as audit:
        if moment:
            show(audit.tags_at(patterns, moment), COLUMNS_AT, output_format)
        else:
            show(audit.tags(patterns), COLUMNS, output_format)
