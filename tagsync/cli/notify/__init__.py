"""The commands ``notify``, which test, preview and repeat notifications."""

import click

from tagsync.cli.notify.preview import preview
from tagsync.cli.notify.replay import replay
from tagsync.cli.notify.status import status
from tagsync.cli.notify.test import test
from tagsync.cli.options import StrictCommand


class _Group(StrictCommand, click.Group):
    """A group that refuses options which are given twice, as all commands do."""


@click.group(cls=_Group)
def notify() -> None:
    """Test, preview and repeat notifications.

    tagsync run and tagsync sync send what happened to the destinations under [[notify]]. These
    commands show what is sent to each of them, and how far each has got. They need no daemon.

    \b
    Example:
      tagsync notify status
    """


for _command in (test, preview, replay, status):
    notify.add_command(_command)
