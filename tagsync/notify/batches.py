"""Which events make the next message of a destination."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from tagsync.database.decoding import damaged
from tagsync.database.events import EventKey, EventKind
from tagsync.database.outbox import Outbox
from tagsync.notify.messages import Message, message_id
from tagsync.notify.selection import Filter
from tagsync.notify.targets import Rule

MOST_IN_FLOOD: Final = 100_000
"""Maximum number of events that one message for people covers."""

_CHUNK: Final = 1000
"""Events to read at once. Reading them holds the database's read lock for a few milliseconds."""


class Waiting(NamedTuple):
    """The events that a destination gets next.

    Attributes:
        keys: The events, the oldest first.
        through: The newest event that was looked at. All up to it that the destination wants are in
            ``keys``.
    """

    keys: Sequence[EventKey]
    through: int

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the events."""
        return tuple(key.id for key in self.keys)


def waiting_events(outbox: Outbox, wanted: Filter, after: int, limit: int) -> Waiting:
    """Return the next events of a destination.

    Args:
        outbox: The events.
        wanted: The filter of the destination.
        after: The destination's cursor.
        limit: Maximum number of events. Once there are as many, no more are looked at.

    Raises:
        StoreError: If the database cannot be read, or is damaged.
    """
    found: list[EventKey] = []
    while keys := outbox.event_keys(after, _CHUNK):
        for key in keys:
            after = key.id
            if wanted.wants(key):
                found.append(key)
                if len(found) == limit:
                    return Waiting(found, after)
    return Waiting(found, after)


def count_waiting(outbox: Outbox, rule: Rule, after: int) -> int:
    """Return how many events wait for a destination.

    Raises:
        StoreError: If the database cannot be read, or is damaged.
    """
    wanted = Filter(rule)
    count = 0
    while keys := outbox.event_keys(after, _CHUNK):
        after = keys[-1].id
        count += sum(map(wanted.wants, keys))
    return count


def build_message(
    outbox: Outbox, rule: Rule, database_id: str, sequence: int, ids: Sequence[int]
) -> Message:
    """Return the message for the events of a batch. The same ids make the same message.

    Args:
        outbox: The events.
        rule: The destination.
        database_id: The database's id.
        sequence: The number of the first event for this destination.
        ids: The ids of the events, the oldest first.

    Raises:
        StoreError: If the database cannot be read, or is damaged.
    """
    events = outbox.events_by_id(ids[: rule.batch_size] if _is_flood(rule, ids) else ids)
    counts: Counter[EventKind] = Counter(event.kind for event in events)
    for start in range(len(events), len(ids), _CHUNK):
        rest = outbox.events_by_id(ids[start : start + _CHUNK])
        counts.update(event.kind for event in rest)
    if counts.total() != len(ids):
        raise damaged(f"the batch of {rule.name}", "it names events that do not exist")
    name = message_id(database_id, rule.name, ids)
    return Message(name, database_id, sequence, events, counts)


def _is_flood(rule: Rule, ids: Sequence[int]) -> bool:
    return rule.kind == "apprise" and len(ids) > rule.batch_size
