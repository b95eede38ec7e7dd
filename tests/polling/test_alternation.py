"""Alternation: two states of a repository that take turns in its listings."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import EVERYTHING, Listing, Repository, Scope, Tag, Unchanged
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.oci import REPOSITORY, Fake, image, registry_of
from tests.support.polls import counts
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]

JANUARY, FEBRUARY = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"

STATES = {
    "A": (Tag("base", "sha256:1"), Tag("latest", "sha256:2")),
    "B": (Tag("base", "sha256:1"), Tag("latest", "sha256:3"), Tag("v2", "sha256:3")),
    "C": (Tag("base", "sha256:1"), Tag("latest", "sha256:4")),
    "new": (Tag("base", "sha256:1", updated=FEBRUARY), Tag("x", "sha256:9", updated=FEBRUARY)),
    "old": (Tag("base", "sha256:0", updated=JANUARY),),
    "push": (Tag("base", "sha256:8", updated="2026-03-01T00:00:00Z"),),
    # The same digests as A, but another field.
    "a": (Tag("base", "sha256:1"), Tag("latest", "sha256:2", scanned=True)),
    "none": (),
    "only x": (Tag("x", "sha256:9"),),
    "older": (Tag("base", "sha256:00", updated="2025-01-01T00:00:00Z"),),
}
"""The states of the repository. `old` and `older` are stale after `new`."""


class Fingerprinted(Scripted):
    """A scripted registry that says if a listing has the fingerprint that is known."""

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        listing = super().list_tags(repository, known, scope)
        if isinstance(listing, Listing) and known is not None and listing.fingerprint == known:
            return Unchanged(listing.started_at, listing.finished_at, known)
        return listing


@pytest.fixture
def scripted(clock: FakeClock) -> Scripted:
    return Fingerprinted(clock)


class Turns:
    """Polls states in turn, five minutes apart, and says which listings alternate."""

    def __init__(self, job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> None:
        self._job, self._scripted, self._store, self._clock = job, scripted, store, clock
        self.results: list[Poll] = []

    def __call__(self, *states: str, after: float = 5, **keys: Any) -> list[bool]:
        """Return for each state whether its listing was part of an alternation."""
        return ["alternating" in self.poll(state, after, **keys).reasons for state in states]

    def poll(self, state: str, after: float = 5, *, accept: bool = False, **keys: Any) -> Poll:
        self._clock.advance(minutes=after)
        if state == "fails":
            self._scripted.script.append(Unreachable("for a moment"))
        else:
            self._scripted.then(*STATES[state])
            listing: Any = self._scripted.script.pop()
            fingerprint = None if state == "none" else state
            self._scripted.script.append(msgspec.structs.replace(listing, fingerprint=fingerprint))
        strict = msgspec.structs.replace(self._job, **keys)
        options = Options(accept_deletions=accept)
        self.results.append(poll(strict, self._store, options, self._clock))
        return self.results[-1]


@pytest.fixture
def turns(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Turns:
    strict = msgspec.structs.replace(job, agree_after=timedelta(hours=10))
    return Turns(strict, scripted, store, clock)


def phases(logged: Events) -> list[tuple[str, list[str]]]:
    return [
        (entry["phase"], entry["tags"])
        for entry in logged
        if entry["event"] == "listings.alternating"
    ]


# --- recorded states ------------------------------------------------------------------------------


def test_third_flip_begins_an_alternation(
    turns: Turns, query: Query, logged: Events, database: Path
) -> None:
    """The listing of the third flip says it, and so do those after it; it is logged once."""
    assert turns(*"ABABABA") == [False, False, False, True, True, True, True]
    assert phases(logged) == [("began", ["latest", "v2"])]
    assert turns.results[3].detail == (
        "two states of the repository alternate, which differ in latest, v2"
    )
    assert query("SELECT reasons, polls FROM observations ORDER BY id") == [
        (None, 3),
        ("alternating", 4),
    ]
    # Every flip is what the registry said, and is recorded.
    assert query("SELECT count(*) FROM changes WHERE not_before IS NOT NULL") == [(12,)]
    assert_history_is_whole(database)


def test_third_state_ends_an_alternation(turns: Turns, query: Query, logged: Events) -> None:
    """A listing in another state ends it, and it is logged once."""
    assert turns(*"ABABCC") == [False] * 3 + [True, False, False]
    assert phases(logged) == [("began", ["latest", "v2"]), ("ended", ["latest", "v2"])]
    assert query("SELECT reasons, polls FROM observations ORDER BY id DESC LIMIT 1") == [(None, 2)]


def test_state_that_lasts_ends_an_alternation(turns: Turns, logged: Events) -> None:
    """An alternation ends if no flip was seen for an hour, and begins with the third one again."""
    turns(*"ABAB")
    assert turns(*["B"] * 13) == [True] * 12 + [False]
    assert phases(logged) == [("began", ["latest", "v2"]), ("ended", ["latest", "v2"])]
    assert turns(*"BABAB") == [False] * 3 + [True] * 2
    assert len(phases(logged)) == 3


def test_twelve_intervals_may_be_longer_than_an_hour(turns: Turns) -> None:
    """For a repository that is polled rarely, twelve intervals end an alternation."""
    keys = {"interval": timedelta(hours=6)}
    assert turns(*"ABAB", after=360, **keys) == [False] * 3 + [True]
    assert turns(*["B"] * 13, after=360, **keys) == [True] * 12 + [False]


@pytest.mark.parametrize(
    "states",
    [
        "ABA",  # moved once and back
        "ABAA",
        "ABAC",
        "ABCABC",  # three states
        "ABCB",
        "AaAaAa",  # no tag is added, deleted or moved
        "BCBAC",
        "ABACAB",
    ],
)
def test_other_sequences_do_not_alternate(turns: Turns, states: str, logged: Events) -> None:
    """A tag that is moved back once, and one that goes through several states, do not count."""
    assert not any(turns(*states))
    assert phases(logged) == []


def test_tag_that_always_moves_to_a_new_digest_does_not_alternate(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A build that moves `latest` to a new digest each time does not alternate."""
    for number in range(8):
        clock.advance(minutes=5)
        scripted.then(Tag("latest", f"sha256:{number}"))
        assert poll(job, store, clock=clock).reasons == ()


def test_first_listing_is_no_flip(turns: Turns) -> None:
    """What was there at the first listing was not added by it."""
    turns("only x", "none", "only x", "none", "only x", agreeing_listings=1)
    assert ["alternating" in result.reasons for result in turns.results] == [
        *[False] * 3,
        True,
        True,
    ]


def test_rare_flips_do_not_alternate(turns: Turns) -> None:
    """A tag that is moved back and forth with hours in between does not alternate."""
    assert not any(turns(*"ABABAB", after=61))


def test_failed_polls_and_other_fields_are_no_flips(turns: Turns) -> None:
    """Failed polls, and fields that leave the digests alone, neither begin nor end it."""
    assert turns("A", "B", "fails", "A", "a", "B", "fails", "A", "a", "a") == [
        *[False] * 5,
        *(True, False, True, True, True),
    ]


def test_digest_that_becomes_unknown_is_no_flip(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A configuration that stops and starts resolving a tag does not alternate."""
    for _ in range(4):
        for digest in ("sha256:1", None):
            clock.advance(minutes=1)
            scripted.then(Tag("v1", digest))
            assert poll(job, store, clock=clock).reasons == ()


def test_digest_that_was_unknown_in_between_hides_no_other_state(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A move that repeats is not enough: the move in between has to undo it."""
    for digest in ("1", "2", None, "3", "4", None, "1", "2"):
        clock.advance(minutes=1)
        scripted.then(Tag("v1", digest and f"sha256:{digest}"))
        assert poll(job, store, clock=clock).reasons == ()


def test_many_tags_alternate(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events
) -> None:
    """All tags of a listing have to flip together, and the log names a few of them."""
    names = [f"v{number:02}" for number in range(9)]
    reasons = []
    for state in "0101":
        clock.advance(minutes=1)
        scripted.then(*(Tag(name, f"sha256:{state}{name}") for name in names))
        reasons.append(poll(job, store, clock=clock).reasons)
    assert reasons == [(), (), (), ("alternating",)]
    assert phases(logged) == [("began", names[:5])]
    # One tag alone makes a third state.
    for state in "0101":
        clock.advance(minutes=1)
        scripted.then(
            *(Tag(name, f"sha256:{state if name == 'v00' else 1}{name}") for name in names)
        )
        reasons.append(poll(job, store, clock=clock).reasons)
    assert reasons[4:] == [(), (), ("alternating",), ("alternating",)]


# --- held states ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("recorded", "held"), [("new", "old"), ("A", "none")])
def test_held_state_alternates_with_the_recorded_one(
    turns: Turns, query: Query, logged: Events, recorded: str, held: str
) -> None:
    """A held state that comes back after the recorded one alternates, and nothing is recorded."""
    names = ["base"] if held == "old" else ["base", "latest"]
    assert turns(*[recorded, held] * 3) == [False, False, False, True, True, True]
    assert [result.outcome for result in turns.results] == ["ok", "held"] * 3
    assert phases(logged) == [("began", names)]
    assert query("SELECT count(*) FROM changes WHERE not_before IS NOT NULL") == [(0,)]
    doubt = "stale_listing" if held == "old" else "suspicious_deletion"
    assert query("SELECT reasons FROM observations ORDER BY id") == [
        (None,),
        (doubt,),
        (None,),
        (f"alternating,{doubt}",),
        ("alternating",),
        (f"alternating,{doubt}",),
    ]
    assert turns(*[recorded] * 13) == [True] * 13
    assert turns(recorded) == [False]
    assert phases(logged) == [("began", names), ("ended", names)]


def test_held_state_that_lasts_ends_an_alternation(
    turns: Turns, query: Query, logged: Events
) -> None:
    """A held state ends it, too, if it lasts; the recorded state afterwards says nothing."""
    turns("new", "old", "new", "old", "new", "old")
    assert turns(*["old"] * 13) == [True] * 12 + [False]
    assert turns("new", "new") == [False, False]
    assert query("SELECT reasons, polls FROM observations ORDER BY id DESC LIMIT 1") == [(None, 2)]
    assert [phase for phase, _ in phases(logged)] == ["began", "ended"]


def test_recorded_change_before_an_alternation_does_not_end_it(turns: Turns) -> None:
    """The last flip counts, whether it was recorded or began to be held."""
    turns("A", "new", *["old", "new"] * 7)
    assert turns(*["new"] * 12) == [True] * 12


def test_two_held_states_alternate(turns: Turns) -> None:
    """Both states may be held, if each of them is held for its own doubts."""
    assert turns("new", "old", "older", "old", "older") == [*[False] * 4, True]


@pytest.mark.parametrize(
    "states",
    [
        ["new", *["old"] * 14, "new", "old"],
        ["new", "old", *["new"] * 14, "old"],
        ["new", "old", "older", "old", "new", "old"],
    ],
)
def test_other_held_sequences_do_not_alternate(turns: Turns, states: list[str]) -> None:
    """A state that lasts between two flips, and a third state, are no alternation."""
    assert not any(turns(*states))


def test_push_ends_an_alternation(turns: Turns, logged: Events) -> None:
    """A recorded change is a third state."""
    assert turns("new", "old", "new", "old", "push", "push") == [*[False] * 3, True, False, False]
    assert [phase for phase, _ in phases(logged)] == ["began", "ended"]


def test_agreement_counts_within_an_alternation(turns: Turns) -> None:
    """Alternating listings that are held agree as others do."""
    turns("new", "old", "new")
    held, agreed = (turns.poll("old", agree_after=timedelta(minutes=3)) for _ in range(2))
    assert (held.outcome, held.reasons) == ("held", ("alternating", "stale_listing"))
    assert counts(agreed) == ("ok", 0, 1, 1)


def test_accepted_listing_ends_an_alternation(turns: Turns) -> None:
    """With `accept_deletions`, the other state is recorded, and the alternation is over."""
    turns("new", "old", "new", "old")
    accepted = turns.poll("old", accept=True)
    assert (accepted.outcome, accepted.reasons) == ("ok", ())


# --- across processes and polls -------------------------------------------------------------------


def test_restart_changes_nothing(
    job: Job, scripted: Scripted, clock: FakeClock, database: Path, logged: Events
) -> None:
    """The alternation is in the database: a process for each poll sees the same."""
    alternating = []
    for state in "ABABABCC":
        with Store.open(database) as store:
            alternating += Turns(job, scripted, store, clock)(state)
    assert alternating == [False] * 3 + [True] * 3 + [False] * 2
    assert [phase for phase, _ in phases(logged)] == ["began", "ended"]


def test_dry_run_sees_the_alternation(
    turns: Turns, job: Job, store: Store, clock: FakeClock, scripted: Scripted, query: Query
) -> None:
    """A dry run has the same reasons and records nothing."""
    turns(*"ABA")
    before = query("SELECT * FROM observations")
    scripted.then(*STATES["B"])
    result = poll(job, store, Options(dry_run=True), clock)
    assert result.reasons == ("alternating",)
    assert query("SELECT * FROM observations") == before


def test_store_says_which_repositories_alternate(turns: Turns, store: Store) -> None:
    """The daemon reads at its start which repositories alternate."""
    alternating = []
    for state in ("A", "B", "A", "B", "fails", "C"):
        turns(state)
        (fresh,) = store.freshness().values()
        alternating.append(fresh.alternating)
    assert alternating == [False, False, False, True, True, False]


@pytest.fixture
def flipping(clock: FakeClock) -> Iterator[tuple[Fake, Job]]:
    fake = Fake({"v1": image("one"), "latest": image("one")})
    with closing(registry_of(fake, clock=clock)) as registry:
        yield fake, Job(Repository("reg", REPOSITORY), registry, timedelta(minutes=5))


def test_registry_that_flips_is_named(
    flipping: tuple[Fake, Job], store: Store, clock: FakeClock, query: Query, logged: Events
) -> None:
    """Two OCI replicas that disagree alternate, until they agree for an hour."""
    fake, job = flipping
    replicas = [dict(fake.tags), {"v1": image("one"), "latest": image("two")}]
    seen = []
    for turn in range(6):
        clock.advance(minutes=5)
        fake.tags = replicas[turn % 2]
        seen.append(poll(job, store, clock=clock).reasons)
    assert seen == [()] * 3 + [("alternating",)] * 3
    for _ in range(13):
        clock.advance(minutes=5)
        seen.append(poll(job, store, clock=clock).reasons)
    assert seen[6:] == [("alternating",)] * 12 + [()]
    fake.requests.clear()
    clock.advance(minutes=5)
    assert poll(job, store, clock=clock).reasons == ()
    assert phases(logged) == [("began", ["latest"]), ("ended", ["latest"])]
    assert query("SELECT count(*) FROM change_log WHERE moved") == [(5,)]
