"""The states of a tag at a moment, and how certain they are. Pure.

A change happened after its ``not_before`` and no later than its ``observed_at``. At a given moment,
some changes had therefore certainly happened, and some later ones may have happened. The tag was in
the state after the last change that had certainly happened, or in one of the states after it.

This holds only for moments that complete listings cover: in a gap in coverage anything may have
happened, and before the first listing nothing is known.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

Level = Literal["certain", "uncertain", "not observed", "unknown"]
"""How certain an answer is.

``certain``: the listings before and after agree. ``uncertain``: the tag changed between two
listings, and the moment lies between them. ``not observed``: the moment is in a gap in coverage;
the answer is the last known state. ``unknown``: the moment is before the first complete listing.
"""

_LEVELS: Final[tuple[Level, ...]] = ("certain", "uncertain", "not observed", "unknown")
"""All levels, the most certain first."""


class TagState(msgspec.Struct, frozen=True):
    """A state of a tag, and the time of the change that led to it.

    Attributes:
        fields: The tag's fields that have a value. None if the tag did not exist in this state.
        not_before: The change happened after this time. None if the tag was there when its
            repository was first listed, and for the state before the first change.
        observed_at: The change happened no later than this time. Empty for the state before the
            first change.
    """

    fields: Mapping[str, Any] | None
    not_before: str | None = None
    observed_at: str = ""


class Certainty(msgspec.Struct, frozen=True):
    """How certain an answer is, and the interval in which it is not more certain.

    Attributes:
        level: How certain the answer is.
        start: Start of the interval. None if it has no start.
        end: End of the interval. None if it has no end.
    """

    level: Level = "certain"
    start: str | None = None
    end: str | None = None


CERTAIN: Final = Certainty()
"""A certain answer, which has no interval."""


class TagChange(NamedTuple):
    """The columns of ``changes`` that determine the state of a tag, decoded."""

    kind: str
    fields: Mapping[str, tuple[Any, Any]]
    not_before: str | None
    observed_at: str


def tag_states(changes: Iterable[TagChange]) -> list[TagState]:
    """Return the states of a tag in their order; the first is before all changes."""
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
        history: The result of `tag_states`.
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
    """Return how certain an answer is if a tag may have been in these states."""
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
    """The times that a repository's complete listings cover."""

    def __init__(self, runs: Iterable[tuple[str, str]]) -> None:
        """Merge runs of complete listings that overlap.

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
        """The time of the first complete listing. None without any listing."""
        return self._runs[0][0] if self._runs else None

    @property
    def last(self) -> str | None:
        """The time of the last complete listing. None without any listing."""
        return self._runs[-1][1] if self._runs else None

    def at(self, moment: str) -> Certainty:
        """Return how certain an answer about a moment can be at best."""
        following = bisect_right(self._firsts, moment)
        if not following:
            return Certainty("unknown", None, self.first)
        covered_until = self._runs[following - 1][1]
        if moment <= covered_until:
            return CERTAIN
        end = self._firsts[following] if following < len(self._firsts) else None
        return Certainty("not observed", covered_until, end)
