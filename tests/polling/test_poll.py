"""What a poll may record, and when: the promises on which the history rests."""

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
import structlog

from tagsync.clock import timestamp
from tagsync.database.outcomes import Accepted, Failed, PendingLog
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import (
    Busy,
    DatabaseLocked,
    RepositoryNotFound,
    StoreError,
    Unreachable,
)
from tagsync.models import (
    EVERYTHING,
    Change,
    Image,
    Listing,
    Repository,
    Scope,
    Tag,
    Unchanged,
    Watch,
)
from tagsync.polling.discovery import discover
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tagsync.polling.run_once import run_once
from tagsync.registries import Registry
from tests.support.calls import raised_by
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]
TEN = [f"v{number}" for number in range(10)]


class Overtaken:
    """A registry that answers, and another poll is over before the answer is recorded."""

    def __init__(self, registry: Registry, other: Callable[[], Poll]) -> None:
        self._registry = registry
        self._other = other
        self.meanwhile: list[str] = []

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        answer = self._registry.list_tags(repository, known, scope)
        self.meanwhile.append(self._other().outcome)
        return answer

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        return self._registry.list_repositories(globs, shared=shared)

    def close(self) -> None:
        self._registry.close()


class Outrun(Store):
    """A store in which another poll is over between a decision and what it decides."""

    def overtake(self, other: Callable[[], object]) -> None:
        self._others = [other]

    def record(self, *arguments: Any) -> PendingLog | None:
        while self._others:
            self._others.pop()()
        return super().record(*arguments)


def counts(result: Poll) -> tuple[str, int, int, int]:
    return result.outcome, result.added, result.updated, result.deleted


def events(logged: Events, prefix: str) -> list[str]:
    return [entry["event"] for entry in logged if entry["event"].startswith(prefix)]


def test_2500_tags_and_then_one_of_each_change(
    connect: Callable[..., Registry], store: Store, database: Path, query: Query, logged: Events
) -> None:
    """A large repository is mirrored exactly, an idle sync records nothing, each change once."""
    with Emulator() as swr:
        for number in range(2500):
            swr.push("team/api", f"v{number}", f"build {number}")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        assert counts(poll(job, store)) == ("ok", 2500, 0, 0)
        assert query("SELECT count(*) FROM tags") == [(2500,)]
        assert events(logged, "tag.") == []
        assert events(logged, "repository.") == ["repository.baselined"]

        before = query("SELECT count(*), max(id) FROM changes")
        assert counts(poll(job, store)) == ("ok", 0, 0, 0)
        assert query("SELECT count(*), max(id) FROM changes") == before

        swr.push("team/api", "new", "build new")
        swr.push("team/api", "v7", "build moved")
        swr.delete("team/api", "v9")
        swr.set_fields("team/api", "v11", is_trusted=True)
        assert counts(poll(job, store)) == ("ok", 1, 2, 1)
        assert counts(poll(job, store)) == ("ok", 0, 0, 0)
    recorded = query("SELECT tag, kind, old_digest = new_digest FROM changes WHERE id > 2500")
    assert sorted(recorded) == [
        ("new", "added", None),
        ("v11", "updated", 1),
        ("v7", "updated", 0),
        ("v9", "deleted", None),
    ]
    lines = [(e["event"], e["tag"], e.get("moved")) for e in logged if e["event"][:4] == "tag."]
    assert sorted(lines) == [
        ("tag.added", "new", None),
        ("tag.deleted", "v9", None),
        ("tag.updated", "v11", False),
        ("tag.updated", "v7", True),
    ]
    fields = query("SELECT fields FROM changes WHERE tag = 'v11' AND id > 2500")
    assert json.loads(fields[0][0]) == {"is_trusted": [False, True]}
    assert_history_is_whole(database)


def test_a_failed_poll_changes_only_the_observation(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Only a complete listing deletes: after a failure mirror and history are as before."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    before = query("SELECT * FROM tags"), query("SELECT * FROM changes")
    clock.advance(minutes=5)
    scripted.script.append(Unreachable("the connection broke"))
    assert counts(poll(job, store, clock=clock)) == ("failed", 0, 0, 0)
    assert (query("SELECT * FROM tags"), query("SELECT * FROM changes")) == before
    assert query("SELECT failures, last_error FROM repositories") == [(1, "the connection broke")]
    assert query("SELECT outcome, detail, polls FROM observations ORDER BY id") == [
        ("ok", None, 1),
        ("failed", "the connection broke", 1),
    ]


def test_times_of_a_change(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A change lies between the beginning of the listing before and the end of the one after."""
    scripted.then("a", started_at="2026-05-03T11:59:58.000Z")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then("a", "b", started_at="2026-05-03T12:04:59.000Z")
    poll(job, store, clock=clock)
    assert query("SELECT tag, not_before, observed_at FROM changes ORDER BY id") == [
        ("a", None, "2026-05-03T12:00:00.000Z"),
        ("b", "2026-05-03T11:59:58.000Z", "2026-05-03T12:05:00.000Z"),
    ]


@pytest.mark.parametrize(
    ("known", "left", "held"),
    [
        (["a"], [], True),
        (["a", "b"], [], True),
        (["a", "b", "c"], ["a"], False),
        (TEN, ["v0"], False),
        ([*TEN, "x"], ["x"], True),
        ([*TEN, *"abcdefghij"], list("abcdefghij"), False),
        ([*TEN, *"abcdefghi"], list("abcdefghi"), True),
    ],
)
def test_what_is_held(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    known: list[str],
    left: list[str],
    held: bool,
) -> None:
    """A listing is held that deletes everything, or more than half and at least ten."""
    scripted.then(*known)
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then(*left)
    assert poll(job, store, clock=clock).outcome == ("held" if held else "ok")
    assert query("SELECT count(*) FROM tags") == [(len(known) if held else len(left),)]


def test_a_line_that_could_not_be_written_is_written_by_the_next_poll(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events
) -> None:
    """Changes are acknowledged after their lines, so that whoever dies at one leaves all owed."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then("a", "b", "c")

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    whole = structlog.get_config()
    structlog.configure(processors=[die])
    with pytest.raises(KeyboardInterrupt):
        poll(job, store, clock=clock)
    structlog.configure(**whole)
    assert events(logged, "tag.") == []
    scripted.then("a", "b", "c")
    poll(job, store, clock=clock)
    assert [entry["tag"] for entry in logged if entry["event"] == "tag.added"] == ["b", "c"]


def test_a_second_listing_that_agrees_is_believed(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path, logged: Events
) -> None:
    """Two listings in a row with the same deletions are recorded, a failure between them or not."""
    scripted.then("a", "b")
    scripted.then()
    scripted.script.append(Unreachable("for a moment"))
    scripted.then()
    outcomes = [poll(job, store, clock=clock) for _ in range(4)]
    assert [result.outcome for result in outcomes] == ["ok", "held", "failed", "ok"]
    assert outcomes[-1].deleted == 2
    assert events(logged, "tag.") == ["tag.deleted"] * 2
    assert events(logged, "sync.held") == ["sync.held"]
    assert_history_is_whole(database)


def test_listings_that_disagree_are_held_on(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """What is held starts anew when the deletions differ, or when all was there in between."""
    scripted.then(*TEN, "x", "y")
    scripted.then("x")
    scripted.then("y")
    scripted.then(*TEN, "x", "y")
    scripted.then("y")
    outcomes = [poll(job, store, clock=clock).outcome for _ in range(5)]
    assert outcomes == ["ok", "held", "held", "ok", "held"]


def test_more_listings_can_be_asked_for(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """As many listings as configured have to agree."""
    patient = msgspec.structs.replace(job, agreeing_listings=3)
    scripted.then("a")
    outcomes = [poll(patient, store, clock=clock).outcome]
    for _ in range(3):
        clock.advance(hours=1)
        scripted.then()
        outcomes.append(poll(patient, store, clock=clock).outcome)
    assert outcomes == ["ok", "held", "held", "ok"]


def test_deletions_can_be_accepted(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """With --accept-deletions even an empty listing is recorded at once."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then()
    result = poll(job, store, Options(accept_deletions=True), clock)
    assert counts(result) == ("ok", 0, 0, 1)


def test_a_repository_that_is_gone(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """'Does not exist' fails for a repository never seen, and is held for one that was."""
    gone = RepositoryNotFound("there is no such repository")
    scripted.script.append(gone)
    assert poll(job, store, clock=clock).outcome == "failed"
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.script += [gone, gone, gone]
    outcomes = [poll(job, store, clock=clock).outcome for _ in range(3)]
    assert outcomes == ["held", "ok", "ok"]
    assert query("SELECT kind FROM changes WHERE kind = 'deleted'") == [("deleted",)]


def test_a_deletion_in_pages_needs_a_second_look(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A tag that one paged listing lacks and the next has was never deleted."""
    scripted.then("a", "b", "c")
    poll(job, store, clock=clock)
    scripted.then("a", pages=2)
    scripted.then("a", "b", "d", pages=2)
    assert counts(poll(job, store, clock=clock)) == ("ok", 1, 0, 1)
    assert query("SELECT tag, kind FROM changes WHERE id > 3 ORDER BY id") == [
        ("c", "deleted"),
        ("d", "added"),
    ]
    assert scripted.script == []


def test_a_tag_that_slipped_over_the_end_of_a_page_is_not_deleted(
    connect: Callable[..., Registry], store: Store, database: Path
) -> None:
    """Without a total, a row that moves up before the next page is asked for was never deleted."""
    with Emulator(max_page=10, sends_total=False) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        poll(job, store)
        swr.push("team/api", "v10", "moved")
        # As after a deletion on the first page: the eleventh row is the tenth by then.
        swr.answer_next(200, [], matching="offset=10&")
        assert counts(poll(job, store)) == ("ok", 0, 1, 0)
    assert_history_is_whole(database)


def test_an_image_that_no_tag_kept_is_not_recorded(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Of a tag that moves between two looks only the digest is recorded that a change brings."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    for digest in ("sha256:passing", "sha256:kept"):
        scripted.then(Tag("a", digest), pages=2)
        listing: Any = scripted.script.pop()
        images = {digest: Image(digest, manifest="{}", verified=True)}
        scripted.script.append(msgspec.structs.replace(listing, images=images))
    assert counts(poll(job, store, clock=clock)) == ("ok", 0, 1, 1)
    digests = {digest for (digest,) in query("SELECT digest FROM images")}
    assert digests == {"sha256:a", "sha256:b", "sha256:kept"}


def test_a_second_look_that_fails_deletes_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Where the confirmation cannot be had the poll has failed."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    scripted.then("a", pages=2)
    scripted.script.append(Unreachable("gone again"))
    assert poll(job, store, clock=clock).outcome == "failed"
    assert query("SELECT count(*) FROM tags") == [(2,)]


def test_an_older_listing_is_dropped(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that was begun before another was recorded is never recorded after it."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    scripted.then("a")
    scripted.then("a", "b", "c")
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=slow), store, clock=clock)
    assert (result.outcome, slow.meanwhile) == ("dropped", ["ok"])
    assert query("SELECT tag, kind FROM changes ORDER BY id") == [
        ("a", "added"),
        ("b", "added"),
        ("c", "added"),
    ]


def test_an_older_unchanged_listing_is_dropped(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """That a listing is the recorded one says nothing once another was recorded meanwhile."""
    scripted.then("a")
    poll(job, store, clock=clock)
    unchanged = Unchanged(timestamp(clock.now), timestamp(clock.now), "the fingerprint")
    scripted.script.append(unchanged)
    scripted.then("a", "b")
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    assert poll(msgspec.structs.replace(job, registry=slow), store, clock=clock).outcome == (
        "dropped"
    )
    assert query("SELECT polls, tags FROM observations") == [(2, 2)]


def test_a_first_listing_is_dropped_after_another(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Of two that list a new repository at once, one takes the baseline."""
    scripted.then("a", "b")
    scripted.then("a")
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=slow), store, clock=clock)
    assert (result.outcome, slow.meanwhile) == ("dropped", ["ok"])
    assert query("SELECT tag FROM tags") == [("a",)]


@pytest.mark.parametrize("known", [True, False])
def test_what_was_decided_is_dropped_after_another_listing(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    database: Path,
    query: Query,
    known: bool,
) -> None:
    """A decision is carried out only on the records that it was made from."""
    if known:
        scripted.then("a")
        poll(job, store, clock=clock)
    scripted.then("a", "late")
    scripted.then("a", "soon")
    with Outrun.open(database) as outrun:
        outrun.overtake(lambda: poll(job, store, clock=clock))
        result = poll(job, outrun, clock=clock)
    assert counts(result) == ("dropped", 0, 0, 0)
    assert query("SELECT tag FROM tags ORDER BY tag") == [("a",), ("soon",)]
    assert_history_is_whole(database)


@pytest.mark.parametrize("known", [True, False])
def test_a_failure_after_a_decision_drops_nothing(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    database: Path,
    query: Query,
    known: bool,
) -> None:
    """A poll that failed between a decision and its transaction, even the first, changes no tag."""
    if known:
        scripted.then("a")
        poll(job, store, clock=clock)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))
    with Outrun.open(database) as outrun:
        outrun.overtake(lambda: poll(job, store, clock=clock))
        assert counts(poll(job, outrun, clock=clock)) == ("ok", 1 if known else 2, 0, 0)
    assert query("SELECT failures, last_error FROM repositories") == [(0, None)]
    assert_history_is_whole(database)


def test_a_dry_run_is_dropped_after_another_listing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """What a dry run tells is what a poll would have come to."""
    scripted.then("a", "late")
    scripted.then("a", "soon")
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=slow), store, Options(dry_run=True), clock)
    assert counts(result) == ("dropped", 0, 0, 0)


def test_a_listing_that_is_the_recorded_one_ends_an_outage(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """After polls that failed, what was listed before them is told of still."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    now = timestamp(clock.now)
    scripted.script += [Unreachable("for a moment"), Unchanged(now, now, "the fingerprint")]
    poll(job, store, clock=clock)
    result = poll(job, store, clock=clock)
    assert (result.outcome, result.tags, result.recovered_from) == ("ok", 2, 1)
    assert query("SELECT outcome, tags FROM observations ORDER BY id") == [
        ("ok", 2),
        ("failed", None),
        ("ok", 2),
    ]


def test_a_failure_meanwhile_drops_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """Another process's poll that failed saw nothing, and does not make a listing old."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=slow), store, clock=clock)
    assert (result.outcome, result.added, slow.meanwhile) == ("ok", 1, ["failed"])


def test_a_failure_recorded_meanwhile_is_no_matter_of_the_clock(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    logged: Events,
    database: Path,
) -> None:
    """A listing that is recorded after another poll's later failure blames no clock for that."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(seconds=1)
    scripted.then("a", "b")
    scripted.script.append(Unreachable("for a moment"))

    def fail_later() -> Poll:
        clock.advance(milliseconds=5)
        return poll(job, store, clock=clock)

    slow = msgspec.structs.replace(job, registry=Overtaken(scripted, fail_later))
    assert poll(slow, store, clock=clock).outcome == "ok"
    assert events(logged, "clock.") == []
    assert query("SELECT outcome, detail, last_at FROM observations ORDER BY id") == [
        ("ok", None, "2026-05-03T12:00:00.000Z"),
        ("failed", "for a moment", "2026-05-03T12:00:01.005Z"),
        ("ok", None, "2026-05-03T12:00:01.005Z"),
    ]
    assert_history_is_whole(database)


@pytest.mark.parametrize("back", [{"hours": 1}, {"seconds": 1}, {"milliseconds": 1}])
def test_a_clock_that_goes_back_makes_no_hole(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    database: Path,
    logged: Events,
    back: dict[str, float],
) -> None:
    """After a jump back polls are recorded on, in order, and marked until the clock has caught up.

    A change seen then lies after the clock's own time of the look before it, however early that is,
    so that its interval is too wide rather than too narrow.
    """
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(**{unit: -by for unit, by in back.items()})
    set_back = timestamp(clock.now)
    for tags in ("ab", "abc", "abc", "bc"):
        scripted.then(*tags)
        assert poll(job, store, clock=clock).outcome == "ok"
    clock.advance(hours=2)
    scripted.then("c")
    poll(job, store, clock=clock)
    assert query("SELECT tag, kind, not_before, observed_at FROM changes ORDER BY id") == [
        ("a", "added", None, "2026-05-03T12:00:00.000Z"),
        ("b", "added", "2026-05-03T12:00:00.000Z", "2026-05-03T12:00:00.001Z"),
        ("c", "added", set_back, "2026-05-03T12:00:00.002Z"),
        ("a", "deleted", set_back, "2026-05-03T12:00:00.004Z"),
        ("b", "deleted", set_back, timestamp(clock.now)),
    ]
    assert query("SELECT clock_said, polls, last_at FROM observations ORDER BY id") == [
        (None, 1, "2026-05-03T12:00:00.000Z"),
        (set_back, 4, "2026-05-03T12:00:00.004Z"),
        (None, 1, timestamp(clock.now)),
    ]
    assert [entry["clock"] for entry in logged if entry["event"] == "clock.behind"] == (
        [set_back] * 4
    )
    assert_history_is_whole(database)


def test_a_clock_that_was_far_ahead_for_once_does_not_blind(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """One poll by a clock that is years ahead does not end the history of all polls after it."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(days=3650)
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(days=-3650)
    for tags in ("ab", "b", "bc"):
        clock.advance(minutes=5)
        scripted.then(*tags)
        assert poll(job, store, clock=clock).outcome == "ok"
    times = [at for (at,) in query("SELECT observed_at FROM changes ORDER BY id")]
    assert times == sorted(times)
    assert query("SELECT tag FROM tags ORDER BY tag") == [("b",), ("c",)]


def test_a_clock_that_jumps_ahead_shows_a_hole(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Time that the clock skips is time in which nobody was looking: more is not known."""
    for tags in ("a", "ab"):
        scripted.then(*tags)
        poll(job, store, clock=clock)
        clock.advance(hours=1)
    assert query("SELECT first_at FROM observations") == [
        ("2026-05-03T12:00:00.000Z",),
        ("2026-05-03T13:00:00.000Z",),
    ]
    assert query("SELECT not_before, observed_at FROM changes WHERE tag = 'b'") == [
        ("2026-05-03T12:00:00.000Z", "2026-05-03T13:00:00.000Z")
    ]


def test_a_clock_that_goes_back_during_a_listing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that seems to end before it began bounds what comes next by its earlier time."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    ahead, now = "2026-05-03T13:05:00.000Z", timestamp(clock.now)
    scripted.then("a", started_at=ahead, finished_at=now)
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    assert query("SELECT not_before, observed_at FROM changes WHERE tag = 'b'") == [
        (now, timestamp(clock.now))
    ]


def test_what_is_held_agrees_whatever_the_clock_says(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """Two listings that agree on a deletion do so also if the clock went back between them."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.then()
    assert poll(job, store, clock=clock).outcome == "held"
    clock.advance(hours=2)
    scripted.then()
    assert counts(poll(job, store, clock=clock)) == ("ok", 0, 0, 1)


def test_a_repository_that_goes_while_the_clock_is_behind_is_gone(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """What the observation says of the clock does not hide what it says of the repository."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.script += [RepositoryNotFound("no such repository")] * 2
    assert [poll(job, store, clock=clock).outcome for _ in range(2)] == ["held", "ok"]
    assert store.repositories() == []


def test_failures_are_in_order_too(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A poll that fails after the clock went back is observed after what is recorded."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(hours=-1)
    scripted.script.append(Unreachable("the connection broke"))
    poll(job, store, clock=clock)
    assert query("SELECT first_at FROM observations WHERE outcome = 'failed'") == [
        ("2026-05-03T12:00:00.000Z",)
    ]


def test_a_dry_run_tells_and_records_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query, logged: Events
) -> None:
    """A dry run counts what a sync would record, and leaves database and log without it."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    logged.clear()
    before = [query(f"SELECT * FROM {table}") for table in ("repositories", "observations")]
    clock.advance(minutes=1)
    scripted.then("a", "c", "d")
    assert counts(poll(job, store, Options(dry_run=True), clock)) == ("ok", 2, 0, 1)
    assert [query(f"SELECT * FROM {table}") for table in ("repositories", "observations")] == before
    assert query("SELECT count(*) FROM changes") == [(2,)]
    assert events(logged, "tag.") == []


def test_observations_grow_and_show_holes(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """One row for polls of the same outcome; a gap beyond two intervals begins another."""
    for minutes in (0, 5, 10, 10.1, 5):
        clock.advance(minutes=minutes)
        scripted.then("a")
        poll(job, store, clock=clock)
    assert query("SELECT first_at, last_at, polls, tags FROM observations ORDER BY id") == [
        ("2026-05-03T12:00:00.000Z", "2026-05-03T12:15:00.000Z", 3, 1),
        ("2026-05-03T12:25:06.000Z", "2026-05-03T12:30:06.000Z", 2, 1),
    ]


@pytest.mark.parametrize("next_poll", ["listing", "unchanged", "failure"])
def test_a_line_that_was_not_written_is_written_by_the_next_poll(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events, next_poll: str
) -> None:
    """What a process committed and did not live to log, the next poll logs."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    # A commit without its log lines is what a kill between the two leaves.
    scripted.then("a", "b")
    listing = scripted.list_tags("team/api")
    assert isinstance(listing, Listing)
    change = Change("b", "added", None, "sha256:b", {"digest": (None, "sha256:b")})
    store.record(REPOSITORY, Accepted(listing, [change]), store.state(REPOSITORY), job.interval)
    assert events(logged, "tag.") == []
    now = timestamp(clock.now)
    steps: dict[str, Unchanged | Exception] = {
        "unchanged": Unchanged(now, now, "the fingerprint"),
        "failure": Unreachable("for a moment"),
    }
    for _ in range(2):
        if next_poll in steps:
            scripted.script.append(steps[next_poll])
        else:
            scripted.then("a", "b")
        poll(job, store, clock=clock)
    assert [entry["tag"] for entry in logged if entry["event"] == "tag.added"] == ["b"]


def test_a_transaction_that_fails_keeps_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """When the database refuses one row, the whole poll leaves no trace."""
    scripted.then("a")
    poll(job, store, clock=clock)
    before = query("SELECT * FROM repositories"), query("SELECT * FROM changes")
    clock.advance(minutes=5)
    scripted.then("a", Tag("b", "sha256:b", size=2**63))
    with pytest.raises(Exception, match="too large"):
        poll(job, store, clock=clock)
    assert (query("SELECT * FROM repositories"), query("SELECT * FROM changes")) == before


def test_what_does_not_hash_to_its_digest_is_recorded_and_logged(
    connect: Callable[..., Registry], store: Store, query: Query, logged: Events
) -> None:
    """A manifest that is not what its digest or image_id says is kept, marked and logged."""
    with Emulator() as swr:
        good = swr.push("team/api", "good", "good")
        swr.push("team/api", "bytes", "bytes", manifest="{}")
        swr.push("team/api", "config", "config", image_id="0" * 64)
        result = poll(Job(REPOSITORY, connect(swr.url), timedelta(minutes=5)), store)
    assert counts(result) == ("ok", 3, 0, 0)
    verified: dict[str, int] = dict(query("SELECT tag, verified FROM current_tags"))
    assert verified == {"good": 1, "bytes": 0, "config": 0}
    bad = {entry["tag"] for entry in logged if entry["event"] == "image.unverified"}
    assert bad == {"bytes", "config"}
    assert good in dict(query("SELECT digest, manifest FROM images"))
    assert "bytes and 1 more" in query("SELECT detail FROM observations")[0][0]


def test_two_stores_at_once_record_nothing_twice(
    connect: Callable[..., Registry], database: Path, query: Query
) -> None:
    """Two connections that sync one repository at the same time record each change once."""
    with Emulator() as swr, Store.open(database) as one, Store.open(database) as two:
        jobs = [Job(REPOSITORY, connect(swr.url), timedelta(minutes=5)) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            for round_ in range(30):
                swr.push("team/api", f"v{round_}", f"build {round_}")
                swr.push("team/api", "latest", f"build {round_}")
                list(pool.map(poll, jobs, (one, two)))
        assert poll(jobs[0], one).outcome == "ok"
        registry_tags = swr.tags("team/api")
    assert dict(query("SELECT tag, digest FROM tags")) == registry_tags
    added = query("SELECT tag FROM changes WHERE kind = 'added'")
    assert len(added) == len(set(added)) == 31
    assert_history_is_whole(database)


def test_a_pass_survives_a_repository_that_fails(
    connect: Callable[..., Registry], store: Store
) -> None:
    """One repository's failure does not keep the others from being recorded, in order."""
    with Emulator() as swr:
        for name in ("a", "b", "d"):
            swr.push(f"team/{name}", "v1", name)
        registry = connect(swr.url)
        jobs = [
            Job(Repository("swr", f"team/{name}"), registry, timedelta(minutes=5))
            for name in "abcd"
        ]
        polls = run_once(jobs, store, {"swr": 3})
    assert [(result.repository.name, result.outcome) for result in polls] == [
        ("team/a", "ok"),
        ("team/b", "ok"),
        ("team/c", "failed"),
        ("team/d", "ok"),
    ]


@pytest.mark.parametrize(
    ("altered", "of_b"),
    [
        ("tags SET digest = 'sha256:forged'", "repository_id = 2"),
        ("repositories SET last_complete_at = 'never'", "id = 2"),
    ],
    ids=["found when it is recorded", "found when it is looked at"],
)
def test_a_damaged_record_costs_no_other_repository_its_poll(
    altered: str,
    of_b: str,
    scripted: Scripted,
    store: Store,
    database: Path,
    query: Query,
    logged: Events,
) -> None:
    """Of polls that are recorded together, all are kept but the one whose record was altered."""
    jobs = [
        Job(Repository("swr", f"team/{name}"), scripted, timedelta(minutes=5)) for name in "abc"
    ]
    polls: list[Poll] = []
    for tags in (("x",), ("x", "y")):
        for _ in jobs:
            scripted.then(*tags)
        polls = run_once(jobs, store, {"swr": 1})
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"UPDATE {altered} WHERE {of_b}")
            connection.commit()
    assert [result.outcome for result in polls] == ["ok", "failed", "ok"]
    assert "did not write" in str(polls[1].detail)
    failed = [e for e in logged if e["event"] == "sync.failed"]
    assert [(e["repository"], e["error"]) for e in failed] == [("swr/team/b", polls[1].detail)]
    added = {(r, tag) for r, tag in query("SELECT repository_id, tag FROM changes")}
    assert added == {(1, "x"), (2, "x"), (3, "x"), (1, "y"), (3, "y")}
    assert [e["repository"] for e in logged if e["event"] == "tag.added"] == [
        "swr/team/a",
        "swr/team/c",
    ]


def test_a_pass_ends_by_whatever_ends_a_thread(
    scripted: Scripted, store: Store, query: Query
) -> None:
    """What no poll expects is raised by the pass, which would wait for that poll for ever."""
    jobs = [Job(Repository("swr", f"team/{n}"), scripted, timedelta(minutes=5)) for n in range(2)]
    scripted.then("x")
    scripted.script.append(SystemExit())
    assert isinstance(raised_by(lambda: run_once(jobs, store, {"swr": 1})), SystemExit)
    assert query("SELECT count(*) FROM repositories") == [(1,)]


class Refusing(Store):
    """A store that refuses to record for each of the given reasons in turn."""

    def refuse(self, *reasons: StoreError) -> None:
        self.reasons = [*reasons]

    def record(self, *arguments: Any) -> PendingLog | None:
        if self.reasons:
            raise self.reasons.pop(0)
        return super().record(*arguments)

    def acknowledge(self, repository: Repository, through: int) -> None:
        raise StoreError("the disk went away")


class Gated(Scripted):
    """A registry whose answers after the first one the test lets through."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.gate = Event()

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        self.asked += 1
        assert self.asked == 1 or self.gate.wait(10)
        return super().list_tags(repository, known, scope)


def test_nothing_more_is_polled_when_the_database_failed(database: Path, clock: FakeClock) -> None:
    """Polls that had not begun are not made, and the threads end."""
    registry = Gated(clock)
    jobs = [Job(Repository("swr", f"team/{n}"), registry, timedelta(minutes=5)) for n in range(5)]
    for _ in jobs:
        registry.then("x")
    with Refusing.open(database) as store:
        store.refuse(DatabaseLocked("locked"))
        with pytest.raises(DatabaseLocked):
            run_once(jobs, store, {"swr": 1})
        registry.gate.set()
        for thread in threading.enumerate():
            if thread.name.startswith("swr"):
                thread.join(10)
    assert registry.asked <= 2


def test_lines_that_cannot_be_acknowledged_stay_owed(
    job: Job, scripted: Scripted, database: Path, clock: FakeClock, logged: Events, store: Store
) -> None:
    """What was recorded is told as recorded; its lines are written again by the next poll."""
    with Refusing.open(database) as refusing:
        refusing.refuse()
        scripted.then("a")
        assert counts(poll(job, refusing, clock=clock)) == ("ok", 1, 0, 0)
    clock.advance(minutes=5)
    for _ in range(2):
        scripted.then("a")
        poll(job, store, clock=clock)
    assert len(events(logged, "repository.baselined")) == 2


def test_an_image_of_two_repositories_is_filled_in_while_they_are_recorded(
    scripted: Scripted, store: Store, query: Query
) -> None:
    """Of one digest in two listings that are recorded together, the manifest is kept."""
    jobs = [Job(Repository("swr", f"team/{name}"), scripted, timedelta(minutes=5)) for name in "ab"]
    bare = Image("sha256:1")
    for image in (bare, msgspec.structs.replace(bare, manifest="{}", verified=True)):
        scripted.then(Tag("x", "sha256:1"))
        listing: Any = scripted.script.pop()
        scripted.script.append(msgspec.structs.replace(listing, images={"sha256:1": image}))
    run_once(jobs, store, {"swr": 1})
    assert query("SELECT digest, manifest, verified FROM images") == [("sha256:1", "{}", 1)]


def test_a_closed_store_refuses_in_a_sentence(
    job: Job, scripted: Scripted, database: Path, clock: FakeClock
) -> None:
    """A poll that outlives the store is refused by an error of ours."""
    store = Store.open(database)
    store.close()
    scripted.then("a")
    with pytest.raises(StoreError, match="could not be used"):
        poll(job, store, clock=clock)


def test_two_looks_at_the_same_time_do_not_agree(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that was read while another was held is no second look at the registry."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then()
    scripted.then()
    slow = Overtaken(scripted, lambda: poll(job, store, clock=clock))
    result = poll(msgspec.structs.replace(job, registry=slow), store, clock=clock)
    assert (result.outcome, slow.meanwhile) == ("dropped", ["held"])
    assert query("SELECT count(*) FROM tags") == [(1,)]


def test_an_empty_repository_has_a_baseline(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events
) -> None:
    """The first listing is logged once, also when there is nothing in it."""
    for _ in range(2):
        scripted.then()
        poll(job, store, clock=clock)
    baselines = [entry for entry in logged if entry["event"] == "repository.baselined"]
    assert [entry["tags"] for entry in baselines] == [0]


def test_an_outage_is_one_observation(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """What a server says differently each time does not begin a row each time."""
    for number in range(3):
        error = Busy(f"answered 500 (request {number})", status=500, code="SVCSTG.SWR.5000001")
        scripted.script.append(error)
        poll(job, store, clock=clock)
    assert query("SELECT detail, polls FROM observations") == [
        ("Busy: status 500, code SVCSTG.SWR.5000001", 3)
    ]
    assert query("SELECT failures, last_error FROM repositories") == [
        (3, "answered 500 (request 2)")
    ]


def test_observations_do_not_run_backwards(job: Job, store: Store, query: Query) -> None:
    """A poll that is recorded late does not take back when another was."""
    for at in ("2026-05-03T12:00:10.000Z", "2026-05-03T12:00:09.000Z"):
        store.record(REPOSITORY, Failed(Unreachable("x"), at), RepositoryState(), job.interval)
    assert query("SELECT last_at FROM observations") == [("2026-05-03T12:00:10.000Z",)]
    assert query("SELECT last_attempt_at FROM repositories") == [("2026-05-03T12:00:10.000Z",)]


def test_a_late_acknowledgement_takes_nothing_back(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A process that is slow to say what it logged does not have newer lines logged again."""
    scripted.then("a")
    scripted.then("a", "b")
    for _ in range(2):
        poll(job, store, clock=clock)
        clock.advance(minutes=5)
    store.acknowledge(REPOSITORY, 1)
    assert query("SELECT unlogged_from FROM repositories") == [(None,)]


def test_a_repository_that_is_gone_is_no_longer_recorded_as_present(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """What the registry says is gone is left to discovery to find again."""
    scripted.then("a")
    scripted.script += [RepositoryNotFound("no such repository")] * 2
    for _ in range(3):
        assert store.repositories() in ([], [REPOSITORY])
        poll(job, store, clock=clock)
    assert store.repositories() == []


def test_bytes_that_change_under_a_digest_are_noticed(
    connect: Callable[..., Registry], store: Store, query: Query, logged: Events
) -> None:
    """A manifest that is altered under a digest that is known is logged and observed."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "good")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        poll(job, store)
        swr.push("team/api", "v2", "good", manifest='{"altered":true}')
        poll(job, store)
    assert [e["tag"] for e in logged if e["event"] == "image.unverified"] == ["v2"]
    assert query("SELECT verified FROM images") == [(1,)]
    details = [detail for (detail,) in query("SELECT detail FROM observations ORDER BY id")]
    assert details == [None, "the manifest of v2 is not what its digest or image_id says"]


def test_each_glob_that_cannot_be_expanded_is_a_failure_of_its_name(
    connect: Callable[..., Registry],
) -> None:
    """A watch whose discovery fails has a failed row for each glob, and none for exact names."""
    watch = Watch("swr", ("a/*", "b/exact", "c/?"))
    with Emulator() as swr:
        registry = connect(swr.url)
        swr.answer_next(403, {"error_code": "SVCSTG.SWR.4030170"}, times=9)
        found, failures = discover([watch], {"swr": registry})
    assert found == set()
    assert [result.repository.full_name for result in failures] == ["swr/a/*", "swr/c/?"]
    assert {result.outcome for result in failures} == {"failed"}
    assert all("4030170" in (result.detail or "") for result in failures)
