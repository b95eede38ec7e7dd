"""Listed tags that have no digest in the listing, and what later changes of them can claim."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import stamina

from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.models import Listing, Repository, Tag
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll
from tagsync.registries.oci.api import Oci
from tests.support.audit import Row, RunQuery, at, pointing, tag_states
from tests.support.clock import FakeClock
from tests.support.docker_registry import digest_of
from tests.support.oci import REPOSITORY, Fake, image, registry_of
from tests.support.polls import counts
from tests.support.record import assert_history_is_whole
from tests.support.registries import INTERVAL, Scripted
from tests.support.registries import REPOSITORY as SCRIPTED

Query = Callable[..., list[tuple[Any, ...]]]

ONE, TWO = digest_of(image("one")), digest_of(image("two"))
CHANGES = "SELECT old_digest, new_digest, not_before, observed_at FROM changes WHERE tag = 'v1'"
UNRESOLVED = "SELECT unresolved_since FROM tags WHERE tag = 'v1'"
STILL_AT = f"SELECT still_at FROM tag_history WHERE tag = 'v1' AND digest = '{ONE}'"


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def fake() -> Fake:
    return Fake({"v1": image("one"), "other": image("other")})


@pytest.fixture
def registry(fake: Fake, clock: FakeClock) -> Iterator[Oci]:
    with closing(registry_of(fake, clock=clock)) as opened:
        yield opened


class PollsAt:
    """Polls the fake repository at a minute of the test's clock."""

    def __init__(self, registry: Oci, database: Path, clock: FakeClock) -> None:
        self._job = Job(Repository("reg", REPOSITORY), registry, INTERVAL)
        self._database, self._clock, self._began = database, clock, clock.now

    def poll(self, minute: int, **settings: Any) -> Poll:
        """Poll as a new process does."""
        self._clock.now = self._began + timedelta(minutes=minute)
        job = msgspec.structs.replace(self._job, **settings)
        with Store.open(self._database) as store:
            return poll(job, store, clock=self._clock)

    def __call__(self, minute: int, **settings: Any) -> tuple[str, int, int, int]:
        """Poll as a new process does, and verify; return the outcome and the counts."""
        result = counts(self.poll(minute, **settings))
        assert_history_is_whole(self._database)
        with Audit.open(self._database) as audit:
            assert {row["result"] for row in audit.verify()} == {"ok"}
        return result


@pytest.fixture
def poll_at(registry: Oci, database: Path, clock: FakeClock) -> PollsAt:
    return PollsAt(registry, database, clock)


@pytest.fixture
def rows_of(database: Path) -> RunQuery:
    """Return the rows of a query of `Audit`, by its name and arguments."""

    def run(name: str, *arguments: Any) -> list[Row]:
        with Audit.open(database) as audit:
            return list(getattr(audit, name)(*arguments))

    return run


@pytest.mark.parametrize("status", [404, 500])
def test_change_after_an_unresolved_tag_happened_after_it_was_last_resolved(
    poll_at: PollsAt, fake: Fake, query: Query, status: int
) -> None:
    """A listing that cannot resolve a tag does not prove that the tag has its recorded digest.

    The tag moves unseen, and is listed while it is deleted. It left its recorded digest before
    that listing, so the deletion from that digest has a window that begins earlier.
    """
    poll_at(0)
    poll_at(5)
    fake.refuse("v1", status)
    for minute in (10, 15, 20):
        assert poll_at(minute) == ("ok", 0, 0, 0)
        assert query(UNRESOLVED) == [(at(5),)]
        assert query(STILL_AT) == [(at(5),)]
    del fake.tags["v1"]
    assert poll_at(25) == ("ok", 0, 0, 1)
    assert query(CHANGES)[1:] == [(ONE, None, at(5), at(25))]
    assert query(STILL_AT) == [(at(5),)]


def test_tag_that_is_resolved_again_has_narrow_windows_again(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """Once a listing resolves the tag, the window of its next change begins there."""
    poll_at(0)
    fake.refuse("v1", 404)
    fake.tags["other"] = image("other 2")
    assert poll_at(5) == ("ok", 0, 1, 0)
    fake.overrides.clear()
    assert poll_at(10) == ("ok", 0, 0, 0)
    assert query(UNRESOLVED) == [(None,)]
    fake.tags["v1"] = image("two")
    assert poll_at(15) == ("ok", 0, 1, 0)
    assert query(CHANGES)[1:] == [(ONE, TWO, at(10), at(15))]


def test_move_of_an_unresolved_tag_does_not_widen_other_changes(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """Changes of other tags in the same listing keep the last listing as their lower limit."""
    poll_at(0)
    fake.refuse("v1", 404)
    poll_at(5)
    fake.overrides.clear()
    fake.tags |= {"v1": image("two"), "other": image("other 2"), "new": image("new")}
    assert poll_at(10) == ("ok", 1, 2, 0)
    assert query("SELECT tag, not_before FROM changes WHERE observed_at = ?", at(10)) == [
        ("new", at(5)),
        ("other", at(5)),
        ("v1", at(0)),
    ]
    assert query(UNRESOLVED) == [(None,)]


def test_excluded_tag_may_have_moved_since_it_was_last_resolved(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """A tag that the configuration excludes for a while may have moved at any time meanwhile."""
    poll_at(0)
    assert poll_at(5, exclude_tags=("v*",)) == ("ok", 0, 1, 0)
    assert poll_at(10, exclude_tags=("v*",)) == ("ok", 0, 0, 0)
    fake.tags["v1"] = image("two")
    assert poll_at(15) == ("ok", 0, 1, 0)
    assert query(CHANGES)[1:] == [(ONE, None, at(0), at(5)), (None, TWO, at(0), at(15))]
    assert query("SELECT not_before, observed_at FROM tag_moves") == [(at(0), at(15))]


def test_tag_that_is_excluded_while_it_cannot_be_resolved(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """Excluding a tag that could not be resolved does not confirm its digest either."""
    poll_at(0)
    fake.refuse("v1", 404)
    poll_at(5)
    assert poll_at(10, exclude_tags=("v*",)) == ("ok", 0, 1, 0)
    assert query(CHANGES)[1:] == [(ONE, None, at(0), at(10))]
    assert query(UNRESOLVED) == [(at(0),)]
    del fake.tags["v1"]
    assert poll_at(15, exclude_tags=("v*",)) == ("ok", 0, 0, 1)
    assert query(CHANGES)[2:] == [(None, None, at(10), at(15))]


def test_tag_that_was_never_resolved_may_have_its_digest_since_it_appeared(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """The first digest of a tag has a window that begins before the tag was first listed."""
    poll_at(0)
    fake.tags["new"] = image("new")
    fake.refuse("new", 404)
    assert poll_at(5) == ("ok", 1, 0, 0)
    assert poll_at(10) == ("ok", 0, 0, 0)
    fake.overrides.clear()
    assert poll_at(15) == ("ok", 0, 1, 0)
    assert query("SELECT kind, not_before, observed_at FROM changes WHERE tag = 'new'") == [
        ("added", at(0), at(5)),
        ("updated", at(0), at(15)),
    ]


def test_unresolved_tag_of_the_first_listing_has_its_start(
    poll_at: PollsAt, fake: Fake, query: Query
) -> None:
    """Nothing is known before the first listing, so the window of a first digest begins there."""
    fake.refuse("v1", 404)
    poll_at(0)
    poll_at(5)
    fake.overrides.clear()
    assert poll_at(10) == ("ok", 0, 1, 0)
    assert query(CHANGES) == [(None, None, None, at(0)), (None, ONE, at(0), at(10))]


def test_answer_about_an_unresolved_tag_is_unsure(
    poll_at: PollsAt, fake: Fake, rows_of: RunQuery
) -> None:
    """After a tag was last resolved, its digest is not observed, and uncertain once it changed."""
    poll_at(0)
    poll_at(5)
    fake.refuse("v1", 404)
    poll_at(10)
    poll_at(15)
    for minute in (3, 5):
        assert tag_states(rows_of("tags_at", (), at(minute)))[1][3:] == ("certain", None, None)
    assert tag_states(rows_of("tags_at", (), at(12))) == [
        ("other", digest_of(image("other")), True, "certain", None, None),
        ("v1", ONE, True, "not observed", at(5), None),
    ]
    fake.overrides.clear()
    fake.tags |= {"v1": image("two")}
    poll_at(20)
    assert tag_states(rows_of("tags_at", (), at(12)))[1:] == [
        ("v1", ONE, True, "uncertain", at(5), at(20)),
        ("v1", TWO, True, "uncertain", at(5), at(20)),
    ]
    assert tag_states(rows_of("tags_at", (), at(20)))[1:] == [
        ("v1", TWO, True, "certain", None, None)
    ]


def test_difference_until_an_unresolved_tag_is_unsure(
    poll_at: PollsAt, fake: Fake, rows_of: RunQuery
) -> None:
    """A difference whose second moment is after the tag was last resolved is not observed."""
    poll_at(0)
    fake.tags["v1"] = image("two")
    poll_at(5)
    fake.refuse("v1", 404)
    poll_at(10)
    (row,) = rows_of("diff", (), at(0), at(10))
    assert (row["new_digest"], row["certainty"], row["unsure_from"]) == (TWO, "not observed", at(5))
    (row,) = rows_of("diff", (), at(0), at(5))
    assert row["certainty"] == "certain"


def test_clock_set_back_never_narrows_a_window(poll_at: PollsAt, fake: Fake, query: Query) -> None:
    """The lower limit is the earlier of both, if the clock was set back meanwhile."""
    poll_at(60)
    fake.refuse("v1", 404)
    poll_at(65)
    fake.tags["other"] = image("other 2")
    poll_at(0)
    fake.overrides.clear()
    fake.tags["v1"] = image("two")
    poll_at(5)
    assert query("SELECT not_before FROM changes WHERE new_digest = ?", TWO) == [(at(0),)]


def test_held_listing_neither_confirms_nor_questions_a_digest(
    store: Store, scripted: Scripted, clock: FakeClock, query: Query
) -> None:
    """A listing that is held changes nothing of what is known of a tag."""
    names = [f"t{number}" for number in range(20)]

    def poll_next(*tags: Tag | str) -> str:
        clock.advance(minutes=5)
        scripted.then(*tags)
        return poll(Job(SCRIPTED, scripted, INTERVAL), store, clock=clock).outcome

    assert poll_next("v1", *names) == "ok"
    assert poll_next("v1") == "held"
    assert query(UNRESOLVED) == [(None,)]
    scripted.then("v1", *names)
    (listing,) = scripted.script
    assert isinstance(listing, Listing)
    listing = msgspec.structs.replace(
        listing, tags={**listing.tags, "v1": Tag("v1")}, missing=("v1",)
    )
    scripted.script[:] = [listing]
    assert poll(Job(SCRIPTED, scripted, INTERVAL), store, clock=clock).outcome == "ok"
    assert query(UNRESOLVED) == [(at(5),)]
    assert poll_next("v1") == "held"
    assert query(UNRESOLVED) == [(at(5),)]
    assert poll_next(pointing("v1", "x"), *names) == "ok"
    assert query("SELECT not_before FROM changes WHERE tag = 'v1' AND id > 21") == [(at(5),)]


def test_tag_that_only_one_of_two_reads_could_not_resolve(
    poll_at: PollsAt, fake: Fake, clock: FakeClock, query: Query
) -> None:
    """A tag is unresolved if the first of two reads could not resolve it and the second lacks it.

    It is resolved if the second read resolves it.
    """
    poll_at(0)
    fake.refuse("v1", 404)
    lists = iter((["v1"], ["other"], ["v1"], ["v1", "other"]))
    path = f"/v2/{REPOSITORY}/tags/list"

    def next_list(request: httpx.Request) -> httpx.Response:
        if request.url.path != path:
            return fake(request)
        names = next(lists)
        if names == ["v1", "other"]:
            fake.overrides.clear()
        return httpx.Response(200, json={"name": REPOSITORY, "tags": names})

    with closing(registry_of(next_list, clock=clock)) as flapping:
        assert poll_at(5, registry=flapping) == ("ok", 0, 0, 0)
        assert query(UNRESOLVED) == [(at(0),)]
        assert poll_at(10, registry=flapping) == ("ok", 0, 0, 0)
        assert query(UNRESOLVED) == [(None,)]


def test_damaged_time_does_not_become_history(
    poll_at: PollsAt, fake: Fake, query: Query, database: Path
) -> None:
    """A poll that would record a damaged `unresolved_since` fails and records nothing."""
    poll_at(0)
    fake.refuse("v1", 404)
    poll_at(5)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE tags SET unresolved_since = 'yesterday' WHERE tag = 'v1'")
        connection.commit()
    fake.overrides.clear()
    fake.tags["v1"] = image("two")
    result = poll_at.poll(10)
    assert (result.outcome, result.reasons) == ("failed", ("damaged",))
    assert "the tags of reg/team/api" in str(result.detail)
    assert query("SELECT count(*) FROM changes") == [(2,)]
