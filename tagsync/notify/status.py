"""How far each destination has got, for commands, metrics and health."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.outbox import Destination, Outbox
from tagsync.errors import DamagedRecord
from tagsync.notify.batches import count_waiting
from tagsync.notify.targets import Rule, TargetKind

UNHEALTHY_AFTER: Final = timedelta(hours=1)
"""A destination that has failed for so long, while messages wait, is a fault."""


class DestinationStatus(msgspec.Struct, frozen=True):
    """The state of one destination.

    Attributes:
        name: Its name.
        kind: How it is reached. None if it is not configured.
        cursor: All events up to this one were accepted or not wanted. None if the destination was
            never used, or its row is damaged.
        newest: The newest event.
        waiting: How many events wait that the destination wants. Without a configuration, all
            events after the cursor count.
        batch: How many of them are being sent.
        sequence: Number of the last message that was accepted. 0 if there is none.
        failures: Consecutive attempts that failed.
        failing_since: The first of them. None if there is none, or the row is damaged.
        last_error: Why the last attempt failed. None if it was accepted.
        retry_at: When the next attempt is due. None if nothing failed.
        last_accepted_at: None if nothing was ever accepted.
        lease_holder: The process that sends. None if none does.
    """

    name: str
    kind: TargetKind | None
    cursor: int | None
    newest: int
    waiting: int
    batch: int
    sequence: int
    failures: int
    failing_since: str | None
    last_error: str | None
    retry_at: str | None
    last_accepted_at: str | None
    lease_holder: str | None


def statuses(outbox: Outbox, rules: Sequence[Rule], now: datetime) -> list[DestinationStatus]:
    """Return the state of each destination: the configured ones, then those that are not.

    Args:
        outbox: The events and the destinations.
        rules: The configured destinations.
        now: The current time. A lease that has run out is not shown.

    Raises:
        StoreError: If the database cannot be read, or is damaged.
    """
    newest = outbox.newest_event()
    by_name: dict[str, Rule | None] = {rule.name: rule for rule in rules}
    for name in outbox.names():
        by_name.setdefault(name, None)
    return [_status(outbox, name, rule, newest, now) for name, rule in by_name.items()]


def failing_for_long(states: Iterable[DestinationStatus], now: datetime) -> list[str]:
    """Return one sentence for each configured destination that has failed for an hour."""
    return [
        f"the destination {each.name} has not accepted anything since {each.failing_since}, and"
        f" {each.waiting} events wait; {each.last_error}"
        for each in states
        if each.kind is not None
        and each.waiting
        and each.failing_since is not None
        and now - parse_timestamp(each.failing_since) >= UNHEALTHY_AFTER
    ]


def _status(
    outbox: Outbox, name: str, rule: Rule | None, newest: int, now: datetime
) -> DestinationStatus:
    kind = None if rule is None else rule.kind
    try:
        row = outbox.destination(name)
        if row is not None:
            waiting = _count_waiting(outbox, rule, row.cursor, newest)
            return _of(row, kind, newest, waiting, now)
    except DamagedRecord as error:
        # Where its cursor is, only the row says. So all events may wait.
        return DestinationStatus(
            name, kind, None, newest, newest, 0, 0, 1, None, str(error), None, None, None
        )
    return DestinationStatus(name, kind, None, newest, 0, 0, 0, 0, None, None, None, None, None)


def _count_waiting(outbox: Outbox, rule: Rule | None, cursor: int, newest: int) -> int:
    if rule is not None and cursor < newest:
        # If an event is damaged, the destination's own error names it.
        with suppress(DamagedRecord):
            return count_waiting(outbox, rule, cursor)
    return max(0, newest - cursor)


def _of(
    row: Destination, kind: TargetKind | None, newest: int, waiting: int, now: datetime
) -> DestinationStatus:
    held = row.lease_until is not None and row.lease_until > timestamp(now)
    return DestinationStatus(
        name=row.name,
        kind=kind,
        cursor=row.cursor,
        newest=newest,
        waiting=waiting,
        batch=len(row.batch_ids),
        sequence=row.sequence,
        failures=row.failures,
        failing_since=row.failing_since,
        last_error=row.last_error,
        retry_at=row.retry_at,
        last_accepted_at=row.last_accepted_at,
        lease_holder=row.lease_holder if held else None,
    )
