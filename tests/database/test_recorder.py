"""The recorder: the columns with the state of a repository and its observations."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tagsync.database.store import Store
from tagsync.errors import (
    Busy,
    EndpointNotFound,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    NotFound,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    TimedOut,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from tagsync.models import Listing, Unchanged
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
OBSERVATIONS = "SELECT outcome, reasons, polls FROM observations ORDER BY id"


@pytest.fixture
def poll_listing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> Callable[..., tuple[str, tuple[str, ...]]]:
    """Poll after a minute; the listing has these tags and attributes."""

    def run(*tags: str, **attributes: Any) -> tuple[str, tuple[str, ...]]:
        clock.advance(minutes=1)
        scripted.then(*tags)
        listing = scripted.script.pop()
        assert isinstance(listing, Listing)
        scripted.script.append(replace(listing, **attributes))
        result = poll(job, store, clock=clock)
        return result.outcome, result.reasons

    return run


PollListing = Callable[..., tuple[str, tuple[str, ...]]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unreachable("x"), "unreachable"),
        (Untrusted("x"), "unreachable"),
        (Busy("x"), "unreachable"),
        (TimedOut("x"), "timeout"),
        (Throttled("x"), "throttled"),
        (Unauthorized("x"), "login_refused"),
        (Forbidden("x"), "refused"),
        (NotFound("x"), "not_found"),
        (EndpointNotFound("x"), "not_found"),
        (MalformedResponse("x"), "malformed"),
        (ResponseTooLarge("x"), "too_large"),
        (InconsistentListing("x"), "inconsistent"),
    ],
)
def test_failure_is_recorded_as_one_word(
    error: RegistryError, reason: str, job: Job, scripted: Scripted, store: Store, query: Query
) -> None:
    """Each registry error is recorded as a fixed word in `reasons`, and has no source."""
    scripted.script.append(error)
    assert poll(job, store).reasons == (reason,)
    assert query("SELECT reasons, source FROM observations") == [(reason, None)]


def test_reasons_are_sorted_words(poll_listing: PollListing, query: Query) -> None:
    """The reasons of a recorded listing are a sorted list of fixed words."""
    poll_listing("a", "b", unverified=("b",), missing=("a",), unfetched="later")
    assert query("SELECT outcome, reasons FROM observations") == [
        ("ok", "unfetched,unresolved,unverified")
    ]


def test_reason_about_other_tags_begins_an_observation(
    poll_listing: PollListing, query: Query
) -> None:
    """An observation grows only while its reasons are about the same tags."""
    for unverified in (("a",), ("a",), ("b",)):
        poll_listing("a", "b", unverified=unverified)
    assert query(OBSERVATIONS) == [("ok", "unverified", 2), ("ok", "unverified", 1)]
    keys = query("SELECT count(DISTINCT reason_key) FROM observations")
    assert keys == [(2,)]


def test_other_source_begins_an_observation(poll_listing: PollListing, query: Query) -> None:
    """An observation grows only while its digests come from the same source."""
    for source in ("swr", "swr", "head"):
        poll_listing("a", source=source)
    assert query("SELECT source, polls FROM observations ORDER BY id") == [("swr", 2), ("head", 1)]


def test_unchanged_listing_keeps_the_reasons(
    poll_listing: PollListing,
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
) -> None:
    """An unchanged listing extends the observation and keeps its reasons."""
    poll_listing("a", unverified=("a",), source="swr")
    now = "2026-05-03T12:02:00.000Z"
    scripted.script.append(Unchanged(now, now, "fingerprint"))
    clock.advance(minutes=1)
    poll(job, store, clock=clock)
    assert query("SELECT reasons, source, polls, tags FROM observations") == [
        ("unverified", "swr", 2, 1)
    ]


def test_gone_repository_is_held_for_both_reasons(poll_listing: PollListing, query: Query) -> None:
    """A missing repository is held as gone and suspicious, then recorded as gone."""
    poll_listing("a")
    assert poll_listing(exists=False) == ("held", ("gone", "suspicious_deletion"))
    assert poll_listing(exists=False) == ("ok", ("gone",))
    assert query(OBSERVATIONS) == [
        ("ok", None, 1),
        ("held", "gone,suspicious_deletion", 1),
        ("ok", "gone", 1),
    ]


def test_empty_and_missing_repository_agree(poll_listing: PollListing) -> None:
    """Two listings agree if they delete the same tags, whether empty or missing."""
    poll_listing("a", "b")
    assert poll_listing(exists=False)[0] == "held"
    assert poll_listing()[0] == "ok"


def test_complete_listing_increments_the_version(
    poll_listing: PollListing, job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A complete listing increments the version, even a held one; a failure does not."""
    versions = []
    poll_listing("a")
    versions.append(store.state(REPOSITORY).version)
    poll_listing()  # held
    versions.append(store.state(REPOSITORY).version)
    scripted.script.append(Unreachable("for a moment"))
    poll(job, store, clock=clock)
    versions.append(store.state(REPOSITORY).version)
    poll_listing("a")
    versions.append(store.state(REPOSITORY).version)
    assert versions == [1, 2, 2, 3]


def test_dry_run_writes_nothing(job: Job, scripted: Scripted, store: Store, query: Query) -> None:
    """A dry run leaves the database unchanged."""
    scripted.then("a")
    assert poll(job, store, Options(dry_run=True)).added == 1
    assert query("SELECT count(*) FROM repositories") == [(0,)]


def test_full_name_is_a_column(poll_listing: PollListing, query: Query) -> None:
    """SQL finds a repository by its full name."""
    poll_listing("a")
    assert query("SELECT id, namespace FROM repositories WHERE full_name = 'swr/team/api'") == [
        (1, "team")
    ]


def test_a_reworded_error_does_not_split_an_observation(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Polls that fail in the same way are one observation, however the error is worded."""
    for page in range(3):
        scripted.script.append(InconsistentListing(f"page {page} repeats a tag"))
        poll(job, store, clock=clock)
        clock.advance(minutes=1)
    scripted.script.append(MalformedResponse("page 3 is not JSON"))
    poll(job, store, clock=clock)
    assert query(OBSERVATIONS) == [("failed", "inconsistent", 3), ("failed", "malformed", 1)]
