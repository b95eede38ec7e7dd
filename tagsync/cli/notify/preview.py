"""The command ``notify preview``, which shows what would have been sent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.answers import stream_answer
from tagsync.cli.formats import count_text
from tagsync.cli.notify.destinations import name_argument, select_rules
from tagsync.cli.options import OutputOptions, StrictCommand, output_options
from tagsync.cli.rows import NotifyPreviewRow
from tagsync.cli.setup import load_config
from tagsync.cli.tables import Block, Column, Line, Row, View, aligned_tables
from tagsync.clock import utc_now
from tagsync.config.moments import parse_moment
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.database.outbox import Outbox
from tagsync.notify.preview import preview as messages_of
from tagsync.notify.targets import Rule


@click.command(cls=StrictCommand)
@name_argument(required=False)
@click.option(
    "--since",
    metavar="TIME",
    default="7d",
    show_default=True,
    help="Begin with the first event from this time on.",
)
@output_options
@click.pass_obj
def preview(settings: Settings, name: str | None, since: str, output: OutputOptions) -> None:
    """Show what would have been sent to each destination.

    Applies the filters, batches and templates of [[notify]] to what is recorded. Sends nothing,
    writes nothing and needs no secret. Each row is a message. first_event and last_event are ids
    for tagsync notify replay --since. --full also shows the text of each message.

    \b
    Example:
      tagsync notify preview ops --since 2d
    """
    config = load_config(settings)
    rules = select_rules(rules_without_secrets(config), name)
    start = parse_moment(since, utc_now())
    with Audit.open(config.database) as audit:
        rows = preview_rows(audit.outbox, rules, start)
        stream_answer(settings, output, NotifyPreviewRow, rows, preview_blocks)


def preview_rows(outbox: Outbox, rules: Sequence[Rule], start: str) -> Iterator[Row]:
    """Yield a row for each message, by destination.

    Args:
        outbox: The recorded events.
        rules: The destinations.
        start: The events from this time on count.
    """
    after, database_id = outbox.last_event_before(start), outbox.database_id()
    for rule in rules:
        for message in messages_of(rule, outbox.events_after(after), database_id):
            yield {
                "destination": rule.name,
                "first_event": message.first,
                "last_event": message.last,
                "events": message.events,
                "at": message.at,
                "subject": message.subject,
                "text": message.text,
            }


def preview_blocks(rows: Iterable[Row], view: View) -> Iterator[Block]:
    """Yield the messages, one on each line, and their totals. The rows are read part by part."""
    messages: Counter[str] = Counter()
    events = 0
    columns = (*COLUMNS, *(_TEXT if view.full else ()))
    for table in aligned_tables(columns, rows):
        messages.update(row["destination"] for row in table.rows)
        events += sum(row["events"] for row in table.rows)
        yield table
    counts = ", ".join(f"{count:,} to {name}" for name, count in messages.items())
    sentence = f"{count_text(messages.total(), 'message')} with {count_text(events, 'event')}"
    yield Line(f"{sentence}: {counts}" if counts else "0 messages", "faint")


COLUMNS: Final = (
    Column("at", "time"),
    Column("destination", "name", common=True),
    Column("event", "number", line=2, text=lambda row, _: str(row["first_event"])),
    Column("subject", "words", line=2),
)
"""The columns of a message."""

_TEXT: Final = (Column("text", "text", line=2, limit=40),)
