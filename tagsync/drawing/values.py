"""The values that drawings are made of.

All times are datetimes with a time zone. `msgspec.convert` makes these values from rows whose times
are texts as the database stores them. A ``href`` is the relative URL of a page about the value, or
None to draw it without a link. ``words`` is a text that the tooltip shows after the drawing's own.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

Kind = Literal["moved", "added", "updated", "deleted"]
"""The kind of a change in `Day`. A move is an update to another digest, and counted only as one."""


class Range(msgspec.Struct, frozen=True):
    """The time that a drawing shows, from its left end to its right end.

    A range without any length is drawn as one second.

    Raises:
        ValueError: If ``end`` is before ``start``.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse a range that ends before it starts."""
        if self.end < self.start:
            raise ValueError(f"a range from {self.start} cannot end at {self.end}")

    @property
    def length(self) -> timedelta:
        """The length of the range. One second if it has none."""
        return self.end - self.start or timedelta(seconds=1)

    def position(self, moment: datetime) -> float:
        """Return where a moment is, in percent of the width: from 0 to 100.

        Moments before the range are at 0, and moments after it at 100.
        """
        if moment <= self.start:
            return 0.0
        return min(100 * ((moment - self.start) / self.length), 100.0)

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Return whether any moment from ``start`` to ``end`` is in the range."""
        return start <= self.end and end >= self.start


class Interval(msgspec.Struct, frozen=True):
    """A time in which a tag pointed to one digest: a row of the view ``tag_history``.

    Attributes:
        digest: The digest. None if the tag was listed but not resolved.
        not_before: The interval began after this time. None if the tag was there when the
            repository was first listed.
        valid_from: The interval began no later than this time.
        still_at: The last time at which the tag is known to have pointed to the digest. None if no
            time after ``valid_from`` is known.
        valid_to: The interval ended no later than this time. None if it has not ended.
    """

    digest: str | None
    not_before: datetime | None
    valid_from: datetime
    still_at: datetime | None
    valid_to: datetime | None
    href: str | None = None
    words: str = ""

    @property
    def known_to(self) -> datetime:
        """The end of the time in which the tag is known to have pointed to the digest."""
        still_at = self.still_at
        # A listing states the time of its start and of its end, so the last one may be earlier.
        return self.valid_from if still_at is None or still_at < self.valid_from else still_at

    @property
    def possible_to(self) -> datetime:
        """The end of the time in which the tag may have pointed to the digest."""
        known_to, valid_to = self.known_to, self.valid_to
        return known_to if valid_to is None or valid_to < known_to else valid_to


class Deletion(msgspec.Struct, frozen=True):
    """A deletion of a tag.

    Attributes:
        not_before: The tag was deleted after this time. None if no such time is known.
        observed_at: The tag was deleted no later than this time.
    """

    not_before: datetime | None
    observed_at: datetime
    href: str | None = None
    words: str = ""


class Lane(msgspec.Struct, frozen=True):
    """A tag's row in a drawing.

    Attributes:
        name: The name of the tag, whole. The drawing shortens it if it is too long.
        intervals: The digests that the tag pointed to, in time order.
        deletions: In time order.
    """

    name: str
    intervals: tuple[Interval, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    href: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """A gap in coverage, or a time in which tagsync did not watch the repository yet.

    Attributes:
        watched: False if tagsync did not watch the repository yet, so that nothing is missing.
    """

    start: datetime
    end: datetime
    words: str = ""
    watched: bool = True


class Block(msgspec.Struct, frozen=True):
    """The coverage of a slice of time. All slices of a drawing have the same length.

    Attributes:
        share: The part of the slice that complete listings cover, from 0 to 1. None if tagsync did
            not watch yet.
    """

    share: float | None
    words: str = ""


class Strip(msgspec.Struct, frozen=True):
    """The coverage of a registry or a repository.

    Attributes:
        name: The name of the registry or the repository, whole.
        blocks: The slices of the drawing's range, in time order.
        note: A short text at the right end of the row, such as the percentage.
    """

    name: str
    blocks: tuple[Block, ...]
    href: str | None = None
    note: str = ""


class Day(msgspec.Struct, frozen=True):
    """The changes of one day, in UTC.

    Attributes:
        day: The day.
        moved: The number of updates to another digest.
        added: The number of tags that were added.
        updated: The number of updates that are not moves.
        deleted: The number of tags that were deleted.
    """

    day: date
    moved: int = 0
    added: int = 0
    updated: int = 0
    deleted: int = 0
    href: str | None = None

    @property
    def total(self) -> int:
        """The number of all changes of the day."""
        return self.moved + self.added + self.updated + self.deleted


class Layer(msgspec.Struct, frozen=True):
    """A layer of an image.

    Attributes:
        digest: The digest of the layer.
        size: Bytes. None if the manifest does not state it.
        note: A short text after the digest, such as how many other images share the layer.
    """

    digest: str
    size: int | None
    href: str | None = None
    note: str = ""


def show_moment(moment: datetime) -> str:
    """Return a time as tooltips show it, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def show_minute(moment: datetime) -> str:
    """Return a time as the ends of an axis show it, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
