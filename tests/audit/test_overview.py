"""The whole record as it was at a moment, and pages of a repository at a moment."""

from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit.digest_search import leads_there_at
from tagsync.audit.overview import Overview, overview_at
from tagsync.audit.queries import Audit
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.models import Repository
from tests.support.audit import PollAt, RunQuery, at, pointing
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, poll_any_names

DAY = 24 * 60


@pytest.fixture
def world(store: Store, clock: FakeClock) -> None:
    """Two repositories over four days; one of them begins later and changes within a day."""
    for minute in (*range(0, 4 * DAY, 6 * 60), 4 * DAY):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll_any_names(store, clock, Repository("swr", "a/one"), {"v1": "x", "v2": "x"})
        if minute >= DAY:
            tags = {f"v{number}": "x" for number in range(minute // (6 * 60))}
            poll_any_names(store, clock, Repository("oci", "b/two"), tags)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("hours", [0, 5, 6, 13, 24, 29, 30, 47, 48, 60, 61, 95, 96, 200])
def test_overview_counts_what_the_tags_say(database: Path, run_query: RunQuery, hours: int) -> None:
    """The numbers are those of the tags at the moment, whenever it is."""
    moment = at(hours * 60)
    listed: dict[tuple[str, str], bool] = {}
    for row in run_query("tags_at", (), moment):
        if row["tag"]:  # the first of several states is that of the last listing
            listed.setdefault((row["repository"], row["tag"]), row["present"])
    with Audit.open(database) as audit:
        found = audit.charts.overview_at(moment)
    assert found.tags == sum(listed.values())
    assert found.repositories == (1 if hours < 24 else 2)
    assert found.exact
    assert found.last_complete_at == at(min(hours // 6 * 6, 96) * 60)
    assert found.last_change_id is not None


@pytest.mark.usefixtures("world")
def test_moment_before_the_record_has_nothing(database: Path) -> None:
    """Before the first listing there are no repositories, no tags and no times."""
    with Audit.open(database) as audit:
        found = audit.charts.overview_at(at(-1))
    assert found == Overview(at(-1), 0, 0, True, None, None)


def test_too_many_changes_are_not_read(poll_at: PollAt, database: Path) -> None:
    """If the day of the moment has too many changes, the number of tags is not exact."""
    poll_at(0, "a")
    poll_at(5, "a", "b", "c")
    poll_at(10, "a", "b", "c", "d")
    with reading(database) as db:
        assert overview_at(db, at(2)).tags == 1
        assert not overview_at(db, at(2), most=2).exact


def test_changes_after_the_run_of_a_moment_do_not_count(
    poll_at: PollAt, store: Store, clock: FakeClock, database: Path
) -> None:
    """Changes of a later run count for no earlier moment, even if other runs go on until then."""
    other = Repository("swr", "a/other")
    for minute in (0, 5, 10, 15, 20):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll_any_names(store, clock, other, {"v1": "x"})
        if minute == 10:
            poll_at(minute, fails=True)
        else:
            poll_at(minute, "a", *("b", "c") * (minute > 10))
    with Audit.open(database) as audit:
        assert audit.charts.overview_at(at(2)).tags == 2
        assert audit.charts.overview_at(at(20)).tags == 4


def test_page_of_a_moment_has_the_same_rows(
    poll_at: PollAt, database: Path, run_query: RunQuery
) -> None:
    """Pages by name give the rows of the whole repository, for a moment and a difference."""
    poll_at(0, "a", "b", "c", "d")
    poll_at(5, "b", pointing("c", "moved"), "d", "e")
    whole = {
        "tags_at": run_query("tags_at", (), at(3)),
        "diff": run_query("diff", (), at(3), at(5)),
    }
    paged: dict[str, list[dict[str, object]]] = {"tags_at": [], "diff": []}
    with Audit.open(database) as audit:
        charts, after = audit.charts, ""
        while names := charts.tag_names(REPOSITORY, after, 2):
            paged["tags_at"] += charts.tags_at(REPOSITORY, at(3), names)
            paged["diff"] += charts.diff(REPOSITORY, at(3), at(5), names)
            after = names[-1]
        assert charts.tag_names(Repository("swr", "none")) == []
    assert len(whole["tags_at"]) == 8
    assert paged == whole


def test_digest_at_a_moment_agrees_with_the_tags(poll_at: PollAt, run_query: RunQuery) -> None:
    """A tag leads to a digest at a moment as `tags_at` says: certainly, possibly or not."""
    digests = [digit * 64 for digit in "123"]
    for minute, digest in ((0, digests[0]), (5, digests[1]), (10, digests[1]), (15, digests[0])):
        poll_at(minute, pointing("a", digest), pointing("b", digests[2]))
    for minute in (-1, 0, 2, 5, 7, 10, 12, 15):
        states = [
            row["digest"] for row in run_query("tags_at", (), at(minute)) if row["tag"] == "a"
        ]
        for digest in digests[:2]:
            found = {
                leads_there_at(row, at(minute))
                for row in run_query("find", digest)
                if row["tag"] == "a"
            }
            possible = f"sha256:{digest}" in states
            expected = "no" if not possible else "yes" if len(states) == 1 else "maybe"
            assert max(found, key=["no", "maybe", "yes"].index) == expected, minute
