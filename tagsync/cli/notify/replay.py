"""The command ``notify replay``, which sends events again."""

import time
from collections.abc import Callable
from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.formats import count_text
from tagsync.cli.lines import make_view, print_lines
from tagsync.cli.notify.destinations import name_argument, select_rules
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import load_config
from tagsync.cli.tables import Line, render
from tagsync.clock import Clock, utc_now
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.database.outbox import Outbox
from tagsync.database.store import Store
from tagsync.errors import ConfigError, DatabaseInUse, UnusableDatabase
from tagsync.notify.lease import leased
from tagsync.notify.status import statuses
from tagsync.notify.targets import Rule

_PATIENCE: Final = 90.0
"""Seconds to wait for another process. The lease of one that was killed runs out before."""


@click.command(cls=StrictCommand)
@name_argument(required=True)
@click.option(
    "--since",
    "event",
    metavar="ID",
    required=True,
    type=click.IntRange(1),
    help="The id of the first event to send.",
)
@click.pass_obj
def replay(settings: Settings, name: str, event: int) -> None:
    """Send events to a destination again, from one event on.

    The next tagsync run or tagsync sync sends them, with the ids that they had; a daemon that runs
    begins within seconds, or with its next attempt if the destination fails. A destination that
    was never used begins with the event ID, and not with the next event. tagsync notify preview
    shows ids; a CloudEvent has its own as id.

    \b
    Example:
      tagsync notify replay ops --since 1042
    """
    config = load_config(settings)
    (rule,) = select_rules(rules_without_secrets(config), name)
    if not config.database.exists():
        raise UnusableDatabase(f"there is no database at {config.database}: run tagsync sync first")
    with Store.open(config.database) as store:
        begin_with(store.outbox, rule, event, _announced_wait(name, quiet=settings.quiet))
        # The others are destinations that the rules do not name.
        status, *_ = statuses(store.outbox, [rule], utc_now())
    sentence = (
        f"{count_text(status.waiting, 'event')} from event {event} on will be sent to {name}; the"
        f" newest event is {status.newest}."
    )
    print_lines(render([Line(sentence)], make_view(settings)))


def begin_with(
    outbox: Outbox, rule: Rule, event: int, wait: Callable[[float], object], clock: Clock = utc_now
) -> None:
    """Move the cursor of a destination back, so that it gets an event and all later ones.

    Holds the lease of the destination meanwhile: a process that sends would move the cursor, too.

    Args:
        outbox: The events and the destinations.
        rule: The destination.
        event: The id of the event.
        wait: Waits some seconds, while another process holds the lease.
        clock: Returns the current time.

    Raises:
        ConfigError: If the event does not exist, or is still to be sent.
        DatabaseInUse: If another process holds the lease for too long.
    """
    newest = outbox.newest_event()
    if event > newest:
        known = f"the newest is {newest}" if newest else "nothing has happened yet"
        raise ConfigError(f"there is no event {event}: {known}")
    outbox.add(rule.name, event - 1)
    with leased(outbox, rule.name, clock, _PATIENCE, wait) as lease:
        destination = outbox.destination(rule.name)
        if lease is None or destination is None:
            raise DatabaseInUse(
                f"another process has been sending to {rule.name} for {_PATIENCE:.0f} s: try again"
                " later"
            )
        if destination.cursor < event - 1:
            raise ConfigError(
                f"{rule.name} has yet to get event {destination.cursor + 1}, and gets event {event}"
                " after it: there is nothing to repeat"
            )
        outbox.move(rule.name, event - 1)


def _announced_wait(name: str, *, quiet: bool) -> Callable[[float], None]:
    """Return a function that waits, and says so the first time."""
    announced = quiet

    def wait(seconds: float) -> None:
        nonlocal announced
        if not announced:
            click.echo(f"tagsync: waiting until no other process sends to {name}", err=True)
        announced = True
        time.sleep(seconds)

    return wait
