"""The columns in which the recorder keeps the state of a repository and its observations."""

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
def polled(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> Callable[..., tuple[str, tuple[str, ...]]]:
    """Poll once, after a minute: these tags, with these attributes of the listing."""

    def run(*tags: str, **attributes: Any) -> tuple[str, tuple[str, ...]]:
        clock.advance(minutes=1)
        scripted.then(*tags)
        listing = scripted.script.pop()
        assert isinstance(listing, Listing)
        scripted.script.append(replace(listing, **attributes))
        result = poll(job, store, clock=clock)
        return result.outcome, result.reasons

    return run


Polled = Callable[..., tuple[str, tuple[str, ...]]]


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
def test_a_failure_is_recorded_as_one_word(
    error: RegistryError, reason: str, job: Job, scripted: Scripted, store: Store, query: Query
) -> None:
    """Each error of a registry has a fixed word in the column reasons, and no source."""
    scripted.script.append(error)
    assert poll(job, store).reasons == (reason,)
    assert query("SELECT reasons, source FROM observations") == [(reason, None)]


def test_the_reasons_of_an_odd_listing_are_sorted_words(polled: Polled, query: Query) -> None:
    """What is odd about a recorded listing is a sorted list of words."""
    polled("a", "b", unverified=("b",), missing=("a",), unfetched="later")
    assert query("SELECT outcome, reasons FROM observations") == [
        ("ok", "unfetched,unresolved,unverified")
    ]


def test_another_set_of_odd_tags_begins_another_observation(polled: Polled, query: Query) -> None:
    """An observation grows as long as its reasons are about the same tags."""
    for unverified in (("a",), ("a",), ("b",)):
        polled("a", "b", unverified=unverified)
    assert query(OBSERVATIONS) == [("ok", "unverified", 2), ("ok", "unverified", 1)]
    keys = query("SELECT count(DISTINCT reason_key) FROM observations")
    assert keys == [(2,)]


def test_another_source_begins_another_observation(polled: Polled, query: Query) -> None:
    """An observation grows as long as the digests come from the same source."""
    for source in ("swr", "swr", "head"):
        polled("a", source=source)
    assert query("SELECT source, polls FROM observations ORDER BY id") == [("swr", 2), ("head", 1)]


def test_an_unchanged_listing_repeats_what_was_odd(
    polled: Polled, job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that is the recorded one again extends its observation, reasons included."""
    polled("a", unverified=("a",), source="swr")
    now = "2026-05-03T12:02:00.000Z"
    scripted.script.append(Unchanged(now, now, "fingerprint"))
    clock.advance(minutes=1)
    poll(job, store, clock=clock)
    assert query("SELECT reasons, source, polls, tags FROM observations") == [
        ("unverified", "swr", 2, 1)
    ]


def test_a_held_repository_that_is_gone_says_both(polled: Polled, query: Query) -> None:
    """A repository that does not exist any more is held for both reasons, then recorded as gone."""
    polled("a")
    assert polled(exists=False) == ("held", ("gone", "suspicious_deletion"))
    assert polled(exists=False) == ("ok", ("gone",))
    assert query(OBSERVATIONS) == [
        ("ok", None, 1),
        ("held", "gone,suspicious_deletion", 1),
        ("ok", "gone", 1),
    ]


def test_an_empty_and_a_missing_repository_agree(polled: Polled) -> None:
    """Listings agree if they delete the same tags, however the registry shows that."""
    polled("a", "b")
    assert polled(exists=False)[0] == "held"
    assert polled()[0] == "ok"


def test_every_complete_listing_increments_the_version(
    polled: Polled, job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """Recorded, held and unchanged listings increment the version; failed polls do not."""
    versions = []
    polled("a")
    versions.append(store.state(REPOSITORY).version)
    polled()  # held
    versions.append(store.state(REPOSITORY).version)
    scripted.script.append(Unreachable("for a moment"))
    poll(job, store, clock=clock)
    versions.append(store.state(REPOSITORY).version)
    polled("a")
    versions.append(store.state(REPOSITORY).version)
    assert versions == [1, 2, 2, 3]


def test_a_dry_run_writes_nothing(job: Job, scripted: Scripted, store: Store, query: Query) -> None:
    """A dry run leaves the database as it is."""
    scripted.then("a")
    assert poll(job, store, Options(dry_run=True)).added == 1
    assert query("SELECT count(*) FROM repositories") == [(0,)]


def test_the_full_name_is_a_column(polled: Polled, query: Query) -> None:
    """SQL finds a repository by its full name."""
    polled("a")
    assert query("SELECT id, namespace FROM repositories WHERE full_name = 'swr/team/api'") == [
        (1, "team")
    ]
