"""The command ``accept``, which takes changes of immutable tags off the list of alarms."""

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Final

import click

from tagsync.audit.immutable_changes import ImmutableChange
from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.formats import count_text
from tagsync.cli.immutable import COLUMNS, COMMAND, as_row
from tagsync.cli.lines import make_view, print_lines
from tagsync.cli.options import LARGEST_NUMBER, StrictCommand
from tagsync.cli.setup import load_config
from tagsync.cli.suggestions import complete_alarm
from tagsync.cli.tables import Block, Line, Table, render
from tagsync.clock import timestamp, utc_now
from tagsync.database.acceptances import Acceptance
from tagsync.database.store import Store
from tagsync.errors import ConfigError
from tagsync.escaping import escape_control_characters

LONGEST_REASON: Final = 1000
"""Maximum length of a reason, in characters."""

_LONGEST_NAME: Final = 100
"""Maximum length of the name that sudo gives, in characters."""


@click.command(cls=StrictCommand)
@click.argument(
    "changes",
    metavar="CHANGE...",
    type=click.IntRange(1, LARGEST_NUMBER),
    nargs=-1,
    required=True,
    shell_complete=complete_alarm,
)
@click.option("--reason", metavar="TEXT", required=True, help="Why the changes were intended.")
@click.pass_obj
def accept(settings: Settings, changes: tuple[int, ...], reason: str) -> None:
    """Take moves of immutable tags off the list of alarms.

    CHANGE is the id of a change in tagsync log --immutable. The command records the reason, the
    time and the user, beside the history, which stays as it is. It accepts all of the changes, or
    none. An acceptance cannot be taken back.

    \b
    Example:
      tagsync accept 1042 1043 --reason 'rebuilt with the right base, OPS-311'
    """
    reason = check_reason(reason)
    numbers = list(dict.fromkeys(changes))
    database = load_config(settings).database
    # The audit refuses a missing database, which the store would create.
    with Audit.open(database) as audit:
        found = [audit.immutable_change(number) for number in numbers]
    acceptance = Acceptance(timestamp(utc_now()), describe_user(os.getuid(), os.environ), reason)
    with Store.open(database) as store:
        store.accept(numbers, acceptance)
        still_open = store.open_immutable_changes()
    blocks = result_blocks([change for change in found if change is not None], still_open)
    print_lines(render(blocks, make_view(settings)))


def check_reason(text: str) -> str:
    """Return a reason without spaces around it.

    Raises:
        ConfigError: If the reason is empty, too long or not valid UTF-8.
    """
    reason = text.strip()
    if not reason:
        raise ConfigError("the reason is empty: say why the change was intended, with --reason")
    if len(reason) > LONGEST_REASON:
        raise ConfigError(
            f"the reason has {len(reason):,} characters: give at most {LONGEST_REASON:,}, such as"
            " the number of a ticket"
        )
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise ConfigError("the reason is not valid UTF-8: write it in UTF-8") from None
    return reason


def describe_user(uid: int, env: Mapping[str, str]) -> str:
    """Return the user of this process, and who they were before sudo, for the record.

    Args:
        uid: The user's number.
        env: The environment. sudo sets ``SUDO_USER``; any other program can set it, too.
    """
    try:
        user = f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        user = f"uid {uid}"
    before = escape_control_characters(env.get("SUDO_USER", ""))[:_LONGEST_NAME]
    return f"{user}, through sudo by {before}" if before else user


def result_blocks(accepted: Sequence[ImmutableChange], still_open: int) -> list[Block]:
    """Return the result for people: what was accepted, and how many changes are still open."""
    rest = f"{still_open:,} still open: {COMMAND}" if still_open else "none is open"
    return [
        Table(COLUMNS, [as_row(change) for change in accepted]),
        Line(f"{count_text(len(accepted), 'change')} accepted; {rest}", "faint"),
    ]
