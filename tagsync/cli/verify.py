"""The command ``verify``, which checks that the record has not been altered."""

import re
from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.setup import open_audit
from tagsync.errors import UnclearQuestion

COLUMNS: Final = ("check", "rows", "result", "detail")


@click.command(cls=StrictCommand)
@click.option(
    "--head",
    "heads",
    metavar="HASH",
    multiple=True,
    help="Also check that nothing up to this head, of either chain, was removed or rewritten. May"
    " be repeated.",
)
@format_option
@click.pass_obj
def verify(settings: Settings, heads: tuple[str, ...], output_format: str) -> int:
    """Check that the record has not been altered.

    The command recomputes both hash chains, the checksum of each repository, and the hash of every
    manifest. It replays all changes and compares the result with the current tags. It also compares
    each change with the observations. If a check finds a fault, its row names the first fault, and
    the exit status is 1.

    \b
    Example:
      tagsync verify --head "$(tail -1 /mnt/witness/heads)"
    """
    for head in heads:
        if not re.fullmatch(r"[0-9a-f]{64}", head):
            raise UnclearQuestion(
                f"invalid head {head!r}: give the 64 hexadecimal digits that the log shows as head"
                " or observations_head"
            )
    with open_audit(settings) as audit:
        rows = list(audit.verify(heads))
    show(rows, COLUMNS, output_format)
    return FAILED if any(row["result"] == "fault" for row in rows) else 0
