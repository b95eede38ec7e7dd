"""Acceptances: each is recorded once, for an alarm, all of a command's together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagsync.database.acceptances import Acceptance
from tagsync.database.store import Store
from tagsync.errors import RefusedAcceptance
from tagsync.models import Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.immutable import add_violation
from tests.support.record import record

ANSWER = Acceptance("2026-05-03T13:00:00.000Z", "alice (uid 1000)", "a rebuild")
Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def moved(store: Store, database: Path, job: Job, clock: FakeClock) -> Store:
    """A database in which the changes 3 and 4 moved two immutable tags."""
    for digest in ("sha256:1", "sha256:2"):
        tags = {name: Tag(name, digest) for name in ("v1", "v2")}
        record(store, job, clock, tags, {})
    for change in (3, 4):
        add_violation(database, change)
    return store


def test_acceptances_say_who_accepted_what_and_why(moved: Store, query: Query) -> None:
    """An acceptance is one row beside the history, and its change is no longer open."""
    assert moved.open_immutable_changes() == 2
    moved.accept([4], ANSWER)
    assert query("SELECT * FROM acceptances") == [(4, ANSWER.at, ANSWER.who, ANSWER.reason)]
    assert moved.open_immutable_changes() == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (5, "change 5 is not recorded: tagsync log --immutable shows"),
        (2**62, "is not recorded"),
        (1, "change 1 is not an alarm about a tag that must not move"),
        (4, r"change 4 was already accepted at 2026-05-03T13.* by alice \(uid 1000\): a rebuild"),
    ],
)
def test_other_changes_are_refused(moved: Store, query: Query, change: int, problem: str) -> None:
    """A change that is unknown, no alarm or accepted is refused, and nothing is recorded."""
    moved.accept([4], ANSWER)
    with pytest.raises(RefusedAcceptance, match=problem):
        moved.accept([3, change], Acceptance(ANSWER.at, "bob (uid 1001)", "mine"))
    assert query("SELECT change_id, who FROM acceptances") == [(4, ANSWER.who)]
