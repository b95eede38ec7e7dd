"""The daemon's health: counts, problems, and the status line."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from tagsync.clock import timestamp
from tagsync.daemon.health import Census, census, faults, problems, summarize
from tagsync.daemon.watchlist import WatchedRepository, Watchlist
from tagsync.database.verifications import Verification
from tagsync.errors import Forbidden
from tagsync.models import Distrust, Repository
from tagsync.polling.jobs import Poll, PollOutcome
from tests.support.daemon import HOUR, MINUTE, FakeRegistry, plan, watch

NOON = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
FAILED = Poll(Repository("a", "team/x"), "failed", detail="not yours", error=Forbidden("not yours"))


def watchlist(*names: str) -> Watchlist:
    registry = FakeRegistry(lambda: NOON)
    made = Watchlist()
    made.apply_plan(
        plan(watch(*names), watch("t/x", registry="b"), a=registry, b=registry), {}, NOON
    )
    return made


def get(made: Watchlist, name: str) -> WatchedRepository:
    found = made.get(name)
    assert found
    return found


def test_the_census_counts_each_registry() -> None:
    """Repositories, tags, failures and ages are counted by registry."""
    made = watchlist("t/1", "t/2", "t/3")
    for name, minutes in (("a/t/1", 10), ("a/t/2", 1)):
        get(made, name).last_complete_at = timestamp(NOON - minutes * MINUTE)
        get(made, name).tags = 7
    get(made, "a/t/1").note_result(FAILED, NOON)
    assert census(made, NOON) == [
        Census(
            "a",
            repositories=3,
            tags=14,
            failing=1,
            stale=1,
            empty=0,
            oldest=NOON - 10 * MINUTE,
            unpolled=2,
        ),
        Census("b", repositories=1, tags=0, failing=0, stale=0, empty=0, oldest=None, unpolled=1),
    ]
    assert census(Watchlist(), NOON) == []


def test_the_census_counts_lists_that_are_distrusted() -> None:
    """A distrusted list counts from the poll that says so until one that does not."""
    made = watchlist("t/1", "t/2")
    distrust = Distrust("gitlab", "v1", "sha256:a", "sha256:b", timestamp(NOON), timestamp(NOON))
    good = Poll(Repository("a", "t/1"), "ok")
    for poll, count in ((replace(good, distrust=distrust), 1), (FAILED, 1), (good, 0)):
        get(made, "a/t/1").note_result(poll, NOON)
        assert census(made, NOON)[0].distrusted == count


@pytest.mark.parametrize(
    ("outcome", "held"), [("ok", 0), ("held", 1), ("dropped", 1), ("failed", 1)]
)
def test_a_repository_is_held_until_a_listing_is_recorded(outcome: PollOutcome, held: int) -> None:
    """The census counts a held listing until a newer one is recorded; a failed poll has none."""
    made = watchlist("t/1", "t/2")
    assert census(made, NOON)[0].held == 0
    get(made, "a/t/1").note_result(Poll(FAILED.repository, "held"), NOON)
    get(made, "a/t/1").note_result(Poll(FAILED.repository, outcome), NOON)
    assert census(made, NOON)[0].held == held


def test_each_stale_repository_is_a_problem() -> None:
    """A problem names the repository, its last complete listing, and the last error."""
    made = watchlist("t/2", "t/1", "t/3")
    get(made, "a/t/1").last_complete_at = timestamp(NOON)
    get(made, "a/t/2").note_result(FAILED, NOON)
    assert problems(made, NOON + 2 * MINUTE) == []
    get(made, "a/t/3").last_complete_at = timestamp(NOON + HOUR)
    get(made, "b/t/x").last_complete_at = timestamp(NOON + HOUR)
    text = "has had no complete listing for three intervals"
    assert problems(made, NOON + HOUR) == [
        f"a/t/1 {text} (the last: 2026-05-03T12:00:00.000Z)",
        f"a/t/2 {text} (the last: never; not yours)",
    ]


def test_an_answer_names_twenty_repositories_at_most() -> None:
    """However many are stale, the answer stays short and says how many more there are."""
    made = watchlist(*(f"t/{number:02}" for number in range(30)))
    get(made, "b/t/x").last_complete_at = timestamp(NOON + HOUR)
    sentences = problems(made, NOON + HOUR)
    assert len(sentences) == 21
    assert sentences[19].startswith("a/t/19 ")
    assert sentences[20] == "10 more repositories are stale"


def test_each_alternating_repository_is_a_problem_while_it_lasts() -> None:
    """A repository whose states alternate is named, until a listing does not say so."""
    made = watchlist("t/1", "t/2")
    repository = Repository("a", "t/1")
    for name in ("a/t/1", "a/t/2", "b/t/x"):
        get(made, name).last_complete_at = timestamp(NOON)
    text = (
        "a/t/1 alternates between two states: replicas of its registry may disagree, see"
        " listings.alternating in the log"
    )
    seen = []
    for poll in (
        Poll(repository, "ok", reasons=("alternating",)),
        Poll(repository, "failed", reasons=("unreachable",)),
        Poll(repository, "held", reasons=("alternating", "stale_listing")),
        Poll(repository, "dropped"),
        Poll(repository, "ok"),
    ):
        get(made, "a/t/1").note_result(poll, NOON)
        seen.append(problems(made, NOON))
    assert seen == [[text]] * 4 + [[]]


def test_faults_are_a_scheduler_without_heartbeat_and_a_database_that_is_lost() -> None:
    """Three heartbeats that are missing are a fault, and so is another file as the database."""
    assert faults(30.0, None) == []
    silent = "the scheduler has not run any job for 31 s"
    assert faults(30.6, None) == [silent]
    assert faults(30.6, "the file is gone") == [silent, "the file is gone"]
    assert summarize([], None, "the file is gone") == "Nothing is recorded: the file is gone."


def test_the_status_line_has_counts_and_the_last_rejected_reload() -> None:
    """The status has counts, and a second sentence after a rejected reload."""
    good = Census("a", repositories=3, tags=14, failing=0, stale=0, empty=0, oldest=None)
    bad = Census("b", repositories=1, tags=0, failing=1, stale=2, empty=3, oldest=None)
    assert summarize([good], None) == (
        "Watching 3 repositories in 1 registries with 14 tags: all is well."
    )
    fault = Verification(timestamp(NOON), "fault", 1.5, "chain: change 1 is missing")
    assert summarize([good], None, verification=fault) == (
        "Watching 3 repositories in 1 registries with 14 tags: the last verification found a fault."
    )
    new = Census("c", 2, 0, 0, 0, 0, oldest=None, unpolled=2, undiscovered=1)
    assert summarize([new], None) == (
        "Watching 2 repositories in 1 registries with 0 tags: 1 watches not expanded yet,"
        " 2 not polled yet."
    )
    assert summarize([good, bad], "there is no key 'x'") == (
        "Watching 4 repositories in 2 registries with 14 tags: 1 failing, 2 stale, 3 empty watches."
        " The configuration was not reloaded: there is no key 'x'."
    )


def test_a_listing_of_the_future_is_not_fresh() -> None:
    """If the clock is far behind the record, the repository counts as stale."""
    made = watchlist("t/1")
    get(made, "a/t/1").last_complete_at = timestamp(NOON + timedelta(days=1))
    assert len(problems(made, NOON)) == 1
