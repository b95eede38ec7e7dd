"""Pure: messages made of events: CloudEvents for programs, subject and text for people."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from tagsync.database.decoding import decode_fields
from tagsync.database.events import Event, EventChange, EventKind
from tagsync.notify.neutral import neutral_name
from tagsync.notify.sentences import (
    digest_text,
    headline,
    previous_digest,
    sentence,
    subject_of,
)
from tagsync.notify.targets import Rule
from tagsync.notify.templates import fill, uses

CLOUD_EVENT: Final = "application/cloudevents+json"
CLOUD_EVENT_BATCH: Final = "application/cloudevents-batch+json"
"""The media types of CloudEvents 1.0 in JSON: one event, and an array of events."""

TEST_TYPE: Final = "tagsync.test"
"""The type of the CloudEvent that `tagsync notify test` sends."""

_SEQUENCE_DIGITS: Final = 20
"""The extension ``sequence`` has to sort as text. A number of SQLite has at most 19 digits."""

_LONGEST_SUBJECT: Final = 200
_LONGEST_TEXT: Final = 1800
"""Maximum number of characters for people. Discord refuses more than 2000."""

_PART: Final[Mapping[EventKind, str]] = {
    "held": "repository",
    "failed": "repository",
    "recovered": "repository",
    "stale": "repository",
    "baselined": "repository",
    "verification_failed": "record",
}
"""The word between ``tagsync.`` and the kind, in types of CloudEvents. The others are ``tag``."""


class Message(msgspec.Struct, frozen=True):
    """Events that are sent together.

    Attributes:
        id: The same in every attempt. Receivers may use it to drop repetitions.
        database_id: The database's id, for the source of each event.
        sequence: The number of the first event among all that this destination was sent.
        events: The events, the oldest first. For people, only the first ones of a flood.
        counts: Number of events of each kind that the message covers.
        is_test: Whether nothing of it has happened.
    """

    id: str
    database_id: str
    sequence: int
    events: Sequence[Event]
    counts: Mapping[EventKind, int]
    is_test: bool = False

    @property
    def total(self) -> int:
        """Number of events that the message covers."""
        return sum(self.counts.values())


def message_id(database_id: str, destination: str, ids: Sequence[int]) -> str:
    """Return the id of a message: made of the destination and of the events, nothing else.

    It has no full stop, because Standard Webhooks signs it together with other text after one.
    """
    content = msgspec.json.encode([database_id, destination, ids])
    return f"msg_{ids[0]}-{ids[-1]}_{hashlib.sha256(content).hexdigest()[:24]}"


def message_of(rule: Rule, database_id: str, sequence: int, events: Sequence[Event]) -> Message:
    """Return the message for some events, without further ones.

    Args:
        rule: The destination.
        database_id: The database's id.
        sequence: The number of the first event for this destination.
        events: The events, the oldest first.
    """
    name = message_id(database_id, rule.name, [event.id for event in events])
    counts = Counter(event.kind for event in events)
    return Message(name, database_id, sequence, events, counts)


def event_type(kind: EventKind) -> str:
    """Return the type of a CloudEvent, such as ``tagsync.tag.moved``."""
    return f"tagsync.{_PART.get(kind, 'tag')}.{kind}"


def cloud_events(rule: Rule, message: Message) -> list[dict[str, Any]]:
    """Return the events of a message as CloudEvents 1.0.

    Raises:
        DamagedRecord: If a row of the database is not what tagsync wrote.
    """
    return [
        _cloud_event(rule, message, event, number)
        for number, event in enumerate(message.events, message.sequence)
    ]


def _cloud_event(rule: Rule, message: Message, event: Event, sequence: int) -> dict[str, Any]:
    names = [name for name in (event.repository, event.tag) if name is not None]
    return {
        "specversion": "1.0",
        "id": message.id if message.is_test else str(event.id),
        "source": f"tagsync/{message.database_id}",
        "type": TEST_TYPE if message.is_test else event_type(event.kind),
        **({"subject": ":".join(names)} if names else {}),
        "time": event.at,
        "datacontenttype": "application/json",
        "sequence": f"{sequence:0{_SEQUENCE_DIGITS}d}",
        "data": {
            "kind": event.kind,
            "repository": event.repository,
            "tag": event.tag,
            **_change_data(event.change),
            "previous_digest": previous_digest(event),
            "detail": event.detail,
            "subject": event_subject(rule, event),
            "text": event_text(rule, event),
        },
    }


def _change_data(change: EventChange | None) -> dict[str, Any]:
    if change is None:
        return dict.fromkeys(
            ("change_id", "hash", "old_digest", "new_digest", "fields", "not_before", "observed_at")
        )
    return {
        "change_id": change.id,
        "hash": change.hash,
        "old_digest": change.old_digest,
        "new_digest": change.new_digest,
        "fields": decode_fields(change.fields, f"change {change.id}"),
        "not_before": change.not_before,
        "observed_at": change.observed_at,
    }


def event_subject(rule: Rule, event: Event, count: int = 1) -> str:
    """Return the subject for an event, on one line.

    Args:
        rule: Its template is used, if it has one.
        event: The event, or the first of several.
        count: Number of events that the message covers. If the template does not use ``$count``,
            the number of the others is appended.
    """
    if rule.subject is None:
        text = headline(event)
    else:
        text = fill(rule.subject, _values(rule, event, count))
    if count > 1 and not (rule.subject and uses(rule.subject, "count")):
        text += f" (and {count - 1:,} more)"
    return " ".join(text.split())[:_LONGEST_SUBJECT]


def event_text(rule: Rule, event: Event, count: int = 1) -> str:
    """Return the text for an event; see `event_subject`."""
    if rule.text is None:
        return sentence(event)
    return fill(rule.text, _values(rule, event, count))


def text_for_people(rule: Rule, message: Message) -> tuple[str, str]:
    """Return the subject and the text of a message.

    A message with all of its events has a paragraph for each. One that covers more counts them by
    kind, and describes the first.
    """
    first = message.events[0]
    subject = event_subject(rule, first, message.total)
    told = _once_per_change(message.events)
    text = "\n\n".join(event_text(rule, event, message.total) for event in told)
    is_complete = message.total == len(message.events)
    if is_complete and (len(told) == 1 or len(text) <= _LONGEST_TEXT):
        return subject, text[:_LONGEST_TEXT]
    shown = event_text(rule, first, message.total)[:_LONGEST_TEXT]
    return subject, f"{_counted(message)} The first:\n\n{shown}\n\n{_rest(first)}"


def _once_per_change(events: Sequence[Event]) -> list[Event]:
    """Leave out events whose change is also described as one of an immutable tag."""
    described = {
        event.change.id for event in events if event.change and event.kind.startswith("immutable_")
    }
    return [
        event
        for event in events
        if event.kind.startswith("immutable_")
        or event.change is None
        or event.change.id not in described
    ]


def _counted(message: Message) -> str:
    kinds = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(message.counts.items()) if count
    )
    return f"{message.total:,} events: {kinds}."


def _rest(first: Event) -> str:
    if first.change is None:
        return "tagsync status shows the present state."
    return f"tagsync log --after {first.change.id - 1} shows all changes."


def _values(rule: Rule, event: Event, count: int) -> dict[str, str]:
    change = event.change
    return {
        "change_id": "" if change is None else str(change.id),
        "count": str(count),
        "destination": rule.name,
        "event_id": str(event.id),
        "first": subject_of(event),
        "hash": "" if change is None else change.hash,
        "kind": event.kind,
        "new_digest": digest_text(change and change.new_digest),
        "not_before": (change and change.not_before) or "",
        "observed_at": event.at if change is None else change.observed_at,
        "old_digest": digest_text(change and change.old_digest),
        "previous": digest_text(previous_digest(event)),
        "repository": "the record" if event.repository is None else neutral_name(event.repository),
        "sentence": sentence(event),
        "tag": "" if event.tag is None else neutral_name(event.tag),
    }
