"""Which events a poll has. Pure.

Each event is written in the transaction of its poll. The newest observation says how the poll
before it ended:

===========  ==========================================  ==================================
poll before  this poll                                   events
===========  ==========================================  ==================================
any, none    recorded, the first listing                 ``baselined``, none for its tags
any, none    recorded, a later listing                   one for each change
-            the listing has unverified tags             ``unverified`` for each that has none for
                                                         the same digest
not failed   failed, also by a damaged record            ``failed``
failed       failed, for whatever reason                 -
failed       recorded, unchanged or held                 ``recovered`` (after ``failed``)
held         recorded or unchanged                       ``recovered`` (after ``held``), unless an
                                                         alternation lasts
any, none    held                                        ``held``, unless a listing since the last
                                                         recorded one was held with the same
                                                         ``reason_key``
any          held, and an alternation begins or lasts    - (its earlier flips had their events)
held         held, and an alternation has ended          ``held``
===========  ==========================================  ==================================

Several rows may apply to one poll. Midnight, a restart and a gap in coverage only begin another
observation, so they repeat nothing. A dropped listing has no events, because it is not recorded.

The event of a change says how the tag changed: ``added``, ``moved`` (an update to another digest),
``updated`` (any other update) or ``deleted``. If the change breaks the promise of an immutable tag,
a second event with the same change follows it; see `find_violations`.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from tagsync.database.events import EventKind, NewEvent
from tagsync.database.outcomes import (
    Accepted,
    Damaged,
    Failed,
    Held,
    Outcome,
    Violation,
    ViolationKind,
)
from tagsync.models import RecordedChange

_NONE: Final[Mapping[str, str]] = {}
_encode: Final = msgspec.json.Encoder().encode


class Before(msgspec.Struct, frozen=True):
    """The record of a repository before a poll, as far as its events depend on it.

    Attributes:
        outcome: The outcome of the newest observation. None if the repository was never polled.
        listed: Whether a listing was recorded before.
        was_held: Whether a listing since the last recorded one was held with the ``reason_key`` of
            this poll. False if this poll is not held.
        digests: The last digest that each tag is known to have pointed to, by tag. Only tags that
            change and have no digest directly before.
        unverified: The unverified tags whose digest an earlier event names.
    """

    outcome: str | None = None
    listed: bool = False
    was_held: bool = False
    digests: Mapping[str, str] = _NONE
    unverified: Set[str] = frozenset()


def events_of(
    outcome: Outcome,
    changes: Sequence[RecordedChange],
    violations: Mapping[int, Violation],
    before: Before,
    repository_id: int,
    at: str,
) -> list[NewEvent]:
    """Return the events of a poll in their order.

    Args:
        outcome: The outcome of the poll.
        changes: The changes that the poll records. Empty if the outcome is not `Accepted`.
        violations: The result of `find_violations` for these changes.
        before: The record before the poll.
        repository_id: The value of ``repositories.id``.
        at: The recorded time of the poll.
    """

    def event(kind: EventKind, detail: Mapping[str, Any], tag: str | None = None) -> NewEvent:
        return NewEvent(at, kind, repository_id, tag, detail=_json(detail))

    events = []
    if isinstance(outcome, Failed):
        if before.outcome != "failed":
            (reason,) = outcome.reasons
            events.append(event("failed", {"reason": reason, "error": str(outcome.error)}))
        return events
    if _is_recovery(outcome, before):
        events.append(event("recovered", {"after": before.outcome}))
    if isinstance(outcome, Held) and _is_newly_held(outcome, before):
        events.append(event("held", {"reasons": outcome.reasons, "error": outcome.detail}))
    if isinstance(outcome, Accepted):
        if before.listed:
            events += _events_of_changes(changes, violations, before, repository_id)
        else:
            events.append(event("baselined", {"tags": len(changes)}))
        events += [
            event("unverified", detail, tag)
            for tag, detail in _unverified(outcome)
            if tag not in before.unverified
        ]
    return events


def events_of_damage(
    damage: Damaged, before: str | None, repository_id: int, at: str
) -> list[NewEvent]:
    """Return the events of a poll that failed because the record is damaged.

    Args:
        damage: The damage.
        before: As `Before.outcome`.
        repository_id: As in `events_of`.
        at: As in `events_of`.
    """
    if before == "failed":
        return []
    detail = _json({"reason": "damaged", "error": damage.detail})
    return [NewEvent(at, "failed", repository_id, detail=detail)]


def find_violations(
    changes: Sequence[RecordedChange], digests: Mapping[str, str], immutable: Sequence[str]
) -> dict[int, Violation]:
    """Return the changes that break the promise of an immutable tag, by the id of the change.

    A tag moves if it gets another digest than the last one that it is known to have pointed to,
    also if it was deleted or unresolved in between. A tag that gets no digest does not move. The
    tags of a repository's first listing break no promise, because no earlier digest is known.

    Args:
        changes: The changes that a poll records.
        digests: As in `Before`.
        immutable: The globs of the tags that must not move.
    """
    found = {}
    for change in changes if immutable else ():
        previous = change.old_digest or digests.get(change.tag)
        is_move = previous is not None and change.new_digest not in (None, previous)
        if not is_move and change.kind != "deleted":
            continue
        pattern = next((glob for glob in immutable if fnmatchcase(change.tag, glob)), None)
        if pattern is not None:
            kind: ViolationKind = "immutable_moved" if is_move else "immutable_deleted"
            found[change.id] = Violation(kind, previous, pattern)
    return found


def _is_recovery(outcome: Outcome, before: Before) -> bool:
    if before.outcome == "failed":
        return True
    lasts = isinstance(outcome, Accepted) and _alternates(outcome) == "lasts"
    return before.outcome == "held" and not isinstance(outcome, Held) and not lasts


def _is_newly_held(outcome: Held, before: Before) -> bool:
    match _alternates(outcome):
        case None:
            return not before.was_held
        case phase:
            return phase == "ended"


def _alternates(outcome: Accepted | Held) -> str | None:
    return outcome.alternation.phase if outcome.alternation is not None else None


def _events_of_changes(
    changes: Sequence[RecordedChange],
    violations: Mapping[int, Violation],
    before: Before,
    repository_id: int,
) -> Iterator[NewEvent]:
    """Yield the event of each change, and after it that of its violation."""
    for change in changes:
        about = (repository_id, change.tag, change.id)
        kind: EventKind = "moved" if change.moved else change.kind
        previous = before.digests.get(change.tag)
        detail = None if previous is None else _json({"previous_digest": previous})
        yield NewEvent(change.observed_at, kind, *about, detail)
        if violation := violations.get(change.id):
            detail = _json(
                {"previous_digest": violation.previous_digest, "pattern": violation.pattern}
            )
            yield NewEvent(change.observed_at, violation.kind, *about, detail)


def _unverified(accepted: Accepted) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each unverified tag with the detail of its event."""
    listing = accepted.listing
    for name in sorted(listing.unverified):
        tag = listing.tags[name]
        wrong = listing.wrong_manifests.get(name)
        yield name, {"digest": tag.digest, "image_id": tag.image_id, "manifest_digest": wrong}


def _json(detail: Mapping[str, Any]) -> str:
    return _encode(detail).decode()
