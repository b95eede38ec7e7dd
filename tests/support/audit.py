"""Name moments and tags, and read the rows of audit queries."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tagsync.clock import timestamp
from tagsync.models import Tag
from tests.support.clock import FakeClock

Row = dict[str, Any]
RunQuery = Callable[..., list[Row]]
PollAt = Callable[..., None]


def at(minutes: float) -> str:
    """Return the moment this many minutes after the tests' clock starts."""
    return timestamp(FakeClock().now + timedelta(minutes=minutes))


def pointing(tag: str, digest: str) -> Tag:
    """Return a tag that points to a digest."""
    return Tag(tag, f"sha256:{digest}")


def tag_states(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Return the state of the tag in each row, and how certain it is."""
    return [
        tuple(
            row[name]
            for name in ("tag", "digest", "present", "certainty", "unsure_from", "unsure_until")
        )
        for row in rows
    ]
