"""Pure: the range of time that a chart shows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from tagsync.clock import timestamp

SPANS: Final[Mapping[str, timedelta | None]] = MappingProxyType(
    {
        "1d": timedelta(days=1),
        "7d": timedelta(days=7),
        "30d": timedelta(days=30),
        "90d": timedelta(days=90),
        "1y": timedelta(days=365),
        "all": None,
    }
)
"""The ranges to choose from, which end now. None means everything."""


class Range(msgspec.Struct, frozen=True):
    """A range of time. Times are texts, as `tagsync.clock.timestamp` writes them.

    Attributes:
        start: The start.
        end: The end.
        shortened: Whether the range is only the newest part of the one that was asked for, because
            the whole has more rows than a chart may read.
    """

    start: str
    end: str
    shortened: bool = False

    def shortened_to(self, start: str) -> "Range":
        """Return the part of the range from a later start on."""
        return self if start <= self.start else Range(start, self.end, shortened=True)


def latest(span: str, now: datetime, first: str | None) -> Range:
    """Return the range that ends now.

    Args:
        span: A key of `SPANS`.
        now: The current time.
        first: The time of the first record, at which ``all`` begins. None if there is none: then
            ``all`` is the last day.
    """
    length = SPANS[span]
    end = timestamp(now)
    if length is None:
        return Range(min(first or timestamp(now - timedelta(days=1)), end), end)
    return Range(timestamp(now - length), end)
