"""What the registries really held, and when: the journal that the history is held against."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

Key = tuple[str, str]
"""A repository's full name, and a tag."""

RESOLUTION = timedelta(milliseconds=1)
"""Of the times in the database, which are rounded down."""

ALWAYS = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


class State(NamedTuple):
    """What a tag is."""

    digest: str
    is_trusted: bool


class Version(NamedTuple):
    """What a tag was for a while; null where it was not there.

    It began between ``earliest`` and ``latest``, the moments before and after the operation.
    """

    earliest: datetime
    latest: datetime
    state: State | None


class Window(NamedTuple):
    """From when to when something is said to have been seen, both included."""

    begins: datetime
    ends: datetime


class Journal:
    """Every version that each tag ever had, in order."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._versions: dict[Key, list[Version]] = defaultdict(
            lambda: [Version(ALWAYS, ALWAYS, None)]
        )

    def during(self, operation: Callable[[], State | None], *keys: Key) -> None:
        """Carries an operation out and notes what it made of the tags."""
        earliest = self._clock()
        state = operation()
        latest = self._clock()
        for key in keys:
            self._versions[key].append(Version(earliest, latest, state))

    def versions(self, key: Key) -> list[Version]:
        """Those of a tag; the first is its absence before everything."""
        return self._versions[key]

    def operations(self) -> int:
        """How many versions there are beyond the first."""
        return sum(len(versions) - 1 for versions in self._versions.values())

    def seen(self, key: Key, state: State | None, start: int, window: Window) -> int | None:
        """The first version from ``start`` on with a state that may have been seen in a window.

        Returns:
            Its place among the versions, or null if there is none.
        """
        for place, version, until in self._spans(key):
            in_time = version.earliest <= window.ends and until >= window.begins
            if place >= start and version.state == state and in_time:
                return place
        return None

    def _spans(self, key: Key) -> Iterator[tuple[int, Version, datetime]]:
        """Each version, and the last moment at which it may have been seen."""
        versions = self._versions[key]
        for place, version in enumerate(versions):
            follows = versions[place + 1 :][:1]
            yield place, version, follows[0].latest if follows else NEVER
