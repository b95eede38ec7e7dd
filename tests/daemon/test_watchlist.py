"""The watchlist: the state of repositories, and the differences of plans."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.clock import timestamp
from tagsync.daemon.watchlist import (
    Discovery,
    Plan,
    RegistryHandle,
    WatchedRepository,
    Watchlist,
)
from tagsync.database.state import Freshness
from tagsync.errors import Forbidden, RegistryError, Throttled, Unreachable
from tagsync.models import Repository, Watch, watch_of
from tagsync.polling.jobs import Poll, PollOutcome
from tests.support.daemon import HOUR, MINUTE, FakeRegistry, plan, watch

NOON = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
REPOSITORY = Repository("a", "team/api")


def registry() -> FakeRegistry:
    return FakeRegistry(lambda: NOON)


def watched(interval: timedelta = MINUTE) -> WatchedRepository:
    return WatchedRepository(REPOSITORY, watch("team/api", interval=interval), NOON)


def poll(outcome: PollOutcome = "ok", error: RegistryError | None = None, **fields: Any) -> Poll:
    return Poll(REPOSITORY, outcome, error=error, **fields)


def failed(error: RegistryError | None = None) -> Poll:
    return poll("failed", error or Unreachable("down"))


def watchlist(*watches: Watch, **registries: FakeRegistry) -> Watchlist:
    made = Watchlist()
    registries = registries or {"a": registry()}
    made.apply_plan(plan(*watches, **registries), {}, NOON)  # type: ignore[arg-type]  # mypy counts the options in
    return made


def names(some: Any) -> list[str]:
    return sorted(each.repository.name for each in some)


# --- one repository -------------------------------------------------------------------------------


def test_the_first_failure_changes_nothing_and_then_the_backoff_doubles() -> None:
    """A repository backs off from its second failure on, up to a quarter of an hour."""
    one = watched()
    pauses = []
    for _ in range(7):
        assert not one.note_result(failed(), NOON)
        assert one.backoff_until is not None
        pauses.append((one.backoff_until - NOON) / MINUTE)
    assert pauses == [0, 2, 4, 8, 15, 15, 15]
    assert one.note_result(poll(tags=3), NOON)
    assert (one.failures, one.backoff_until, one.tags) == (0, None, 3)
    assert not one.note_result(poll(tags=3), NOON)


def test_retry_after_counts_if_it_is_longer() -> None:
    """The registry's own Retry-After is honoured, also after the first failure."""
    one = watched()
    one.note_result(failed(Throttled("later", retry_after=90.0)), NOON)
    assert one.backoff_until == NOON + timedelta(seconds=90)
    one.note_result(failed(Throttled("later", retry_after=90.0)), NOON)
    assert one.backoff_until == NOON + 2 * MINUTE


@pytest.mark.parametrize(
    ("error", "transient"),
    [(Unreachable("down"), True), (Forbidden("no"), False), (None, False)],
)
def test_only_transient_errors_are_transient(error: RegistryError | None, transient: bool) -> None:
    """The last error decides; a failure of the database is not transient."""
    one = watched()
    one.note_result(failed(Unreachable("down")), NOON)
    one.note_result(poll("failed", error), NOON)
    assert one.transient == transient


@pytest.mark.parametrize(
    ("outcome", "complete", "tags"),
    [("ok", True, 5), ("held", False, 1), ("dropped", True, 1), ("failed", False, 1)],
)
def test_which_polls_count_as_complete(outcome: PollOutcome, complete: bool, tags: int) -> None:
    """Held and failed polls do not count as complete listings; dropped ones do."""
    one = watched()
    one.last_complete_at, one.tags = timestamp(NOON - HOUR), 1
    one.note_result(poll(outcome, tags=5, detail="why"), NOON)
    assert one.last_complete_at == timestamp(NOON if complete else NOON - HOUR)
    assert (one.tags, one.detail) == (tags, "why")


def test_a_poll_begins_unless_it_may_not() -> None:
    """A poll does not begin beside another one, nor before the end of the backoff."""
    one = watched()
    assert one.begin_poll(NOON)
    assert not one.begin_poll(NOON)
    assert one.overran
    one.polling = False
    assert one.begin_poll(NOON)
    assert not one.overran
    one.polling = False
    one.note_result(failed(Throttled("later", retry_after=60.0)), NOON)
    assert not one.begin_poll(NOON + timedelta(seconds=59))
    assert not one.polling
    assert not one.overran
    assert one.begin_poll(NOON + MINUTE)


def test_the_interval_of_a_poll_includes_the_backoff() -> None:
    """The expected time until the next poll is the interval, or a longer backoff."""
    one = watched()
    assert one.poll_interval(NOON) == MINUTE
    for _ in range(3):
        one.note_result(failed(), NOON)
    assert one.poll_interval(NOON) == 4 * MINUTE
    assert watched(2 * HOUR).poll_interval(NOON) == 2 * HOUR


def test_it_is_stale_after_three_intervals_without_a_listing() -> None:
    """Without any listing, the time counts from when the repository was first watched."""
    one = watched()
    assert not one.is_stale(NOON + 3 * MINUTE)
    assert one.is_stale(NOON + 3 * MINUTE + timedelta(seconds=1))
    one.note_result(poll(tags=1), NOON + 3 * MINUTE)
    assert not one.is_stale(NOON + 6 * MINUTE)


def test_jitter_only_delays() -> None:
    """The next poll is at its scheduled time or up to the jitter later."""
    jittered = Watch("a", ("team/api",), interval=HOUR, jitter=MINUTE)
    exact = WatchedRepository(REPOSITORY, watch("team/api", interval=HOUR), NOON)
    one = WatchedRepository(REPOSITORY, jittered, NOON)
    random = Random(1)
    scheduled = exact.next_due(NOON, random)
    for _ in range(100):
        assert scheduled <= one.next_due(NOON, random) <= scheduled + MINUTE


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_is_compared_with_the_one_before() -> None:
    """The difference names what is new, what left, and what has another schedule."""
    first, second = registry(), registry()
    made = watchlist(
        watch("team/stays", "team/changes", "team/goes"),
        watch("team/x", registry="b"),
        a=first,
        b=second,
    )
    kept = made.get("a/team/stays")
    after = plan(
        watch("team/stays", "team/comes"), watch("team/changes", interval=HOUR), a=first, c=second
    )
    difference = made.apply_plan(after, {}, NOON)
    assert difference.opened == {"c"}
    assert difference.closed == {"b"}
    # The registry itself is still in use, under another name.
    assert difference.retired == set()
    repositories = difference.repositories
    assert names(repositories.added) == ["team/comes"]
    assert names(repositories.removed) == ["team/goes", "team/x"]
    assert names(repositories.rescheduled) == ["team/changes"]
    assert kept
    assert made.get("a/team/stays") is kept
    assert kept.watch is after.watches[0]
    assert made.plan is after


def test_the_same_plan_changes_nothing() -> None:
    """A reload of an unchanged configuration gives an empty difference."""
    only = registry()
    watches = (watch("team/api", "team/*"), watch("x/*", registry="b"))
    made = watchlist(*watches, a=only, b=only)
    difference = made.apply_plan(plan(*watches, a=only, b=only), {}, NOON)
    assert not difference.opened | difference.closed | difference.retired
    assert difference.started == difference.stopped == ()
    assert difference.repositories == type(difference.repositories)()


@pytest.mark.parametrize("changes", [{"concurrency": 5}, {"rate": 1.0}, {"a": registry()}])
def test_a_handle_that_differs_is_opened_anew(changes: dict[str, Any]) -> None:
    """Other limits, or another registry, are a difference of the registry."""
    old = registry()
    made = watchlist(watch("team/api"), a=old)
    difference = made.apply_plan(plan(watch("team/api"), **({"a": old} | changes)), {}, NOON)
    assert difference.opened == {"a"}
    assert difference.closed == set()
    assert difference.retired == ({old} if "a" in changes else set())
    assert difference.repositories.added == ()


def test_recorded_repositories_are_watched_with_what_is_known() -> None:
    """A recorded repository that a glob covers is watched without a discovery."""
    made = Watchlist()
    recorded = {
        REPOSITORY: Freshness(timestamp(NOON), 7),
        Repository("a", "other/x"): Freshness(),
    }
    made.apply_plan(plan(watch("team/*"), a=registry()), recorded, NOON + HOUR)
    (one,) = made
    assert (one.repository, one.last_complete_at, one.tags) == (REPOSITORY, timestamp(NOON), 7)


def test_discovered_repositories_survive_a_reload() -> None:
    """A discovered repository is watched while a watch covers it, also after a break."""
    only = registry()
    made = watchlist(watch("team/*"), a=only)
    assert names(made.add_discovered({REPOSITORY}, {}, NOON).added) == ["team/api"]
    assert made.add_discovered({REPOSITORY}, {}, NOON).added == ()
    other = watch("team/*", interval=HOUR)
    assert names(made.apply_plan(plan(other, a=only), {}, NOON).repositories.rescheduled) == [
        "team/api"
    ]
    assert names(made.apply_plan(plan(a=only), {}, NOON).repositories.removed) == ["team/api"]
    assert names(made.apply_plan(plan(other, a=only), {}, NOON).repositories.added) == ["team/api"]


def test_another_schedule_ends_the_backoff_and_nothing_else_does() -> None:
    """A new schedule ends the backoff; a longer list of names does not."""
    only = registry()
    made = watchlist(watch("team/api"), a=only)
    (one,) = made
    one.note_result(failed(Throttled("later", retry_after=3600.0)), NOON)
    made.apply_plan(plan(watch("team/api", "team/web"), a=only), {}, NOON)
    assert one.backoff_until == NOON + HOUR
    made.apply_plan(plan(watch("team/api", interval=HOUR), a=only), {}, NOON)
    assert one.backoff_until is None
    assert one.failures == 1


REPOSITORIES = st.sampled_from(["team/a", "team/b", "tools/a", "team/*", "tools/*", "*"])
WATCHES = st.builds(
    Watch,
    st.sampled_from("ab"),
    st.lists(REPOSITORIES, min_size=1, max_size=3, unique=True).map(tuple),
    interval=st.sampled_from([MINUTE, HOUR]),
)
FOUND = st.frozensets(
    st.builds(Repository, st.sampled_from("ab"), st.sampled_from(["team/a", "team/c", "tools/b"]))
)
HANDLES = [RegistryHandle(registry(), limit, 1.0) for limit in (1, 2)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    watches = tuple(draw(st.lists(WATCHES, max_size=3)))
    used = {each.registry for each in watches} | draw(st.sets(st.sampled_from("abc")))
    return Plan({name: draw(st.sampled_from(HANDLES)) for name in sorted(used)}, watches)


@given(plans(), plans(), FOUND, FOUND)
def test_whatever_changes_the_differences_lead_to_the_new_plan(
    before: Plan, after: Plan, found: frozenset[Repository], recorded: frozenset[Repository]
) -> None:
    """The differences lead to the same watchlist as a fresh start."""
    made, state = Watchlist(), dict.fromkeys(recorded, Freshness())
    differences = [
        made.apply_plan(before, {}, NOON).repositories,
        made.add_discovered(found, state, NOON),
    ]
    kept = {each.name: each for each in made}
    change = made.apply_plan(after, state, NOON)
    carried_out: set[WatchedRepository] = set()
    for difference in (*differences, change.repositories):
        assert carried_out.issuperset(difference.removed)
        assert carried_out.isdisjoint(difference.added)
        carried_out = (carried_out - set(difference.removed)) | set(difference.added)
        assert carried_out.issuperset(difference.rescheduled)
    assert carried_out == set(made)

    candidates = {each for one in after.watches for each in one.named} | found | recorded
    covered = {each: watch_of(each, after.watches) for each in candidates}
    assert {each.repository: each.watch for each in made} == {
        each: one for each, one in covered.items() if one is not None
    }
    assert all(kept[each.name] is each for each in made if each.name in kept)
    assert {each.watch for each in made.discoveries} == {w for w in after.watches if w.globs}
    # No job is left in a pool that is closed, and none starts in one that does not exist.
    assert {each.watch.registry for each in change.started} <= after.registries.keys()
    assert all(each.watch.registry not in change.closed for each in made.discoveries)


# --- gone, recovery, rates ------------------------------------------------------------------------


def test_a_repository_that_is_gone_is_forgotten_unless_it_is_named() -> None:
    """A discovered repository leaves the watchlist, a named one stays."""
    made = watchlist(watch("team/named", "team/*"))
    found = Repository("a", "team/found")
    made.add_discovered({found}, {}, NOON)
    gone = Poll(found, "ok", reasons=("gone",))
    discovered, named = made.get("a/team/found"), made.get("a/team/named")
    assert discovered
    assert named
    assert not made.forget_if_gone(discovered, Poll(found, "ok"))
    assert made.forget_if_gone(discovered, gone)
    assert not made.has(discovered)
    assert not made.forget_if_gone(named, Poll(named.repository, "ok", reasons=("gone",)))
    assert made.has(named)
    # Another discovery does not bring it back, unless it finds it.
    assert made.add_discovered(set(), {}, NOON).added == ()
    assert names(made.add_discovered({found}, {}, NOON).added) == ["team/found"]
    assert not made.has(discovered)


def test_those_that_back_off_after_a_transient_error_can_be_woken() -> None:
    """Single failures, permanent errors and other registries do not count."""
    made = watchlist(
        watch("team/a", "team/b", "team/c", "team/d"),
        watch("team/e", registry="b"),
        a=registry(),
        b=registry(),
    )
    failures: dict[str, list[RegistryError]] = {
        "a/team/a": [Unreachable("down")] * 2,
        "a/team/b": [Unreachable("down")],
        "a/team/c": [Unreachable("down"), Forbidden("no")],
        "b/team/e": [Unreachable("down")] * 2,
    }
    for name, errors in failures.items():
        one = made.get(name)
        assert one
        for error in errors:
            one.note_result(failed(error), NOON)
    assert names(made.backing_off("a")) == ["team/a"]


def test_polls_start_at_the_rate_of_their_registry() -> None:
    """Repositories that are polled together start one after the other, by registry."""
    made = Watchlist()
    handles = {
        "a": RegistryHandle(registry(), 1, 2.0),
        "b": RegistryHandle(registry(), 1, 10.0),
    }
    watches = (watch("t/1", "t/2", "t/3"), watch("t/4", "t/5", registry="b"))
    added = made.apply_plan(Plan(handles, watches), {}, NOON).repositories.added
    starts = {one.name: (at - NOON).total_seconds() for one, at in made.stagger(added, NOON)}
    assert starts == {"a/t/1": 0, "a/t/2": 0.5, "a/t/3": 1, "b/t/4": 0, "b/t/5": 0.1}


def test_repositories_are_grouped_by_registry() -> None:
    """A registry without repositories is listed too."""
    made = watchlist(watch("t/1", "t/2"), a=registry(), b=registry())
    grouped = {name: names(some) for name, some in made.by_registry().items()}
    assert grouped == {"a": ["t/1", "t/2"], "b": []}
    assert len(made) == 2


# --- discoveries ----------------------------------------------------------------------------------


def test_a_discovery_backs_off_up_to_its_interval() -> None:
    """The first retry follows soon, later ones later; success ends it."""
    hourly = Discovery("discovery", watch("team/*"))
    pauses = [hourly.note_result(failed=True) for _ in range(9)]
    assert [pause and pause / MINUTE for pause in pauses] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert hourly.note_result(failed=False) is None
    assert hourly.note_result(failed=True) == MINUTE / 2
    often = Watch("a", ("team/*",), discovery_interval=timedelta(seconds=5))
    quick = Discovery("discovery", often)
    assert quick.note_result(failed=True) == quick.note_result(failed=True) == MINUTE / 12


def test_discoveries_follow_the_watches() -> None:
    """Each watch with globs has a discovery, as long as watch and registry stay."""
    old = registry()
    made = watchlist(watch("team/named"), watch("team/*"), watch("tools/*"), a=old)
    team, tools = made.discoveries
    assert team.name != tools.name
    difference = made.apply_plan(plan(watch("tools/*"), watch("x/*"), a=old), {}, NOON)
    assert [each.watch.repositories for each in difference.started] == [("x/*",)]
    assert difference.stopped == (team,)
    assert made.runs(tools)
    assert not made.runs(team)
    difference = made.apply_plan(plan(watch("tools/*"), a=registry()), {}, NOON)
    assert tools in difference.stopped
    assert len(difference.stopped) == 2
    assert [each.watch.repositories for each in difference.started] == [("tools/*",)]
    assert not made.runs(tools)
