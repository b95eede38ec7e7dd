"""Polls that use a registry's own list, and the record of a list that lies."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina

from tagsync.audit.verify import verify
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.emulator.oci import GitLab, ListFault, OciEmulator
from tagsync.models import Repository
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, fill
from tests.support.polls import event_names
from tests.support.record import assert_history_is_whole

pytestmark = pytest.mark.processes

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]

OBSERVATIONS = "SELECT outcome, source, reasons, polls FROM observations ORDER BY id"
MOVED = "v00007", "v00023"


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def gitlab() -> Iterator[OciEmulator]:
    """An emulated GitLab with 31 tags."""
    with OciEmulator(GitLab()) as running:
        fill(running, 31)
        yield running


class Polls:
    """Polls the repository every two minutes: one process, or a new one for each poll."""

    def __init__(self, emulator: OciEmulator, store: Store, clock: FakeClock, kind: str) -> None:
        self._emulator, self._store, self._clock = emulator, store, clock
        self._is_sync = kind == "sync"
        self._registry = ListedRegistry(emulator, clock)

    def __call__(self, **settings: Any) -> Poll:
        """Poll once, with these settings of the job."""
        if self._is_sync:
            self.restart()
        self._clock.advance(minutes=2)
        repository = Repository("reg", REPOSITORY)
        job = Job(repository, self._registry.oci, timedelta(minutes=5), **settings)
        return poll(job, self._store, clock=self._clock)

    def until_distrusted(self) -> int:
        """Poll until the list is distrusted. Return the number of polls."""
        return next(n for n in range(1, 102) if "list_distrusted" in self().reasons)

    def restart(self) -> None:
        """Open the registry again, without the memory of the process."""
        self.close()
        self._registry = ListedRegistry(self._emulator, self._clock)

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()


@pytest.fixture(params=["run", "sync"])
def polls(
    request: pytest.FixtureRequest, gitlab: OciEmulator, store: Store, clock: FakeClock
) -> Iterator[Polls]:
    """Polls by a daemon, and by one process for each poll."""
    made = Polls(gitlab, store, clock, request.param)
    yield made
    made.close()


def tags(store: Store) -> dict[str, str | None]:
    """Return the recorded digest of each tag."""
    return {name: tag.digest for name, tag in store.tags(Repository("reg", REPOSITORY)).items()}


def test_list_that_lies_is_found_by_run_and_by_sync(
    polls: Polls,
    gitlab: OciEmulator,
    store: Store,
    database: Path,
    query: Query,
    logged: Events,
) -> None:
    """A list that does not move tags is distrusted within 100 polls, recorded and logged once."""
    polls()
    gitlab.begin(ListFault.FROZEN)
    before = gitlab.tags(REPOSITORY)
    moved = {tag: gitlab.push(REPOSITORY, tag, f"{tag} again") for tag in MOVED}
    assert polls.until_distrusted() <= 101
    assert tags(store) == gitlab.tags(REPOSITORY)
    assert_history_is_whole(database)
    with reading(database) as db:
        assert {row["result"] for row in verify(db, set())} == {"ok"}
    for _ in range(3):
        polls()
    assert query(OBSERVATIONS)[-1] == ("ok", "head", "list_distrusted", 4)
    ((detail,),) = query("SELECT detail FROM observations ORDER BY id DESC LIMIT 1")
    (entry,) = [each for each in logged if each["event"] == "list.distrusted"]
    digests = moved[entry["tag"]], before[entry["tag"]]
    assert (entry["head_digest"], entry["list_digest"]) == digests
    assert entry["first_at"] < entry["confirmed_at"]
    for name in ("tag", "head_digest", "list_digest", "first_at", "confirmed_at", "list"):
        assert entry[name] in detail


def test_distrust_is_logged_once_by_a_process(
    gitlab: OciEmulator, store: Store, clock: FakeClock, logged: Events, query: Query
) -> None:
    """Later changes, which begin no other observation, do not log the distrust again."""
    with closing(Polls(gitlab, store, clock, "run")) as polls:
        polls()
        gitlab.begin(ListFault.FROZEN)
        gitlab.push(REPOSITORY, MOVED[0], "again")
        polls.until_distrusted()
        gitlab.push(REPOSITORY, MOVED[1], "again")
        assert polls().moved == 1
    assert event_names(logged, "list.") == ["list.distrusted"]
    assert query(OBSERVATIONS)[-1][1:3] == ("head", "list_distrusted")


def test_distrust_ends_with_the_process_and_the_lie(
    polls: Polls, gitlab: OciEmulator, query: Query
) -> None:
    """After a restart, a list that agrees again is used, and one that still lies is not."""
    polls()
    gitlab.begin(ListFault.FROZEN)
    gitlab.push(REPOSITORY, MOVED[0], "again")
    polls.until_distrusted()
    polls.restart()
    polls()
    assert query(OBSERVATIONS)[-1][1:3] == ("head", "list_distrusted")
    gitlab.end(ListFault.FROZEN)
    polls.restart()
    polls()
    assert query(OBSERVATIONS)[-1][1:3] == ("gitlab", None)


def test_moment_between_list_and_head_is_no_lie(
    polls: Polls, gitlab: OciEmulator, query: Query, logged: Events
) -> None:
    """A list that is ahead of HEAD, or wrong for less than its lag, is not distrusted."""
    polls()
    gitlab.begin(ListFault.WRONG_DIGEST)
    polls()
    gitlab.end(ListFault.WRONG_DIGEST)
    polls()
    assert query("SELECT count(*) FROM observations WHERE reasons IS NOT NULL") == [(0,)]
    assert event_names(logged, "list.") == []
    assert query("SELECT count(*) FROM changes WHERE kind <> 'added'") == [(0,)]


def test_digest_that_a_tag_returns_to_is_no_old_one(
    polls: Polls, gitlab: OciEmulator, store: Store, query: Query
) -> None:
    """A tag that moves away and back points to the digest that the list has, so it is not late."""
    old = gitlab.tags(REPOSITORY)[MOVED[0]]
    for content in ("again", "image 7"):
        polls()
        gitlab.push(REPOSITORY, MOVED[0], content)
    polls()
    repository = Repository("reg", REPOSITORY)
    assert tags(store)[MOVED[0]] == old
    assert store.left_at(repository, MOVED[0], old) is None
    gitlab.push(REPOSITORY, MOVED[0], "third")
    polls()
    ((last,),) = query("SELECT max(observed_at) FROM changes")
    assert store.left_at(repository, MOVED[0], old) == last
    assert store.left_at(repository, MOVED[0], f"sha256:{'0' * 64}") is None
    assert store.left_at(repository, MOVED[1], old) is None


def test_settings_that_change_begin_another_observation(
    polls: Polls, gitlab: OciEmulator, query: Query
) -> None:
    """A list that cannot be read begins an observation whose source is HEAD."""
    polls()
    polls()
    gitlab.begin(ListFault.UNAVAILABLE)
    polls()
    assert query(OBSERVATIONS) == [("ok", "gitlab", None, 2), ("ok", "head", None, 1)]


def test_tag_that_moves_in_the_poll_of_the_distrust_has_its_image(
    gitlab: OciEmulator, store: Store, clock: FakeClock, database: Path
) -> None:
    """Images that were found before the list was distrusted are recorded with their tags."""
    with closing(Polls(gitlab, store, clock, "sync")) as polls:
        polls()
        gitlab.begin(ListFault.FROZEN)
        gitlab.push(REPOSITORY, MOVED[0], "again")
        while tags(store) != gitlab.tags(REPOSITORY):
            polls()
        gitlab.push(REPOSITORY, MOVED[0], "third")
        assert polls().reasons == ("list_distrusted",)
    assert tags(store) == gitlab.tags(REPOSITORY)
    with reading(database) as db:
        assert {row["result"] for row in verify(db, set())} == {"ok"}
