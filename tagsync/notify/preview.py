"""Pure: what a rule would have sent for some events."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tagsync.clock import parse_timestamp
from tagsync.database.events import Event
from tagsync.notify.messages import message_of, text_for_people
from tagsync.notify.selection import Filter
from tagsync.notify.targets import Rule


class Preview(NamedTuple):
    """A message that a rule would have sent.

    Attributes:
        first: Id of its first event.
        last: Id of its last event.
        events: Number of its events.
        at: The time of its last event.
        subject: Its subject for people.
        text: Its text for people.
    """

    first: int
    last: int
    events: int
    at: str
    subject: str
    text: str


def preview(rule: Rule, events: Iterable[Event], database_id: str) -> Iterator[Preview]:
    """Yield the messages that a rule would have sent if every attempt had succeeded.

    Events that follow each other within the rule's ``batch`` are sent together.

    Args:
        rule: The destination.
        events: The events, the oldest first.
        database_id: The database's id.
    """
    wanted = Filter(rule)
    together: list[Event] = []
    for event in filter(wanted.wants, events):
        if together and not _joins(rule, together, event):
            yield _preview(rule, together, database_id)
            together = []
        together.append(event)
    if together:
        yield _preview(rule, together, database_id)


def _joins(rule: Rule, together: list[Event], event: Event) -> bool:
    if rule.kind != "apprise" and len(together) >= rule.batch_size:
        return False
    return parse_timestamp(event.at) - parse_timestamp(together[0].at) <= rule.batch


def _preview(rule: Rule, events: list[Event], database_id: str) -> Preview:
    message = message_of(rule, database_id, 1, events)
    subject, text = text_for_people(rule, message)
    return Preview(events[0].id, events[-1].id, len(events), events[-1].at, subject, text)
