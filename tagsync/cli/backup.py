"""The command ``backup``, which copies the database while tagsync goes on."""

import os
from pathlib import Path

import click

from tagsync.audit.backup import back_up
from tagsync.audit.rows import HeadRow, head_rows
from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.setup import load_config
from tagsync.errors import ConfigError


@click.command(cls=StrictCommand)
@click.argument("file", type=click.Path(path_type=Path))
@format_option
@click.pass_obj
def backup(settings: Settings, file: Path, output_format: str) -> None:
    """Copy the database into a new file, and verify the copy.

    Other processes may write to the database meanwhile. The copy is the database as it was when
    the command began. It has the checks of tagsync verify behind it when it gets its name. The
    command prints its heads, as tagsync head does: keep them on another host, for tagsync restore
    --head.

    \b
    Example:
      tagsync backup /backup/tagsync.db
    """
    database = load_config(settings).database
    if os.path.lexists(file):
        raise ConfigError(f"{file} exists: name a new file for the backup")
    show(head_rows(back_up(database, file)), HeadRow, output_format)
