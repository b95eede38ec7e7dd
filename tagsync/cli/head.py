"""The command ``head``, which shows the newest link of each hash chain."""

import click

from tagsync.audit.rows import HeadRow
from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit


@click.command(cls=StrictCommand)
@format_option
@click.pass_obj
def head(settings: Settings, output_format: str) -> None:
    """Show the heads of both hash chains, for a witness.

    The head of changes is the newest change. The head of observations is the observation that ended
    last; its id is the column ended. An empty chain has the id 0. Keep both hashes on another host.
    Later, tagsync verify --head HASH proves that everything up to that head is still there.

    \b
    Example:
      tagsync head --format csv
    """
    with open_audit(settings) as audit:
        rows = audit.head_rows()
    show(rows, HeadRow, output_format)
