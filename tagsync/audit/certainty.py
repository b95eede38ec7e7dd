"""Determine the possible states of a tag at a moment, and how certain they are.

A change happened after its ``not_before`` and no later than its ``observed_at``. At a given moment,
each change of a tag had therefore certainly happened, possibly happened, or not yet happened. The
tag was in the state after the last change that had certainly happened, or in the state after one of
the changes that had possibly happened.

This rule holds only for a moment that complete listings cover. In a gap in coverage, a tag may also
have changed without any record of the change. Before the first listing, nothing is known.

The functions of this module are pure: they do not read the database.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

Level = Literal["certain", "uncertain", "not observed", "unknown"]
"""How certain an answer is.

``certain``: the listings before and after the moment agree about the tag. ``uncertain``: the tag
changed between two listings, and the moment lies between these listings. ``not observed``: the
moment is in a gap in coverage, or the listings since then contain the tag without its digest; the
answer is the last known state, and also the next known state if it differs. ``unknown``: the moment
is before the first complete listing.
"""

_LEVELS: Final[tuple[Level, ...]] = ("certain", "uncertain", "not observed", "unknown")
"""All levels, from the most certain to the least certain."""


class TagState(msgspec.Struct, frozen=True):
    """A state of a tag, and the times between which the tag changed to this state.

    Attributes:
        fields: The tag's fields that have a value. None if the tag did not exist in this state.
        not_before: The change to this state happened after this time. None if the tag existed when
            its repository was first listed, and in the state before the first change.
        observed_at: The change to this state happened no later than this time. Empty in the state
            before the first change.
    """

    fields: Mapping[str, Any] | None
    not_before: str | None = None
    observed_at: str = ""


class Certainty(msgspec.Struct, frozen=True):
    """How certain an answer is, and the interval for which it is not certain.

    Attributes:
        level: How certain the answer is.
        start: Start of the interval. None if the answer is certain, or if the interval includes all
            earlier times.
        end: End of the interval. None if the answer is certain, or if the interval has not ended.
    """

    level: Level = "certain"
    start: str | None = None
    end: str | None = None


CERTAIN: Final = Certainty()
"""A certain answer, which has no interval."""


class TagChange(NamedTuple):
    """The decoded columns of ``changes`` that determine the state of a tag."""

    kind: str
    fields: Mapping[str, tuple[Any, Any]]
    not_before: str | None
    observed_at: str


def tag_states(changes: Iterable[TagChange]) -> list[TagState]:
    """Return the states of a tag: before its first change, and after each change.

    Args:
        changes: All changes of the tag, oldest first.
    """
    found = [TagState(None)]
    for change in changes:
        fields: dict[str, Any] | None = None
        if change.kind != "deleted":
            fields = dict(found[-1].fields or ())
            for name, (_, new) in change.fields.items():
                if new is None:
                    fields.pop(name, None)
                else:
                    fields[name] = new
        found.append(TagState(fields, change.not_before, change.observed_at))
    return found


def possible_states(history: Sequence[TagState], moment: str) -> Sequence[TagState]:
    """Return the states in which a tag may have been at a moment.

    Args:
        history: The states of the tag, as `tag_states` returns them.
        moment: A time that complete listings cover.
    """
    latest = len(history) - 1
    while (history[latest].not_before or "") >= moment:
        latest -= 1
    earliest = latest
    while history[earliest].observed_at > moment:
        earliest -= 1
    return history[earliest : latest + 1]


def certainty_of(states: Sequence[TagState]) -> Certainty:
    """Return how certain an answer is if a tag may have been in any of these states."""
    if len(states) == 1:
        return CERTAIN
    return Certainty("uncertain", states[1].not_before, states[-1].observed_at)


def least_certain(*certainties: Certainty) -> Certainty:
    """Return the least certain of the arguments.

    If several arguments are equally uncertain, the interval of the result includes all their
    intervals.
    """
    level = max((each.level for each in certainties), key=_LEVELS.index)
    equal = [each for each in certainties if each.level == level]
    starts, ends = [each.start for each in equal], [each.end for each in equal]
    return Certainty(
        level,
        None if None in starts else min(filter(None, starts)),
        None if None in ends else max(filter(None, ends)),
    )


class ListingCoverage:
    """The periods that a repository's complete listings cover."""

    def __init__(self, runs: Iterable[tuple[str, str]]) -> None:
        """Merge overlapping runs of complete listings into periods.

        Args:
            runs: The times of the first and the last listing of each run, in any order.
        """
        self._runs: list[tuple[str, str]] = []
        for first, last in sorted(runs):
            if self._runs and first <= self._runs[-1][1]:
                self._runs[-1] = self._runs[-1][0], max(last, self._runs[-1][1])
            else:
                self._runs.append((first, last))
        self._firsts = [first for first, _ in self._runs]

    @property
    def first(self) -> str | None:
        """The time of the first complete listing. It is None without any listing."""
        return self._runs[0][0] if self._runs else None

    @property
    def last(self) -> str | None:
        """The time of the last complete listing. It is None without any listing."""
        return self._runs[-1][1] if self._runs else None

    def at(self, moment: str) -> Certainty:
        """Return the highest possible certainty of an answer about a moment."""
        following = bisect_right(self._firsts, moment)
        if not following:
            return Certainty("unknown", None, self.first)
        covered_until = self._runs[following - 1][1]
        if moment <= covered_until:
            return CERTAIN
        end = self._firsts[following] if following < len(self._firsts) else None
        return Certainty("not observed", covered_until, end)
