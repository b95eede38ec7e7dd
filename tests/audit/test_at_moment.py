"""Queries about the past, and how certain their answers are."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tagsync.database.store import Store
from tagsync.models import Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import PollAt, Row, RunQuery, at, pointing, tag_states
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

StatesAt = Callable[[float], list[tuple[Any, ...]]]


@pytest.fixture
def states_at(run_query: RunQuery) -> StatesAt:
    """Return the states of all tags at a minute."""
    return lambda minutes: tag_states(run_query("tags_at", (), at(minutes)))


def test_state_before_the_first_listing_is_unknown(poll_at: PollAt, states_at: StatesAt) -> None:
    """Before the first complete listing, the only row is unknown and has no tag."""
    poll_at(0, fails=True)
    assert states_at(1) == [(None, None, None, "unknown", None, None)]
    poll_at(5, "a")
    assert states_at(4) == [(None, None, None, "unknown", None, at(5))]
    assert states_at(5) == [("a", "sha256:a", True, "certain", None, None)]


def test_moved_tag_is_uncertain_between_two_listings(poll_at: PollAt, states_at: StatesAt) -> None:
    """Between two listings a moved tag may have either digest; other tags are certain."""
    poll_at(0, "a", "b")
    poll_at(5, pointing("a", "x"), "b")
    assert states_at(3) == [
        ("a", "sha256:a", True, "uncertain", at(0), at(5)),
        ("a", "sha256:x", True, "uncertain", at(0), at(5)),
        ("b", "sha256:b", True, "certain", None, None),
    ]
    assert states_at(5)[0] == ("a", "sha256:x", True, "certain", None, None)
    assert states_at(0)[0] == ("a", "sha256:a", True, "certain", None, None)


def test_added_or_deleted_tag_may_be_absent(poll_at: PollAt, run_query: RunQuery) -> None:
    """While a tag may have been added or deleted, absence is one of its states."""
    poll_at(0, "a", "b", "c")
    poll_at(5, "b", "c")
    poll_at(10, "a", "b", "c")
    expected = [("a", True), ("a", False)]
    for minute, rows in ((3, expected), (7, expected[::-1])):
        answer = run_query("tags_at", (), at(minute))
        assert [(r["tag"], r["present"]) for r in answer if r["certainty"] == "uncertain"] == rows
    assert [row["tag"] for row in run_query("tags_at", (), at(5))] == ["b", "c"]


def test_gap_in_coverage_is_not_observed(poll_at: PollAt, states_at: StatesAt) -> None:
    """In a gap in coverage, every possible state is shown with the ends of the gap."""
    poll_at(0, "a", "b")
    poll_at(60, pointing("a", "x"), "b")
    gap = ("not observed", at(0), at(60))
    assert states_at(30) == [
        ("a", "sha256:a", True, *gap),
        ("a", "sha256:x", True, *gap),
        ("b", "sha256:b", True, *gap),
    ]


@pytest.mark.parametrize("held", [False, True])
def test_failed_or_held_poll_makes_a_gap_in_coverage(
    poll_at: PollAt, states_at: StatesAt, held: bool
) -> None:
    """A failed or held poll between two listings makes a gap in coverage."""
    poll_at(0, "a")
    poll_at(5, fails=not held)
    poll_at(10, "a")
    gap = ("not observed", at(0), at(10))
    assert states_at(5) == [("a", "sha256:a", True, *gap)]
    assert states_at(10)[0][3] == "certain"


def test_time_after_the_last_listing_is_not_observed(poll_at: PollAt, states_at: StatesAt) -> None:
    """After the last listing, the last known state is shown, without an end."""
    poll_at(0, "a")
    assert states_at(1) == [("a", "sha256:a", True, "not observed", at(0), None)]


def test_unobserved_empty_repository_has_a_row(
    poll_at: PollAt, run_query: RunQuery, states_at: StatesAt
) -> None:
    """An empty repository has no row if that is certain; otherwise a row says why."""
    poll_at(0)
    poll_at(60)
    assert run_query("tags_at", (), at(0)) == []
    assert states_at(30) == [(None, None, None, "not observed", at(0), at(60))]


def test_slow_listing_widens_the_uncertainty(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    run_query: RunQuery,
    states_at: StatesAt,
) -> None:
    """A tag may have moved since the start of the previous listing, not since its end."""
    scripted.then("a", started_at=at(0), finished_at=at(1))
    scripted.then(pointing("a", "x"), started_at=at(5), finished_at=at(6))
    scripted.then(pointing("a", "y"), started_at=at(10), finished_at=at(11))
    for minute in (1, 6, 11):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll(job, store, clock=clock)
    assert states_at(5.5) == [
        ("a", f"sha256:{digest}", True, "uncertain", at(0), at(11)) for digest in "axy"
    ]
    assert [row["digest"] for row in run_query("tags_at", (), at(3))] == ["sha256:a", "sha256:x"]


def test_fields_have_their_values_of_that_moment(poll_at: PollAt, run_query: RunQuery) -> None:
    """Each field has its value of that moment, or `None` if it had none."""
    poll_at(0, Tag("a", "sha256:a", image_id="1", size=1, updated="then"))
    poll_at(5, Tag("a", "sha256:a", image_id="2", updated="later"))
    names = ("image_id", "size", "updated", "changed_at")
    (before,), (after,) = (run_query("tags_at", (), at(minute)) for minute in (0, 5))
    assert [before[name] for name in names] == ["1", 1, "then", at(0)]
    assert [after[name] for name in names] == ["2", None, "later", at(5)]


def test_state_at_the_last_listing_is_the_current_one(poll_at: PollAt, run_query: RunQuery) -> None:
    """At the last listing, `tags_at` gives the same rows as `tags`."""
    poll_at(0, "a", "b", Tag("c", "sha256:c", size=3))
    poll_at(5, "a", pointing("b", "x"), Tag("c", "sha256:c", size=4), "d")
    then = run_query("tags_at", (), at(5))
    now = run_query("tags", ())
    assert [{name: row[name] for name in now[0]} for row in then] == now


def differences(rows: list[Row]) -> list[tuple[Any, ...]]:
    names = ("tag", "kind", "old_digest", "new_digest", "certainty")
    return [tuple(row[name] for name in names) for row in rows]


def test_difference_is_net(poll_at: PollAt, run_query: RunQuery) -> None:
    """A difference omits undone changes, and has one row for a tag that changed twice."""
    poll_at(0, "a", "b", "c", "d")
    poll_at(5, pointing("a", "x"), pointing("b", "x"), "d", "e")
    poll_at(10, pointing("a", "y"), "b", "d", "e")
    rows = run_query("diff", (), at(0), at(10))
    assert differences(rows) == [
        ("a", "updated", "sha256:a", "sha256:y", "certain"),
        ("c", "deleted", "sha256:c", None, "certain"),
        ("e", "added", None, "sha256:e", "certain"),
    ]
    assert rows[0]["fields"] == {"digest": ("sha256:a", "sha256:y")}
    assert run_query("diff", (), at(0), None) == rows
    assert run_query("diff", (), at(10), at(10)) == []


def test_field_that_is_none_again_does_not_differ(poll_at: PollAt, run_query: RunQuery) -> None:
    """A field that is `None` at both moments does not differ, whatever it was between."""
    poll_at(0, "a")
    poll_at(5, Tag("a", "sha256:a", size=1))
    poll_at(10, "a")
    assert run_query("diff", (), at(0), at(10)) == []


def test_difference_is_as_certain_as_its_moments(poll_at: PollAt, run_query: RunQuery) -> None:
    """A difference is only as certain as the states at its two moments."""
    poll_at(0, "a")
    poll_at(5, pointing("a", "x"))
    step = ("a", "updated", "sha256:a", "sha256:x")
    assert differences(run_query("diff", (), at(3), at(5))) == [(*step, "uncertain")]
    assert differences(run_query("diff", (), at(0), at(3))) == [(*step, "uncertain")]
    assert differences(run_query("diff", (), at(2), at(3))) == [(*step, "uncertain")]
    assert differences(run_query("diff", (), at(0), at(7))) == [
        (None, None, None, None, "not observed"),
        (*step, "not observed"),
    ]


def test_difference_from_before_the_first_listing_is_unknown(
    poll_at: PollAt, run_query: RunQuery
) -> None:
    """The difference from a moment before the first listing is unknown."""
    poll_at(0, "a")
    assert differences(run_query("diff", (), at(-1), at(0))) == [
        (None, None, None, None, "unknown")
    ]
