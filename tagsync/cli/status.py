"""``status``, ``tags`` and ``log``: what the database knows."""

from collections.abc import Mapping
from datetime import datetime

import click

from tagsync.audit.queries import Audit, matching
from tagsync.cli import Settings
from tagsync.cli.moments import parse_moment, parse_span, since_option, until_option
from tagsync.cli.output import format_option, show
from tagsync.cli.setup import configuration_of_questions
from tagsync.clock import utc_now
from tagsync.models import Repository, Watch, watch_of
from tagsync.schedule import stale

STATUS_COLUMNS = (
    "repository",
    "last_complete_at",
    "tags",
    "outcome",
    "failures",
    "last_error",
    "stale",
)
TAGS_COLUMNS = ("repository", "tag", "digest", "image_id", "size", "updated", "changed_at")
CERTAINTY_COLUMNS = ("certainty", "unsure_from", "unsure_until")
LOG_COLUMNS = (
    "id",
    "observed_at",
    "not_before",
    "repository",
    "tag",
    "kind",
    "old_digest",
    "new_digest",
    "fields",
)


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@format_option
@click.pass_obj
def status(settings: Settings, patterns: tuple[str, ...], output_format: str) -> None:
    """Show how fresh each repository is.

    A repository is stale when it has had no complete listing for three of its intervals. That
    nobody has been looking is said on standard error. PATTERN is a glob over
    registry/namespace/repository.

    \b
    Example:
      tagsync status 'swr/team-a/*'
    """
    config = configuration_of_questions(settings)
    named = {repository for watch in config.watches for repository in watch.named}
    with Audit.open(config.database) as audit:
        everything = sorted(named | set(audit.repositories(())))
        chosen = {
            repository: watch_of(repository, config.watches)
            for repository in matching(everything, patterns)
        }
        now = utc_now()
        show(audit.status(chosen, now), STATUS_COLUMNS, output_format)
        _say_if_nobody_looks(audit, chosen, now)


def _say_if_nobody_looks(
    audit: Audit, chosen: Mapping[Repository, Watch | None], now: datetime
) -> None:
    """Tells an outage of the registry, which is polled in vain, from one of tagsync itself."""
    watches = [watch for watch in chosen.values() if watch is not None]
    last = audit.last_attempt_at(list(chosen))
    if watches and all(stale(watch, last, now) for watch in watches):
        when = f"nobody has looked since {last}" if last else "nobody has looked yet"
        click.echo(
            f"tagsync: {when}: start the daemon (tagsync run), or look after the timer of tagsync"
            " sync",
            err=True,
        )


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--at", metavar="TIME", help="What it pointed to then, and how sure that is.")
@format_option
@click.pass_obj
def tags(settings: Settings, patterns: tuple[str, ...], at: str | None, output_format: str) -> None:
    """Show what each tag points to, or did.

    PATTERN is a glob over registry/namespace/repository, TIME is ISO 8601 (UTC unless it says
    otherwise) or an age such as 2h or 3d.

    With --at, certainty is "certain"; "uncertain" for a tag that changed between the two listings
    around TIME, which then has a row for each possibility; "not observed" where nobody was looking,
    and the row is what was last known; or "unknown" before the first listing. Nothing surer is
    known between unsure_from and unsure_until; present is no where there may have been no such tag.

    \b
    Example:
      tagsync tags 'swr/team-a/*' --format csv
      tagsync tags swr/team-a/api --at 2026-05-03T12:00
    """
    moment = None if at is None else parse_moment(at, utc_now())
    with Audit.open(configuration_of_questions(settings).database) as audit:
        if moment:
            columns = (*TAGS_COLUMNS, "present", *CERTAINTY_COLUMNS)
            show(audit.tags_at(patterns, moment), columns, output_format)
        else:
            show(audit.tags(patterns), TAGS_COLUMNS, output_format)


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@since_option
@until_option
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["added", "updated", "deleted"]),
    multiple=True,
    help="Only these; may be given more than once.",
)
@click.option("--tag", metavar="GLOB", help="Only tags of this name, or that match this glob.")
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

    A change happened after not_before and no later than observed_at; without not_before the tag was
    there when its repository was first listed. PATTERN is a glob over
    registry/namespace/repository, TIME is ISO 8601 (UTC unless it says otherwise) or an age such
    as 2h or 3d.

    What may have happened between --since and --until is shown, so at both ends a change may have
    happened outside.

    \b
    Example:
      tagsync log swr/team-a/api --format jsonl
      tagsync log --since 7d --kind deleted
      tagsync log --since 2026-05-03 --until 2026-05-04 --tag 'v1.*'
    """
    start, end = parse_span(since, until, utc_now())
    with Audit.open(configuration_of_questions(settings).database) as audit:
        rows = audit.log(patterns, since=start, until=end, kinds=kinds, tag=tag)
        show(rows, LOG_COLUMNS, output_format)
