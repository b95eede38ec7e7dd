"""``status``, ``tags`` and ``log``: what the database knows."""

from collections.abc import Mapping
from datetime import datetime

import click

from tagsync.audit import Audit, matching
from tagsync.cli import Settings
from tagsync.cli.output import format_option, show
from tagsync.cli.wiring import configuration_of_questions
from tagsync.models import Repository, Watch, utc_now, watch_of
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
        click.echo(
            f"tagsync: nobody has looked since {last or 'ever'}: is the daemon running, or the"
            " timer of tagsync sync?",
            err=True,
        )


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@format_option
@click.pass_obj
def tags(settings: Settings, patterns: tuple[str, ...], output_format: str) -> None:
    """Show what each tag points to.

    PATTERN is a glob over registry/namespace/repository.

    \b
    Example:
      tagsync tags 'swr/team-a/*' --format csv
    """
    with Audit.open(configuration_of_questions(settings).database) as audit:
        show(audit.tags(patterns), TAGS_COLUMNS, output_format)


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@format_option
@click.pass_obj
def log(settings: Settings, patterns: tuple[str, ...], output_format: str) -> None:
    """Show the changes, oldest first.

    A change happened after not_before and no later than observed_at; without not_before the tag was
    there when its repository was first listed. PATTERN is a glob over
    registry/namespace/repository.

    \b
    Example:
      tagsync log swr/team-a/api --format jsonl
    """
    with Audit.open(configuration_of_questions(settings).database) as audit:
        show(audit.log(patterns), LOG_COLUMNS, output_format)
