"""Suspicious deletions: which listings are held, and when they are recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.database.store import Store
from tagsync.errors import RepositoryNotFound, Unreachable
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.polls import counts, event_names
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


TEN = [f"v{number}" for number in range(10)]


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
def test_suspicious_deletions_are_held(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    query: Query,
    known: list[str],
    left: list[str],
    held: bool,
) -> None:
    """A listing is held if it deletes every tag, or at least ten and more than half."""
    scripted.then(*known)
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then(*left)
    assert poll(job, store, clock=clock).outcome == ("held" if held else "ok")
    assert query("SELECT count(*) FROM tags") == [(len(known) if held else len(left),)]


def test_two_agreeing_listings_are_recorded(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, database: Path, logged: Events
) -> None:
    """Two agreeing listings record a deletion, even with a failed poll between them."""
    scripted.then("a", "b")
    scripted.then()
    scripted.script.append(Unreachable("for a moment"))
    scripted.then()
    outcomes = [poll(job, store, clock=clock) for _ in range(4)]
    assert [result.outcome for result in outcomes] == ["ok", "held", "failed", "ok"]
    assert outcomes[-1].deleted == 2
    assert event_names(logged, "tag.") == ["tag.deleted"] * 2
    assert event_names(logged, "sync.held") == ["sync.held"]
    assert_history_is_whole(database)


def test_disagreeing_listings_stay_held(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """The count of agreeing listings restarts if the deletions differ or disappear."""
    scripted.then(*TEN, "x", "y")
    scripted.then("x")
    scripted.then("y")
    scripted.then(*TEN, "x", "y")
    scripted.then("y")
    outcomes = [poll(job, store, clock=clock).outcome for _ in range(5)]
    assert outcomes == ["ok", "held", "held", "ok", "held"]


def test_number_of_agreeing_listings_is_configurable(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A deletion is held until `agreeing_listings` listings agree on it."""
    strict = msgspec.structs.replace(job, agreeing_listings=3)
    scripted.then("a")
    outcomes = [poll(strict, store, clock=clock).outcome]
    for _ in range(3):
        clock.advance(hours=1)
        scripted.then()
        outcomes.append(poll(strict, store, clock=clock).outcome)
    assert outcomes == ["ok", "held", "held", "ok"]


def test_accepted_deletions_are_recorded_at_once(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """With `accept_deletions`, even an empty listing is recorded at once."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then()
    result = poll(job, store, Options(accept_deletions=True), clock)
    assert counts(result) == ("ok", 0, 0, 1)


def test_missing_repository_is_held_if_known(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A missing repository is held if it was listed before; otherwise its poll fails."""
    gone = RepositoryNotFound("there is no such repository")
    scripted.script.append(gone)
    assert poll(job, store, clock=clock).outcome == "failed"
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.script += [gone, gone, gone]
    outcomes = [poll(job, store, clock=clock).outcome for _ in range(3)]
    assert outcomes == ["held", "ok", "ok"]
    assert query("SELECT kind FROM changes WHERE kind = 'deleted'") == [("deleted",)]
