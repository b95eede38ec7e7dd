"""Alternation: two states of a repository take turns in its listings. Pure.

Replicas of a registry that disagree look like this. A **flip** is the step from one listing to the
next that is in the other state. There are two kinds:

- *Recorded*: each listing is recorded, and undoes what the one before it added, deleted or moved.
- *Held*: every other listing is held, for the same doubts, and those in between are recorded, or
  held for others.

An alternation begins with the third flip (A → B → A → B), if the time between two of these flips is
never longer than `longest_rest`. It ends with a listing in a third state, or if no flip was seen
for `longest_rest`. Updates of a tag that keep its digest, and digests that become known or unknown,
do not count as flips.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tagsync.clock import parse_timestamp
from tagsync.database.past import Flip, Past, Run
from tagsync.escaping import truncate
from tagsync.models import Change, Kind

_REST: Final = timedelta(hours=1)
_REST_INTERVALS: Final = 12

_NAMED: Final = 5
"""Maximum number of tags that an alternation names."""

_SENTENCE: Final = "two states of the repository alternate, which differ in "

_INVERSE: Final[dict[Kind, Kind]] = {"added": "deleted", "deleted": "added", "updated": "updated"}


def longest_rest(interval: timedelta) -> timedelta:
    """Return the longest time between two flips of an alternation.

    Args:
        interval: Planned time between two polls.

    Returns:
        An hour, or twelve intervals if that is longer.
    """
    return max(_REST, _REST_INTERVALS * interval)


def flips_among(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that add, delete or move a tag."""
    return [change for change in changes if change.kind != "updated" or change.moved]


def recorded_alternates(flips: Sequence[Change], past: Past, at: str, rest: timedelta) -> bool:
    """Return whether a listing that is recorded is part of an alternation.

    Args:
        flips: The changes of the listing that add, delete or move a tag.
        past: The recorded past of the repository.
        at: When the listing was read.
        rest: Longest time between two flips.
    """
    if not flips:
        return _lasts(past, at, rest)
    if len(past.flips) != len(flips):
        return False
    if len({(newest.observed_at, older.observed_at) for newest, older in past.flips}) > 1:
        return False
    newest, older = past.flips[0]
    if not _is_close(newest.observed_at, at, rest):
        return False
    return _is_close(older.observed_at, newest.observed_at, rest) and all(
        _undoes(change, last) and _repeats(change, before)
        for change, (last, before) in zip(flips, past.flips, strict=True)
    )


def held_alternates(key: str, past: Past, at: str, rest: timedelta) -> bool:
    """Return whether a listing that is held is part of an alternation.

    Args:
        key: The ``reason_key`` of the listing.
        past: The recorded past of the repository.
        at: When the listing was read.
        rest: Longest time between two flips.
    """
    match past.runs:
        case [newest, *_] if newest.held and newest.reason_key == key:
            return _lasts(past, at, rest)
        case [other, held, before, *_] if held.held and held.reason_key == key:
            return (
                _is_same_state(other, before)
                and _is_close(other.first_at, at, rest)
                and _is_close(held.first_at, other.first_at, rest)
            )
    return False


def describe(tags: Sequence[str]) -> str:
    """Return a sentence about an alternation, with the names of a few tags."""
    return _SENTENCE + ", ".join(truncate(name) for name in tags)


def tags_for(names: Sequence[str], runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the names of a few tags in which the states of an alternation differ.

    Args:
        names: The tags in which the listing differs from the stored tags. If it is empty, the
            names come from the detail of the newest run, which has the sentence of `describe`.
        runs: The newest runs of the repository, the newest first.
    """
    if names:
        return tuple(truncate(name) for name in sorted(names)[:_NAMED])
    detail = (runs[0].detail or "") if runs else ""
    named = detail.partition(_SENTENCE)[2]
    return tuple(named.split(", ")) if named else ()


def _lasts(past: Past, at: str, rest: timedelta) -> bool:
    """Return whether the alternation of the newest run lasts, because the last flip is recent.

    The last flip was recorded, or it began the newest run.
    """
    if not past.runs or not past.runs[0].alternating:
        return False
    return _is_close(max(past.runs[0].first_at, past.flipped_at or ""), at, rest)


def _is_same_state(one: Run, other: Run) -> bool:
    """Return whether the listings of two runs agree, or were recorded."""
    return one.held == other.held and (not one.held or one.reason_key == other.reason_key)


def _is_close(earlier: str, later: str, rest: timedelta) -> bool:
    return parse_timestamp(later) - parse_timestamp(earlier) <= rest


def _undoes(change: Change, before: Flip) -> bool:
    """Return whether a change is the inverse of a flip."""
    return (change.kind, change.old_digest, change.new_digest) == (
        _INVERSE[before.kind],
        before.new_digest,
        before.old_digest,
    )


def _repeats(change: Change, before: Flip) -> bool:
    return (change.kind, change.old_digest, change.new_digest) == before[:3]
