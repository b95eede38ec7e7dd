"""Doubts: reasons not to believe a listing at once, and when listings agree. Pure.

A **suspicious deletion** would delete every stored tag, or more than half of them and at least ten.
The registry may have been emptied, the credential may have lost a permission, or a proxy may have
answered instead of the registry. A repository that no longer exists is a listing without tags.

A **stale listing** has a tag whose time of the last push, as the registry states it, is before the
stored one. The listing may come from a replica that is behind. A time that is missing, or that does
not have the form of RFC 3339, shows nothing.

A listing with doubts is recorded if enough consecutive listings, this one included, **agree**: they
have the same ``reason_key``. The first of them has to be old enough:

===================  =====================  ======================================
doubt                listings that agree    the first of them is at least so old
===================  =====================  ======================================
suspicious deletion  ``agreeing_listings``  (``agreeing_listings`` - 1) * ``agree_after``
stale listing        2                      ``agree_after``
===================  =====================  ======================================

If a listing has both doubts, both rows have to hold. Failed polls between two listings are ignored.
If the clock was set back or has caught up between two listings, the time between them is unknown,
and the age is counted from the later one.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from tagsync.clock import parse_stated_time, parse_timestamp, timestamp
from tagsync.database.outcomes import Reason, fingerprint_of
from tagsync.database.past import Run
from tagsync.escaping import truncate
from tagsync.models import Listing, Tag

_FEW: Final = 10
"""A smaller number of deletions is suspicious only if no stored tag remains."""

_STALE_AGREES: Final = 2
"""Number of listings that have to agree before a stale listing is recorded."""


class Rules(msgspec.Struct, frozen=True):
    """When listings agree.

    Attributes:
        agreeing_listings: How many consecutive listings have to agree before a suspicious deletion
            is recorded.
        agree_after: How far apart these listings have to be.
        interval: Planned time between two polls.
        accept: Whether to record every listing, whatever the doubts.
    """

    agreeing_listings: int = 2
    agree_after: timedelta = timedelta()
    interval: timedelta = timedelta(minutes=5)
    accept: bool = False


class Doubt(NamedTuple):
    """A reason not to believe a listing at once.

    Attributes:
        reason: The word for the doubt.
        tags: Names of the tags that it is about, sorted.
        about: Texts that another listing has to share with this one to agree.
        sentence: The doubt in a sentence.
    """

    reason: Reason
    tags: Sequence[str]
    about: Sequence[str]
    sentence: str


class Agreement(NamedTuple):
    """How far listings agree.

    Attributes:
        missing: How many more listings have to agree. 0 if the listing may be recorded.
        counts_from: A listing that begins earlier than this time will not be recorded.
    """

    missing: int
    counts_from: datetime


def doubts_about(
    listing: Listing, stored: Mapping[str, Tag], deleted: Sequence[str]
) -> list[Doubt]:
    """Return the doubts about a listing, sorted by their words.

    Args:
        listing: The listing that was read.
        stored: The stored tags of the repository, by name.
        deleted: The names of the stored tags that the listing deletes, sorted.
    """
    doubts = []
    if back := sorted(_gone_back(listing.tags, stored)):
        about = [text for name in back for text in (name, listing.tags[name].updated or "")]
        sentence = _describe_stale(back, stored, listing.tags)
        doubts.append(Doubt("stale_listing", back, about, sentence))
    if is_suspicious(len(stored), len(deleted)):
        sentence = _describe_deletion(len(stored), deleted)
        doubts.append(Doubt("suspicious_deletion", deleted, deleted, sentence))
    return doubts


def is_suspicious(stored: int, deleted: int) -> bool:
    """Return whether so many tags are missing that an error is the likelier reason.

    Args:
        stored: Number of stored tags.
        deleted: Number of stored tags that the listing lacks.
    """
    return deleted > 0 and (deleted == stored or (deleted >= _FEW and 2 * deleted > stored))


def key_of(doubts: Sequence[Doubt]) -> str:
    """Return the fingerprint that listings with these doubts share if they agree."""
    if [doubt.reason for doubt in doubts] == ["suspicious_deletion"]:
        return fingerprint_of(*doubts[0].about)
    return fingerprint_of(*(text for each in doubts for text in (each.reason, *each.about)))


def agreement(
    doubts: Sequence[Doubt], listing: Listing, newest: Run | None, rules: Rules, *, behind: bool
) -> Agreement:
    """Return how far a listing and the listings before it agree.

    Args:
        doubts: The doubts about the listing.
        listing: The listing that was read.
        newest: The newest listings before this one. None if there are none.
        rules: When listings agree.
        behind: Whether the clock was behind the record when the listing was read.
    """
    stale = any(doubt.reason == "stale_listing" for doubt in doubts)
    suspicious = any(doubt.reason == "suspicious_deletion" for doubt in doubts)
    needed = max(stale * _STALE_AGREES, suspicious * rules.agreeing_listings)
    age = (needed - 1) * rules.agree_after
    agreeing, first_at = 1, listing.finished_at
    if newest is not None and newest.held and newest.reason_key == key_of(doubts):
        agreeing += newest.polls
        if newest.clock_behind == behind:
            first_at = newest.counted_from
    due = parse_timestamp(first_at) + age
    began = parse_timestamp(min(listing.started_at, listing.finished_at))
    if agreeing >= needed and (not age or began >= due):
        return Agreement(0, began)
    return Agreement(max(needed - agreeing, 1), max(due, parse_timestamp(listing.finished_at)))


def forecast(agreed: Agreement, finished_at: str) -> str:
    """Return a sentence about when a held listing will be recorded.

    Args:
        agreed: How far listings agree.
        finished_at: When the held listing was read.
    """
    counts_from = agreed.counts_from
    has_to_wait = counts_from > parse_timestamp(finished_at)
    second = counts_from.replace(microsecond=0)
    second += timedelta(seconds=1) if counts_from.microsecond else timedelta()
    at = timestamp(second).replace("T", " ").replace(".000Z", "Z")
    if agreed.missing == 1:
        following = f"a listing after {at}" if has_to_wait else "the next listing"
        return f"{following} that says the same will be recorded"
    condition = f"if {agreed.missing} more listings say the same"
    return f"it will be recorded {condition}{f', the last one after {at}' if has_to_wait else ''}"


def _gone_back(listed: Mapping[str, Tag], stored: Mapping[str, Tag]) -> Iterator[str]:
    """Yield the stored tags whose time, as the registry states it, has gone back."""
    for name, tag in listed.items():
        known = stored.get(name)
        if known is None or known.updated == tag.updated:
            continue
        before, after = parse_stated_time(known.updated), parse_stated_time(tag.updated)
        if before is not None and after is not None and after < before:
            yield name


def _describe_stale(
    back: Sequence[str], stored: Mapping[str, Tag], listed: Mapping[str, Tag]
) -> str:
    name = back[0]
    before, after = stored[name].updated or "", listed[name].updated or ""
    more = f" (and those of {len(back) - 1} more tags)" if len(back) > 1 else ""
    return (
        f"the registry's time of tag {truncate(name)} goes back from {truncate(before)} to"
        f" {truncate(after)}{more}, so the listing may be an old one: if it is right, tagsync sync"
        " --accept-deletions records it at once"
    )


def _describe_deletion(stored: int, deleted: Sequence[str]) -> str:
    return (
        f"the listing would delete {len(deleted)} of {stored} tags"
        f" (set {fingerprint_of(*deleted)}): if these deletions are intended, tagsync sync"
        " --accept-deletions records them at once"
    )
