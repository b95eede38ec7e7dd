"""Stale listings: a registry's own times that go back, as on a replica that is behind."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.clock import parse_stated_time
from tagsync.database.store import Store
from tagsync.models import Tag
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.polls import counts
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]

JANUARY, FEBRUARY = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
OLD = (Tag("base", "sha256:1", updated=JANUARY), Tag("latest", "sha256:2", updated=JANUARY))
NEW = (
    Tag("base", "sha256:1", updated=JANUARY),
    Tag("latest", "sha256:3", updated=FEBRUARY),
    Tag("v2", "sha256:3", updated=FEBRUARY),
)

PollTags = Callable[..., Poll]


@pytest.fixture
def poll_tags(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> PollTags:
    """Poll a listing of these tags, five minutes after the poll before."""

    def poll_listing(*tags: Tag, after: float = 5, accept: bool = False, **keys: Any) -> Poll:
        clock.advance(minutes=after)
        scripted.then(*tags)
        strict = msgspec.structs.replace(job, **({"agree_after": timedelta(minutes=3)} | keys))
        return poll(strict, store, Options(accept_deletions=accept), clock)

    return poll_listing


def test_replica_that_is_behind_adds_nothing_to_the_history(
    poll_tags: PollTags, query: Query, database: Path
) -> None:
    """If every other listing is an old one, two pushes are exactly two changes."""
    for tags in (OLD, NEW, OLD, NEW, OLD, NEW, OLD):
        outcome = poll_tags(*tags).outcome
    assert outcome == "held"
    assert query("SELECT tag, kind FROM changes WHERE not_before IS NOT NULL ORDER BY id") == [
        ("latest", "updated"),
        ("v2", "added"),
    ]
    assert_history_is_whole(database)


def test_stale_listing_names_the_tag_and_both_times(poll_tags: PollTags, query: Query) -> None:
    """The result says which tag's time went back, and from when to when."""
    poll_tags(*NEW)
    held = poll_tags(*OLD)
    assert (held.outcome, held.reasons) == ("held", ("stale_listing",))
    assert held.detail == (
        f"the registry's time of tag latest goes back from {FEBRUARY} to {JANUARY}, so the listing"
        " may be an old one: if it is right, tagsync sync --accept-deletions records it at once; a"
        " listing after 2026-05-03 12:13:00Z that says the same will be recorded"
    )
    assert query("SELECT outcome, reasons FROM observations ORDER BY id DESC LIMIT 1") == [
        ("held", "stale_listing")
    ]


@pytest.mark.parametrize("agreeing_listings", [1, 2, 3])
def test_stale_listing_is_recorded_if_the_next_one_agrees(
    poll_tags: PollTags, agreeing_listings: int
) -> None:
    """Whatever `agreeing_listings` is, two listings that are far enough apart agree."""
    poll_tags(*NEW)
    keys = {"agreeing_listings": agreeing_listings}
    outcomes = [poll_tags(*OLD, after=after, **keys).outcome for after in (5, 2.9, 0.1)]
    assert outcomes == ["held", "held", "ok"]
    assert counts(poll_tags(*OLD)) == ("ok", 0, 0, 0)


def test_without_agree_after_the_next_stale_listing_is_recorded(poll_tags: PollTags) -> None:
    """With `agree_after` of 0, the very next listing that agrees is recorded."""
    poll_tags(*NEW)
    results = [poll_tags(*OLD, after=0, agree_after=timedelta()) for _ in range(2)]
    assert [result.outcome for result in results] == ["held", "ok"]


def test_stale_listing_is_recorded_at_once_if_accepted(poll_tags: PollTags) -> None:
    """With `accept_deletions`, a stale listing is recorded at once."""
    poll_tags(*NEW)
    assert counts(poll_tags(*OLD, accept=True)) == ("ok", 0, 1, 1)


def test_stale_listings_with_other_times_do_not_agree(poll_tags: PollTags) -> None:
    """Two replicas that are behind by different times do not agree."""
    older = (OLD[0], Tag("latest", "sha256:0", updated="2025-12-01T00:00:00Z"))
    poll_tags(*NEW)
    assert [poll_tags(*tags).outcome for tags in (OLD, older, OLD, OLD)] == [
        "held",
        "held",
        "held",
        "ok",
    ]


def test_both_doubts_have_to_be_removed(poll_tags: PollTags) -> None:
    """A listing that is stale and deletes most tags needs what both rules need."""
    many = [Tag(f"v{number}", f"sha256:{number}", updated=FEBRUARY) for number in range(12)]
    keys = {"agreeing_listings": 3}
    poll_tags(*NEW, *many)
    held = poll_tags(*OLD, **keys)
    assert (held.outcome, held.reasons) == ("held", ("stale_listing", "suspicious_deletion"))
    assert held.detail is not None
    assert "goes back" in held.detail
    assert "would delete" in held.detail
    assert [poll_tags(*OLD, **keys).outcome for _ in range(2)] == ["held", "ok"]


@pytest.mark.parametrize("agreeing_listings", [1, 2])
def test_each_doubt_keeps_its_own_key(poll_tags: PollTags, agreeing_listings: int) -> None:
    """A listing with one of two doubts does not agree with one that has both."""
    many = [Tag(f"v{number}", f"sha256:{number}", updated=FEBRUARY) for number in range(12)]
    keys = {"agreeing_listings": agreeing_listings}
    poll_tags(*NEW, *many)
    assert poll_tags(*OLD, **keys).outcome == "held"
    assert poll_tags(*OLD, *many, **keys).outcome == "held"
    assert poll_tags(*OLD, *many, **keys).outcome == "ok"


@pytest.mark.parametrize(
    ("before", "after", "stale"),
    [
        (FEBRUARY, JANUARY, True),
        (JANUARY, FEBRUARY, False),
        (JANUARY, JANUARY, False),
        ("2026-01-01T00:00:00.1234567891Z", "2026-01-01T00:00:00.123456789Z", True),
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00.50Z", "2026-01-01T00:00:00.5Z", False),
        ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00+02:00", True),
        ("2026-01-01T12:00:00+02:00", "2026-01-01T11:00:00z", False),
        ("2026-01-01 12:00:00Z", "2026-01-01t11:59:59-00:00", True),
        (FEBRUARY, None, False),
        (None, JANUARY, False),
        (FEBRUARY, "", False),
        (FEBRUARY, "2026-01-01", False),
        (FEBRUARY, "2026-01-01T00:00:00", False),
        (FEBRUARY, "Thu, 01 Jan 2026 00:00:00 GMT", False),
        (FEBRUARY, "2026-02-30T00:00:00Z", False),
        (FEBRUARY, "2026-01-01T00:00:00+25:00", False),
        (FEBRUARY, "0000-00-00T00:00:00Z", False),
        ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", True),
        (FEBRUARY, "\uff12026-01-01T00:00:00Z", False),
        ("soon", "2026-01-01T00:00:00Z", False),
    ],
)
def test_which_times_are_evidence(
    poll_tags: PollTags, before: str | None, after: str | None, stale: bool
) -> None:
    """Only two times as RFC 3339 defines them show that a listing is stale."""
    poll_tags(Tag("latest", "sha256:1", updated=before))
    result = poll_tags(Tag("latest", "sha256:2", updated=after))
    assert result.reasons == (("stale_listing",) if stale else ())


def test_long_time_is_truncated_in_the_message(poll_tags: PollTags) -> None:
    """A time with very many digits is compared exactly, and shown in part."""
    digits = "2026-01-01T00:00:00." + "1" * 10_000
    poll_tags(Tag("latest", "sha256:1", updated=f"{digits}2Z"))
    held = poll_tags(Tag("latest", "sha256:2", updated=f"{digits}1Z"))
    assert held.outcome == "held"
    assert len(held.detail or "") < 2_000


def test_text_that_is_no_time_is_none() -> None:
    """A missing time, and a text in another form, have no value."""
    assert parse_stated_time(None) is None
    assert parse_stated_time("2026-01-01T00:00:00Z\n") is None
