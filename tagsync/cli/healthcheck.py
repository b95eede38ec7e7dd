"""The command ``healthcheck``, which asks the running daemon."""

import click

from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import load_config
from tagsync.daemon.probe import ask
from tagsync.errors import ConfigError
from tagsync.escaping import escape_control_characters


@click.command(cls=StrictCommand)
@click.option("--strict", is_flag=True, help="Ask /healthz, which also reports stale repositories.")
@click.pass_obj
def healthcheck(settings: Settings, strict: bool) -> int:
    """Ask the running daemon whether all is well.

    Asks /livez on the address in metrics.listen: whether the scheduler runs, and whether the
    database is still the file that was opened. Prints ok, or a line for each problem, and then
    exits with 1. Use it for probes that restart the daemon. With --strict, it is for monitors only,
    because a restart does not help if a registry fails.

    \b
    Example:
      tagsync healthcheck
    """
    listen = load_config(settings).listen
    if listen is None:
        raise ConfigError(
            "metrics.listen is not set, so the daemon answers no health checks: set it, for"
            ' instance to "127.0.0.1:9180"'
        )
    problems = ask(listen, "healthz" if strict else "livez")
    for line in problems or ["ok"]:
        click.echo(escape_control_characters(line))
    return FAILED if problems else 0
