"""Pure: what happened, as one sentence for people, from the values of an event."""

from collections.abc import Callable, Mapping
from typing import Final

from tagsync.database.events import Event, EventKind
from tagsync.notify.neutral import neutral_name, neutral_text

NO_DIGEST: Final = "no digest"
"""The text for a digest that is not known."""


def subject_of(event: Event) -> str:
    """Return the name of what an event is about, harmless in every kind of text.

    It is ``registry/namespace/repository:tag``, or a part of this, or ``the record``.
    """
    if event.repository is None:
        return "the record"
    name = neutral_name(event.repository)
    return name if event.tag is None else f"{name}:{neutral_name(event.tag)}"


def headline(event: Event) -> str:
    """Return what happened in a few words, such as ``swr/team/app:prod moved``."""
    return f"{subject_of(event)} {_HEADLINES[event.kind]}"


def sentence(event: Event) -> str:
    """Return what happened, what was there before, and when."""
    return f"{subject_of(event)} {_SENTENCES[event.kind](event)}. {_time(event)}."


def digest_text(digest: object) -> str:
    """Return a digest for a text, or `NO_DIGEST`."""
    return neutral_name(digest) if isinstance(digest, str) else NO_DIGEST


def previous_digest(event: Event) -> str | None:
    """Return the digest that a tag last pointed to before an event, also before a deletion.

    Returns:
        None if the event is not about a tag, or no earlier digest is known.
    """
    previous = event.detail.get("previous_digest")
    if previous is None and event.change is not None:
        previous = event.change.old_digest
    return previous if isinstance(previous, str) else None


def _time(event: Event) -> str:
    if event.change is None:
        return f"Observed at {event.at}"
    if event.change.not_before is None:
        return f"Observed at {event.change.observed_at}"
    return (
        f"This happened after {event.change.not_before} and no later than"
        f" {event.change.observed_at}"
    )


def _new(event: Event) -> str:
    return digest_text(event.change and event.change.new_digest)


def _old(event: Event) -> str:
    return digest_text(event.change and event.change.old_digest)


def _previous(event: Event) -> str:
    return digest_text(previous_digest(event))


def _detail(event: Event, key: str) -> str:
    value = event.detail.get(key)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "unknown" if value is None else neutral_text(str(value))


def _added(event: Event) -> str:
    known = previous_digest(event)
    before = f"; before its deletion it pointed to {digest_text(known)}" if known else ""
    return f"was added and points to {_new(event)}{before}"


def _updated(event: Event) -> str:
    if event.change is None or event.change.old_digest == event.change.new_digest:
        return f"was updated and still points to {_new(event)}"
    return f"was updated: it had {_old(event)}, and has {_new(event)}"


_SENTENCES: Final[Mapping[EventKind, Callable[[Event], str]]] = {
    "added": _added,
    "moved": lambda event: f"moved from {_old(event)} to {_new(event)}",
    "updated": _updated,
    "deleted": lambda event: f"was deleted; it pointed to {_previous(event)}",
    "immutable_moved": lambda event: (
        f"must not move, and moved from {_previous(event)} to {_new(event)}"
    ),
    "immutable_deleted": lambda event: (
        f"must not move, and was deleted; it pointed to {_previous(event)}"
    ),
    "unverified": lambda event: (
        f"points to {digest_text(event.detail.get('digest'))}, but the manifest that the registry"
        " sends does not hash to it"
    ),
    "held": lambda event: (
        f"has a listing that is held ({_detail(event, 'reasons')}): {_detail(event, 'error')}"
    ),
    "failed": lambda event: (
        f"could not be polled ({_detail(event, 'reason')}): {_detail(event, 'error')}"
    ),
    "recovered": lambda event: f"is recorded again; before, {_before(event)}",
    "stale": lambda event: (
        "has had no complete listing for three intervals; the last was at"
        f" {_detail(event, 'last_complete_at')}"
    ),
    "baselined": lambda event: f"was listed for the first time: {_detail(event, 'tags')} tags",
    "verification_failed": lambda event: (
        f"did not pass its verification ({_detail(event, 'result')}): {_detail(event, 'error')}"
    ),
}

_HEADLINES: Final[Mapping[EventKind, str]] = {
    "added": "was added",
    "moved": "moved",
    "updated": "was updated",
    "deleted": "was deleted",
    "immutable_moved": "must not move, and moved",
    "immutable_deleted": "must not move, and was deleted",
    "unverified": "does not match its digest",
    "held": "is held",
    "failed": "could not be polled",
    "recovered": "is recorded again",
    "stale": "is stale",
    "baselined": "was listed for the first time",
    "verification_failed": "did not pass its verification",
}


def _before(event: Event) -> str:
    return "its listing was held" if event.detail.get("after") == "held" else "its polls failed"
