"""The command ``notify status``, which shows how far each destination has got."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click
import msgspec

from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.formats import count_text, number_text
from tagsync.cli.notify.destinations import check_name, name_argument
from tagsync.cli.options import OutputOptions, StrictCommand, output_options
from tagsync.cli.rows import NotifyStatusRow
from tagsync.cli.setup import load_config
from tagsync.cli.tables import Block, Column, Line, Row, Table, View
from tagsync.clock import utc_now
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.notify.status import DestinationStatus, statuses


@click.command(cls=StrictCommand)
@name_argument(required=False)
@output_options
@click.pass_obj
def status(settings: Settings, name: str | None, output: OutputOptions) -> None:
    """Show how far each destination has got, and what it refuses.

    waiting is the number of events that its filter lets through and that it has not accepted yet. A
    destination that the configuration no longer has is shown, too, as long as the database has it.
    Sends nothing, writes nothing and needs no secret.

    \b
    Example:
      tagsync notify status ops
    """
    config = load_config(settings)
    with Audit.open(config.database) as audit:
        found = statuses(audit.outbox, rules_without_secrets(config), utc_now())
    check_name(name, [each.name for each in found])
    rows = [status_row(each) for each in found if name in {None, each.name}]
    answer(settings, output, NotifyStatusRow, rows, status_blocks)


def status_row(status: DestinationStatus) -> Row:
    """Return the row of a destination."""
    values = msgspec.structs.asdict(status)
    return {
        **{key: values[key] for key in NotifyStatusRow.__struct_fields__ if key in values},
        "destination": status.name,
        "sending": status.batch,
    }


def state(row: Row) -> str:
    """Return the state of a destination in a few words."""
    if row["kind"] is None:
        return "not configured"
    if row["failures"]:
        return "failing"
    if row["cursor"] is None:
        return "new"
    return "waiting" if row["waiting"] else "up to date"


def status_blocks(rows: Sequence[Row], view: View) -> Iterator[Block]:
    """Yield a line for each destination, and the totals."""
    del view
    yield Table(COLUMNS, rows)
    states = Counter(map(state, rows))
    counts = ", ".join(f"{states[name]:,} {name}" for name in _STYLES if states[name])
    sentence = count_text(len(rows), "destination")
    yield Line(f"{sentence}: {counts}" if counts else sentence, "faint")


def _failures_text(row: Row, view: View) -> str:
    del view
    return number_text(row["failures"] or None)


_STYLES: Final[Mapping[str, str]] = {
    "failing": "failed",
    "waiting": "",
    "up to date": "ok",
    "new": "",
    "not configured": "faint",
}
"""The states of a destination, the worst first, and the style of each."""

COLUMNS: Final = (
    Column("state", "name", text=lambda row, _: state(row), style=lambda row: _STYLES[state(row)]),
    Column("destination", "name"),
    Column("kind", "name", line=2, optional=2),
    Column("waiting", "number", line=2),
    Column("last_accepted_at", "age", line=2),
    Column("failing_since", "time", line=2, optional=1),
    Column("failures", "number", line=2, optional=3, text=_failures_text),
    Column("last_error", "cut", line=2, limit=40),
)
"""The columns of a destination."""
