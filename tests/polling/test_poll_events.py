"""The events of polls: each is written once, in the transaction of its poll."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.errors import RegistryError, StoreError, Unauthorized, Unreachable
from tagsync.models import Listing, Repository, Tag, Unchanged
from tagsync.polling.decide import diff
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
DOWN = Unreachable("no connection")
NO_OPTIONS = Options()
RELEASE = ("v*", "release-*")


class Poller:
    """Polls one repository every five minutes, and returns the new events."""

    def __init__(
        self, job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
    ) -> None:
        self.job, self.store, self.clock = job, store, clock
        self._scripted, self._query = scripted, query
        self._seen = 0

    def poll(self, *tags: Tag | str, options: Options = NO_OPTIONS, **listing: Any) -> list[Any]:
        """Poll a listing of these tags, and return the new events."""
        self.clock.advance(minutes=5)
        self._scripted.then(*tags)
        if listing:
            step = self._scripted.script.pop()
            assert isinstance(step, Listing)
            self._scripted.script.append(replace(step, **listing))
        return self._poll(options)

    def fail(self, error: RegistryError = DOWN) -> list[Any]:
        """Fail a poll, and return the new events."""
        self.clock.advance(minutes=5)
        self._scripted.script.append(error)
        return self._poll(NO_OPTIONS)

    def stay(self) -> list[Any]:
        """Poll the recorded listing again, and return the new events."""
        now = self.clock.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._scripted.script.append(Unchanged(now, now, "the fingerprint"))
        return self._poll(NO_OPTIONS)

    def _poll(self, options: Options) -> list[Any]:
        poll(self.job, self.store, options, self.clock)
        rows = self._query(
            "SELECT id, kind, tag, change_id, detail FROM events WHERE id > ? ORDER BY id",
            self._seen,
        )
        self._seen += len(rows)
        assert [row[0] for row in rows] == [*range(self._seen - len(rows) + 1, self._seen + 1)]
        return [tuple(row[1:4]) + ((json.loads(row[4]),) if row[4] else ()) for row in rows]


@pytest.fixture
def poller(job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query) -> Poller:
    """A poller with the immutable tags of `RELEASE`."""
    return Poller(replace(job, immutable=RELEASE), scripted, store, clock, query)


def kinds(events: list[Any]) -> list[str]:
    return [event[0] for event in events]


def digest(name: str) -> str:
    return f"sha256:{name}"


# --- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [[], ["v1", "v2", "latest"]])
def test_new_repository_has_one_event(poller: Poller, tags: list[str]) -> None:
    """The first listing has one event with the number of tags, also if it has none."""
    assert poller.poll(*tags) == [("baselined", None, None, {"tags": len(tags)})]
    assert poller.poll(*tags) == []


def test_each_later_change_has_an_event(poller: Poller, query: Query) -> None:
    """An addition, a move, another update and a deletion have one event each, with the change."""
    poller.poll("a", "b", Tag("c", "x", size=1))
    events = poller.poll(Tag("b", "y"), Tag("c", "x", size=2), "d")
    assert events == [
        ("deleted", "a", 4),
        ("moved", "b", 5),
        ("updated", "c", 6),
        ("added", "d", 7),
    ]
    assert query(
        "SELECT count(*) FROM events e JOIN changes c ON c.id = change_id"
        " WHERE e.at = observed_at AND e.repository_id = c.repository_id"
    ) == [(4,)]


def test_changed_resolution_is_no_move(poller: Poller) -> None:
    """A digest that becomes unknown, and known again, is an update; the last one is named."""
    poller.poll("a")
    assert poller.poll(Tag("a")) == [("updated", "a", 2)]
    assert poller.poll("a") == [("updated", "a", 3, {"previous_digest": digest("a")})]


def test_readded_tag_names_what_was_there_before(poller: Poller) -> None:
    """The event of a tag that comes back names its last known digest."""
    poller.poll("a", "b")
    poller.poll("b")
    assert poller.poll(Tag("a", "new"), "b") == [
        ("added", "a", 4, {"previous_digest": digest("a")})
    ]


# --- immutable tags -------------------------------------------------------------------------------


def test_move_of_an_immutable_tag_has_two_events(poller: Poller) -> None:
    """A move has its own event and, with the same change, one with the old digest and the glob."""
    poller.poll("v1", "latest")
    alarm = {"previous_digest": digest("v1"), "pattern": "v*"}
    assert poller.poll(Tag("v1", "new"), Tag("latest", "new")) == [
        ("moved", "latest", 3),
        ("moved", "v1", 4),
        ("immutable_moved", "v1", 4, alarm),
    ]


def test_immutable_tag_may_come_back_as_it_was(poller: Poller) -> None:
    """A deletion is an alarm; the same digest afterwards is none, and another one is a move."""
    poller.poll("v1", "x")
    alarm = {"previous_digest": digest("v1"), "pattern": "v*"}
    assert poller.poll("x")[1:] == [("immutable_deleted", "v1", 3, alarm)]
    assert kinds(poller.poll("v1", "x")) == ["added"]
    assert kinds(poller.poll("x")) == ["deleted", "immutable_deleted"]
    assert poller.poll(Tag("v1", "new"), "x")[1:] == [("immutable_moved", "v1", 6, alarm)]


def test_several_deletions_keep_the_last_known_digest(poller: Poller) -> None:
    """A tag that was deleted twice, once without a digest, still moves from its last known one."""
    poller.poll("v1", "x")
    poller.poll("x")
    assert kinds(poller.poll(Tag("v1"), "x")) == ["added"]
    alarm = {"previous_digest": digest("v1"), "pattern": "v*"}
    assert poller.poll("x")[1:] == [("immutable_deleted", "v1", 5, alarm)]
    assert kinds(poller.poll(Tag("v1"), "x")) == ["added"]
    assert poller.poll(Tag("v1", "new"), "x") == [
        ("updated", "v1", 7, {"previous_digest": digest("v1")}),
        ("immutable_moved", "v1", 7, alarm),
    ]


def test_unresolved_immutable_tag_has_not_moved(poller: Poller) -> None:
    """Losing the digest is no move; another digest afterwards is one, and the same is none."""
    poller.poll("v1")
    assert kinds(poller.poll(Tag("v1"))) == ["updated"]
    assert kinds(poller.poll("v1")) == ["updated"]
    assert kinds(poller.poll(Tag("v1"))) == ["updated"]
    assert kinds(poller.poll(Tag("v1", "new"))) == ["updated", "immutable_moved"]


def test_never_resolved_immutable_tag_has_no_previous_digest(poller: Poller) -> None:
    """A tag that gets its first digest has not moved; its deletion before that names none."""
    poller.poll("v1", Tag("v2"), Tag("v3"))
    events = poller.poll("v1", "v2")
    assert events == [
        ("updated", "v2", 4),
        ("deleted", "v3", 5),
        ("immutable_deleted", "v3", 5, {"previous_digest": None, "pattern": "v*"}),
    ]


def test_new_immutable_tag_and_other_fields_are_no_alarm(poller: Poller) -> None:
    """A new tag, and an update that keeps the digest, break no promise."""
    poller.poll(Tag("v1", "x", size=1))
    assert kinds(poller.poll(Tag("v1", "x", size=2), "v2")) == ["updated", "added"]


def test_key_decides_when_the_change_is_recorded(poller: Poller) -> None:
    """Changing the globs later adds and removes no event, and decides only later changes."""
    poller.poll("v1", "latest")
    poller.job = replace(poller.job, immutable=())
    assert kinds(poller.poll(Tag("v1", "2"), "latest")) == ["moved"]
    poller.job = replace(poller.job, immutable=("late*", "l*"))
    assert kinds(poller.poll(Tag("v1", "3"), "latest")) == ["moved"]
    alarm = {"previous_digest": digest("latest"), "pattern": "late*"}
    assert poller.poll(Tag("v1", "3"), Tag("latest", "2"))[1:] == [
        ("immutable_moved", "latest", 5, alarm)
    ]


def test_warning_of_an_immutable_tag_is_written_by_the_next_poll(
    poller: Poller, scripted: Scripted, logged: list[dict[str, Any]]
) -> None:
    """After a kill between commit and log, the next poll writes the warning, and only once."""
    poller.poll("v1")
    scripted.then(Tag("v1", "new"))
    listing = scripted.list_tags("team/api")
    assert isinstance(listing, Listing)
    state = poller.store.state(REPOSITORY)
    outcome = accepted(listing, poller.store)
    poller.store.record(REPOSITORY, outcome, state, poller.job.interval, RELEASE)
    for _ in range(2):
        poller.fail()
    lines = [entry for entry in logged if entry["event"] == "tag.immutable_moved"]
    (line,) = lines
    assert line["log_level"] == "warning"
    assert (line["previous_digest"], line["new_digest"]) == (digest("v1"), "new")
    assert (line["pattern"], line["change_id"], line["tag"]) == ("v*", 2, "v1")
    assert [e["event"] for e in logged if e["event"].startswith("tag.")] == [
        "tag.updated",
        "tag.immutable_moved",
    ]


def accepted(listing: Listing, store: Store) -> Accepted:
    return Accepted(listing, diff(store.tags(REPOSITORY), listing.tags))


def test_same_tag_of_another_repository_is_another_tag(poller: Poller) -> None:
    """The digest of a deleted tag says nothing about a tag of that name in another repository."""
    poller.poll("v1", "x")
    poller.poll("x")
    poller.job = replace(poller.job, repository=Repository("swr", "team/other"))
    assert kinds(poller.poll("x")) == ["baselined"]
    assert poller.poll(Tag("v1", "new"), "x") == [("added", "v1", 5)]


# --- failures -------------------------------------------------------------------------------------


def test_failures_have_one_event_when_they_begin(
    poller: Poller, database: Path, clock: FakeClock
) -> None:
    """Further failures have none, whatever their reason, after a restart and on the next day."""
    poller.poll("a")
    assert poller.fail() == [
        ("failed", None, None, {"reason": "unreachable", "error": "no connection"})
    ]
    assert poller.fail(Unauthorized("the registry refused the login")) == []
    clock.advance(days=2)
    with Store.open(database) as reopened:
        poller.store = reopened
        assert poller.fail() == []
        assert poller.poll("a") == [("recovered", None, None, {"after": "failed"})]
        assert poller.poll("a") == []
        assert kinds(poller.fail()) == ["failed"]


def test_repository_that_fails_from_the_start(poller: Poller) -> None:
    """A repository that was never listed fails, recovers and gets its baseline."""
    assert kinds(poller.fail()) == ["failed"]
    assert kinds(poller.fail()) == []
    assert kinds(poller.poll("a")) == ["recovered", "baselined"]


def test_unchanged_listing_ends_failures_and_repeats_nothing(poller: Poller) -> None:
    """A poll that returns the recorded listing again recovers; a second one has no event."""
    poller.poll("a")
    poller.fail()
    assert poller.stay() == [("recovered", None, None, {"after": "failed"})]
    assert poller.stay() == []


def test_damage_is_a_failure(poller: Poller, database: Path) -> None:
    """A damaged record fails once; a failure of the registry before or after it is the same run."""
    poller.poll("a")
    with closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE repositories SET last_error = 'altered'")
        db.commit()
    (event,) = poller.poll("a")
    assert event[:3] == ("failed", None, None)
    assert event[3]["reason"] == "damaged"
    assert poller.poll("a") == []
    with closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE repositories SET last_error = NULL")
        db.commit()
    assert poller.poll("a") == [("recovered", None, None, {"after": "failed"})]


# --- held listings --------------------------------------------------------------------------------


@pytest.fixture
def patient(poller: Poller) -> Poller:
    """A poller that holds a suspicious deletion for a hundred listings."""
    poller.job = replace(poller.job, agreeing_listings=100)
    return poller


def test_held_listing_has_one_event(patient: Poller, clock: FakeClock) -> None:
    """The same held deletion has one event, also after failures and on the next day."""
    patient.poll("a", "b")
    (event,) = patient.poll()
    assert event[:3] == ("held", None, None)
    assert event[3]["reasons"] == ["suspicious_deletion"]
    assert "would delete 2 of 2 tags" in event[3]["error"]
    assert patient.poll() == []
    assert kinds(patient.fail()) == ["failed"]
    assert patient.poll() == [("recovered", None, None, {"after": "failed"})]
    clock.advance(days=1)
    assert patient.poll() == []


def test_other_held_set_has_its_own_event(patient: Poller) -> None:
    """A listing that is held for other deletions has an event; returning to the first has none."""
    tags = [f"t{number}" for number in range(12)]
    patient.poll(*tags)
    assert kinds(patient.poll("t1")) == ["held"]
    assert kinds(patient.poll("t2")) == ["held"]
    assert kinds(patient.poll("t1")) == []


def test_recorded_listing_ends_the_held_state(poller: Poller) -> None:
    """When the deletion is recorded, or the tags are back, the repository recovers."""
    poller.poll("a", "b")
    poller.poll()
    assert poller.poll("a", "b") == [("recovered", None, None, {"after": "held"})]
    assert kinds(poller.poll("a", "b", "c")) == ["added"]
    assert kinds(poller.poll()) == ["held"]
    assert kinds(poller.poll()) == ["recovered", "deleted", "deleted", "deleted"]


def test_same_deletion_is_held_again_later(patient: Poller, clock: FakeClock) -> None:
    """A deletion that was held before the last recorded listing has an event again."""
    patient.poll("a", "b")
    assert kinds(patient.poll()) == ["held"]
    assert kinds(patient.poll("a", "b")) == ["recovered"]
    clock.advance(hours=5)
    assert kinds(patient.poll("a", "b")) == []
    assert kinds(patient.poll()) == ["held"]


def test_failure_while_held(patient: Poller) -> None:
    """A recorded listing after held and failed polls recovers once."""
    patient.poll("a", "b")
    patient.poll()
    assert kinds(patient.fail()) == ["failed"]
    assert patient.poll("a", "b") == [("recovered", None, None, {"after": "failed"})]


def test_alternation_repeats_no_event(patient: Poller) -> None:
    """Two replicas that take turns cause two events each way, and then none until it ends."""
    patient.poll("a", "b")
    events = [kinds(patient.poll(*tags)) for tags in ([], ["a", "b"]) * 4]
    assert events == [["held"], ["recovered"], *[[]] * 6]
    # No listing flips for so long that the alternation has ended, in the state that is held.
    rest = [kinds(patient.poll()) for _ in range(15)]
    assert [event for event in rest if event] == [["held"]]
    assert kinds(patient.poll("a", "b")) == ["recovered"]


# --- unverified manifests -------------------------------------------------------------------------


def test_unverified_manifest_has_one_event_for_each_digest(poller: Poller) -> None:
    """A tag whose manifest is wrong has one event, until it points to another such digest."""
    wrong: dict[str, Any] = {"unverified": ("a",), "wrong_manifests": {"a": "sha256:other"}}
    poller.poll("a", "b")
    detail = {"digest": digest("a"), "image_id": None, "manifest_digest": "sha256:other"}
    assert poller.poll("a", "b", **wrong) == [("unverified", "a", None, detail)]
    assert poller.poll("a", "b", **wrong) == []
    assert kinds(poller.poll("a", "b", **{**wrong, "missing": ("b",)})) == []
    assert poller.poll("a", "b") == []
    assert kinds(poller.poll(Tag("a", "new"), "b", **wrong)) == ["moved", "unverified"]
    both: dict[str, Any] = {"unverified": ("a", "b")}
    assert [event[:2] for event in poller.poll(Tag("a", "new"), "b", **both)] == [
        ("unverified", "b")
    ]


# --- transactions ---------------------------------------------------------------------------------


def test_dry_run_and_dropped_listing_have_no_event(
    poller: Poller, scripted: Scripted, query: Query
) -> None:
    """Nothing is written for a poll that is not recorded."""
    poller.poll("a")
    assert poller.poll("a", "b", options=Options(dry_run=True)) == []
    state = poller.store.state(REPOSITORY)
    poller.poll("a", "c")
    scripted.then("a")
    listing = scripted.list_tags("team/api")
    assert isinstance(listing, Listing)
    dropped = Accepted(listing, [])
    assert poller.store.record(REPOSITORY, dropped, state, poller.job.interval) is None
    assert query("SELECT kind FROM events ORDER BY id") == [("baselined",), ("added",)]


def test_undone_write_has_no_event(poller: Poller, database: Path, query: Query) -> None:
    """If the events cannot be written, the poll is not recorded, and the reverse."""
    poller.poll("a")
    for table in ("events", "observations"):
        with closing(sqlite3.connect(database)) as db:
            db.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON {table}"
                " BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
            db.execute("UPDATE observations SET last_at = '2001-01-01T00:00:00.000Z'")
            db.commit()
        with pytest.raises(StoreError):
            poller.poll("a", "b")
        with closing(sqlite3.connect(database)) as db:
            db.execute("DROP TRIGGER refuse")
            db.commit()
        assert query("SELECT count(*) FROM changes") == query("SELECT count(*) FROM events")
    assert kinds(poller.poll("a", "b")) == ["added"]


def test_other_repository_is_apart(poller: Poller) -> None:
    """The failures of one repository say nothing about another one."""
    poller.poll("a")
    poller.fail()
    poller.job = replace(poller.job, repository=Repository("swr", "team/other"))
    assert kinds(poller.fail()) == ["failed"]
