"""Pure: what a tag was at a moment, and how sure that is.

A change happened after its ``not_before`` and no later than its ``observed_at``. So at a moment a
tag was in one of the states between the last change that had certainly happened and the last that
may have. That much is known only for moments when somebody was looking: in a hole between complete
listings anything may have been, and before the first one nothing is known.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Certainty = Literal["certain", "uncertain", "not observed", "unknown"]
"""How sure an answer is.

``certain``: listings before and after agree. ``uncertain``: it changed between two listings, and
the moment lies between them. ``not observed``: nobody was looking; the answer is what was last
known. ``unknown``: before the first complete listing.
"""

_RISING: Final[tuple[Certainty, ...]] = ("certain", "uncertain", "not observed", "unknown")


class Version(msgspec.Struct, frozen=True):
    """A state of a tag, and the change that brought it.

    Attributes:
        fields: every field that is not null, or null where there was no such tag.
        not_before: the change happened after this; null where it was there when we first looked.
        observed_at: the change happened no later than this; empty before the first change.
    """

    fields: Mapping[str, Any] | None
    not_before: str | None = None
    observed_at: str = ""


class Doubt(msgspec.Struct, frozen=True):
    """How sure something is, and between which two moments nothing surer is known.

    Attributes:
        start: null where that is open.
        end: null where that is open.
    """

    certainty: Certainty = "certain"
    start: str | None = None
    end: str | None = None


CERTAIN: Final = Doubt()


Recorded = tuple[str, str, str | None, str]
"""Of a change: its kind, its fields as JSON, ``not_before`` and ``observed_at``."""

_decode = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode


def versions(changes: Iterable[Recorded]) -> list[Version]:
    """The states that a tag's changes lead through, the first being that there is no such tag."""
    found = [Version(None)]
    for kind, news, not_before, observed_at in changes:
        fields: dict[str, Any] | None = None
        if kind != "deleted":
            fields = dict(found[-1].fields or ())
            for name, (_, new) in _decode(news).items():
                if new is None:
                    fields.pop(name, None)
                else:
                    fields[name] = new
        found.append(Version(fields, not_before, observed_at))
    return found


def possible(history: Sequence[Version], moment: str) -> Sequence[Version]:
    """The states that a tag may have been in at a moment at which its repository was known."""
    reachable = len(history) - 1
    while (history[reachable].not_before or "") >= moment:
        reachable -= 1
    reached = reachable
    while history[reached].observed_at > moment:
        reached -= 1
    return history[reached : reachable + 1]


def doubt(states: Sequence[Version]) -> Doubt:
    """How sure the states of `possible` leave us, were somebody looking."""
    if len(states) == 1:
        return CERTAIN
    return Doubt("uncertain", states[1].not_before, states[-1].observed_at)


def worst(*doubts: Doubt) -> Doubt:
    """The least sure of several; those that are as unsure together."""
    certainty = max((one.certainty for one in doubts), key=_RISING.index)
    equal = [one for one in doubts if one.certainty == certainty]
    starts, ends = [one.start for one in equal], [one.end for one in equal]
    return Doubt(
        certainty,
        None if None in starts else min(filter(None, starts)),
        None if None in ends else max(filter(None, ends)),
    )


class Sight:
    """When a repository's complete listings let us see it."""

    def __init__(self, runs: Iterable[tuple[str, str]]) -> None:
        """Takes the first and the last moment of each run of complete listings, in any order."""
        self._runs: list[tuple[str, str]] = []
        for first, last in sorted(runs):
            if self._runs and first <= self._runs[-1][1]:
                self._runs[-1] = self._runs[-1][0], max(last, self._runs[-1][1])
            else:
                self._runs.append((first, last))
        self._firsts = [first for first, _ in self._runs]

    @property
    def first(self) -> str | None:
        """The first complete listing."""
        return self._runs[0][0] if self._runs else None

    @property
    def last(self) -> str | None:
        """The last complete listing."""
        return self._runs[-1][1] if self._runs else None

    def at(self, moment: str) -> Doubt:
        """Whether somebody was looking at a moment."""
        following = bisect_right(self._firsts, moment)
        if not following:
            return Doubt("unknown", None, self.first)
        seen_until = self._runs[following - 1][1]
        if moment <= seen_until:
            return CERTAIN
        end = self._firsts[following] if following < len(self._firsts) else None
        return Doubt("not observed", seen_until, end)
