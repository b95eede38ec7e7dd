"""The command ``config``, which prints the effective configuration."""

import json

import click

from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import find_config, load_config
from tagsync.config.effective import effective_tables
from tagsync.config.toml import format_document, format_value


@click.command(cls=StrictCommand)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="Format of the result.",
)
@click.pass_obj
def config(settings: Settings, output_format: str) -> None:
    """Print the effective configuration, with all defaults.

    The result is a valid configuration that means the same as the file that was read. Paths are
    absolute. Each watch has the schedule that applies to it. A secret is shown as the place where
    it is stored; no secret is read.

    \b
    Example:
      tagsync config
      tagsync --config /etc/tagsync/config.toml config --format json
    """
    tables = effective_tables(load_config(settings))
    if output_format == "json":
        click.echo(json.dumps(tables, indent=2))
        return
    path = format_value(str(find_config(settings).absolute()))
    click.echo(f"# The effective configuration of {path}")
    click.echo(format_document(tables), nl=False)
