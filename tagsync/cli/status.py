"""The command ``status``, which shows how fresh the record of each repository is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import click

from tagsync.audit.queries import Audit, matching
from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand, format_option, patterns_argument
from tagsync.cli.output import show
from tagsync.cli.setup import load_config
from tagsync.clock import utc_now
from tagsync.models import Repository, Watch, watch_of
from tagsync.schedule import stale

COLUMNS: Final = (
    "repository",
    "last_complete_at",
    "tags",
    "outcome",
    "failures",
    "last_error",
    "stale",
)


@click.command(cls=StrictCommand)
@patterns_argument
@format_option
@click.pass_obj
def status(settings: Settings, patterns: tuple[str, ...], output_format: str) -> None:
    """Show how fresh the record of each repository is.

    A repository is stale if it has had no complete listing for three poll intervals. If tagsync has
    not polled any of the repositories for three poll intervals, a message on standard error says
    so. PATTERN is a glob over registry/namespace/repository.

    \b
    Example:
      tagsync status 'swr/team-a/*'
    """
    config = load_config(settings)
    configured = {repository for watch in config.watches for repository in watch.named}
    with Audit.open(config.database) as audit:
        known = sorted(configured | set(audit.repositories(())))
        watches = {
            repository: watch_of(repository, config.watches)
            for repository in matching(known, patterns)
        }
        now = utc_now()
        show(audit.status(watches, now), COLUMNS, output_format)
        _warn_if_not_polling(audit, watches, now)


def _warn_if_not_polling(
    audit: Audit, watches: Mapping[Repository, Watch | None], now: datetime
) -> None:
    """Print a message if tagsync no longer polls. Failed polls count as polls here."""
    watched = [watch for watch in watches.values() if watch is not None]
    last = audit.last_attempt_at(list(watches))
    if watched and all(stale(watch, last, now) for watch in watched):
        since = f"no poll since {last}" if last else "no poll yet"
        click.echo(
            f"tagsync: {since}: start the daemon (tagsync run), or check the timer that runs"
            " tagsync sync",
            err=True,
        )
