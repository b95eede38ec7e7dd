"""The states of a tag at a moment, and how certain they are. Pure.

A change happened after its ``not_before`` and no later than its ``observed_at``. So at a moment a
tag was in one of the states between the last change that had certainly happened and the last one
that may have happened. This holds only for moments that complete listings cover: in a gap in
coverage anything may have happened, and before the first listing nothing is known.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Level = Literal["certain", "uncertain", "not observed", "unknown"]
"""How certain an answer is.

``certain``: the listings before and after agree. ``uncertain``: the tag changed between two
listings, and the moment lies between them. ``not observed``: the moment is in a gap in coverage;
the answer is the last known state. ``unknown``: the moment is before the first complete listing.
"""

_LEVELS: Final[tuple[Level, ...]] = ("certain", "uncertain", "not observed", "unknown")
"""The most certain first."""


class Version(msgspec.Struct, frozen=True):
    """A state of a tag, and the change that led to it.

    Attributes:
        fields: Every field that is not None. None if the tag did not exist.
        not_before: The change happened after this time. None if the tag was there when its
            repository was first listed.
        observed_at: The change happened no later than this time. Empty before the first change.
    """

    fields: Mapping[str, Any] | None
    not_before: str | None = None
    observed_at: str = ""


class Certainty(msgspec.Struct, frozen=True):
    """How certain an answer is, and the interval in which nothing more certain is known.

    Attributes:
        start: None if the interval has no start.
        end: None if the interval has no end.
    """

    level: Level = "certain"
    start: str | None = None
    end: str | None = None


CERTAIN: Final = Certainty()


class ChangeRow(msgspec.Struct, frozen=True, array_like=True):
    """The columns of ``changes`` that determine the state of a tag."""

    kind: Literal["added", "updated", "deleted"]
    fields: str
    not_before: str | None
    observed_at: str


_decode = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode


def versions(changes: Iterable[ChangeRow]) -> list[Version]:
    """Return the states of a tag in their order. In the first one the tag does not exist.

    Raises:
        msgspec.DecodeError: If the fields of a change are not the JSON of pairs.
    """
    found = [Version(None)]
    for change in changes:
        fields: dict[str, Any] | None = None
        if change.kind != "deleted":
            fields = dict(found[-1].fields or ())
            for name, (_, new) in _decode(change.fields).items():
                if new is None:
                    fields.pop(name, None)
                else:
                    fields[name] = new
        found.append(Version(fields, change.not_before, change.observed_at))
    return found


def possible(history: Sequence[Version], moment: str) -> Sequence[Version]:
    """Return the states that a tag may have been in at a moment that is covered."""
    latest = len(history) - 1
    while (history[latest].not_before or "") >= moment:
        latest -= 1
    earliest = latest
    while history[earliest].observed_at > moment:
        earliest -= 1
    return history[earliest : latest + 1]


def certainty_of(states: Sequence[Version]) -> Certainty:
    """Return how certain the result of `possible` is, assuming that the moment is covered."""
    if len(states) == 1:
        return CERTAIN
    return Certainty("uncertain", states[1].not_before, states[-1].observed_at)


def least_certain(*several: Certainty) -> Certainty:
    """Return the least certain of several; equal ones are merged into one interval."""
    level = max((one.level for one in several), key=_LEVELS.index)
    equal = [one for one in several if one.level == level]
    starts, ends = [one.start for one in equal], [one.end for one in equal]
    return Certainty(
        level,
        None if None in starts else min(filter(None, starts)),
        None if None in ends else max(filter(None, ends)),
    )


class ListingCoverage:
    """The times that a repository's complete listings cover."""

    def __init__(self, runs: Iterable[tuple[str, str]]) -> None:
        """Take the first and the last listing of each run of complete listings, in any order."""
        self._runs: list[tuple[str, str]] = []
        for first, last in sorted(runs):
            if self._runs and first <= self._runs[-1][1]:
                self._runs[-1] = self._runs[-1][0], max(last, self._runs[-1][1])
            else:
                self._runs.append((first, last))
        self._firsts = [first for first, _ in self._runs]

    @property
    def first(self) -> str | None:
        """The first complete listing. None if there was none."""
        return self._runs[0][0] if self._runs else None

    @property
    def last(self) -> str | None:
        """The last complete listing. None if there was none."""
        return self._runs[-1][1] if self._runs else None

    def at(self, moment: str) -> Certainty:
        """Return how certain any answer about a moment can be."""
        following = bisect_right(self._firsts, moment)
        if not following:
            return Certainty("unknown", None, self.first)
        covered_until = self._runs[following - 1][1]
        if moment <= covered_until:
            return CERTAIN
        end = self._firsts[following] if following < len(self._firsts) else None
        return Certainty("not observed", covered_until, end)
