"""The journal of what the registries really held, and when."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

Key = tuple[str, str]
"""A repository's full name, and a tag."""

RESOLUTION = timedelta(milliseconds=1)
"""The resolution of times in the database, which are rounded down."""

ALWAYS = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


class State(NamedTuple):
    """The state of a tag. The digest is empty while a registry has only the tag's name."""

    digest: str
    is_trusted: bool


UNRESOLVED: Final = State("", is_trusted=False)
"""The state of a tag that a registry lists without its manifest."""


class Served(NamedTuple):
    """A stale answer: the state of a whole repository that its registry served.

    Attributes:
        at: The time of the answer.
        tags: The state of each tag.
    """

    at: datetime
    tags: Mapping[str, State]


class Version(NamedTuple):
    """The state of a tag for a while, or `None` while the tag did not exist.

    It began between ``earliest`` and ``latest``, the times before and after the operation.
    """

    earliest: datetime
    latest: datetime
    state: State | None


class Window(NamedTuple):
    """The interval in which a state was observed, both ends included."""

    begins: datetime
    ends: datetime


class Journal:
    """Every version of each tag, in order."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._versions: dict[Key, list[Version]] = defaultdict(
            lambda: [Version(ALWAYS, ALWAYS, None)]
        )

    def during(self, operation: Callable[[], State | None], *keys: Key) -> None:
        """Run an operation and record the state that it gave the tags."""
        earliest = self._clock()
        state = operation()
        latest = self._clock()
        for key in keys:
            self._versions[key].append(Version(earliest, latest, state))

    def versions(self, key: Key) -> list[Version]:
        """Return the versions of a tag; the first is its absence before everything."""
        return self._versions[key]

    def operations(self) -> int:
        """Return the number of versions without the first ones."""
        return sum(len(versions) - 1 for versions in self._versions.values())

    def seen(self, key: Key, state: State | None, start: int, window: Window) -> int | None:
        """Return the first version with this state that may have been seen in the window.

        Returns:
            The position, at least ``start``, or `None` if the tag has no such version.
        """
        for place, version, until in self._spans(key):
            in_time = version.earliest <= window.ends and until >= window.begins
            if place >= start and version.state == state and in_time:
                return place
        return None

    def states(self, key: Key, window: Window) -> set[State | None]:
        """Return every state that a tag may have had in the window; `None` is its absence."""
        return {
            version.state
            for _, version, until in self._spans(key)
            if version.earliest <= window.ends and until >= window.begins
        }

    def _spans(self, key: Key) -> Iterator[tuple[int, Version, datetime]]:
        """Yield each version and the last time at which it may have been seen."""
        versions = self._versions[key]
        for place, version in enumerate(versions):
            follows = versions[place + 1 :][:1]
            yield place, version, follows[0].latest if follows else NEVER
