"""The command ``notify test``, which sends a message to one destination."""

import os
from pathlib import Path
from typing import Final

import click

from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.lines import make_view, print_lines
from tagsync.cli.notify.destinations import name_argument, select_rules
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import set_up
from tagsync.cli.tables import Line, render
from tagsync.clock import utc_now
from tagsync.config.notify_rules import load_rule, rules_without_secrets
from tagsync.errors import NotDelivered
from tagsync.notify.senders import send_test

_NO_DATABASE: Final = "no-database"
"""Stands for the id of the database in a message that is sent before there is one."""


@click.command(cls=StrictCommand)
@name_argument(required=True)
@click.pass_obj
def test(settings: Settings, name: str) -> None:
    """Send a test message to a destination, and show the answer.

    The message says that it is a test. It is sent once, and does not change what the destination
    gets afterwards: neither its place in the events nor its sequence moves. If the destination does
    not accept the message, the exit status is 1.

    \b
    Example:
      tagsync notify test ops
    """
    config = set_up(settings)
    (selected,) = select_rules(rules_without_secrets(config), name)
    (table,) = (table for table in config.file.notify if table.name == selected.name)
    rule = load_rule(table, config, os.environ)
    receipt = send_test(rule, _database_id(config.database), utc_now())
    if not receipt.accepted:
        raise NotDelivered(f"{name} did not accept the test message: {receipt.answer}")
    sentence = f"{name} accepted the test message: {receipt.answer}"
    print_lines(render([Line(sentence)], make_view(settings)))


def _database_id(database: Path) -> str:
    if not database.exists():
        return _NO_DATABASE
    with Audit.open(database) as audit:
        return audit.outbox.database_id()
