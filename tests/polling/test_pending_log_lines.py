"""Log lines of committed changes: they stay pending until they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from tagsync.clock import timestamp
from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.errors import StoreError, Unreachable
from tagsync.models import Change, Listing, Repository, Unchanged
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.polls import counts, event_names
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


class UnacknowledgingStore(Store):
    """A store that cannot acknowledge log lines."""

    def acknowledge(self, repository: Repository, through: int) -> None:
        raise StoreError("the disk went away")


def test_interrupted_log_lines_are_written_by_the_next_poll(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events
) -> None:
    """If writing the log lines is interrupted, the next poll writes all of them."""
    scripted.then("a")
    poll(job, store, clock=clock)
    scripted.then("a", "b", "c")

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    configuration = structlog.get_config()
    structlog.configure(processors=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        poll(job, store, clock=clock)
    structlog.configure(**configuration)
    assert event_names(logged, "tag.") == []
    scripted.then("a", "b", "c")
    poll(job, store, clock=clock)
    assert [entry["tag"] for entry in logged if entry["event"] == "tag.added"] == ["b", "c"]


@pytest.mark.parametrize("next_poll", ["listing", "unchanged", "failure"])
def test_log_lines_missing_after_a_kill_are_written_once(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events, next_poll: str
) -> None:
    """A later poll writes the log lines that a killed process left pending."""
    scripted.then("a")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    # A kill between the commit and the log leaves this state.
    scripted.then("a", "b")
    listing = scripted.list_tags("team/api")
    assert isinstance(listing, Listing)
    change = Change("b", "added", None, "sha256:b", {"digest": (None, "sha256:b")})
    store.record(REPOSITORY, Accepted(listing, [change]), store.state(REPOSITORY), job.interval)
    assert event_names(logged, "tag.") == []
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


def test_unacknowledged_log_lines_stay_pending(
    job: Job, scripted: Scripted, database: Path, clock: FakeClock, logged: Events, store: Store
) -> None:
    """If acknowledging fails, the poll succeeds and the next one repeats its lines."""
    with UnacknowledgingStore.open(database) as broken:
        scripted.then("a")
        assert counts(poll(job, broken, clock=clock)) == ("ok", 1, 0, 0)
    clock.advance(minutes=5)
    for _ in range(2):
        scripted.then("a")
        poll(job, store, clock=clock)
    assert len(event_names(logged, "repository.baselined")) == 2


def test_late_acknowledgement_is_ignored(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A late acknowledgement of old lines does not make newer lines pending again."""
    scripted.then("a")
    scripted.then("a", "b")
    for _ in range(2):
        poll(job, store, clock=clock)
        clock.advance(minutes=5)
    store.acknowledge(REPOSITORY, 1)
    assert query("SELECT unlogged_from FROM repositories") == [(None,)]
