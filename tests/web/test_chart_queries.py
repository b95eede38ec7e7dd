"""The data of the charts on the pages: ranges, links to the rest, alarms, and bounds."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from datasette.utils.asgi import BadRequest

from tagsync.audit import lanes as lanes_module
from tagsync.audit.alarms import Alarm
from tagsync.audit.ranges import Range
from tagsync.clock import timestamp
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll as poll_once
from tagsync.web import chart_queries, queries
from tagsync.web.chart_queries import ALARMS, REGISTRIES
from tagsync.web.ranges import Wanted, neighbours, wanted
from tagsync.web.snapshot import Snapshot, snapshot
from tagsync.web.urls import image_url, url
from tests.support.audit import at, pointing
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, REPOSITORY, Scripted, polls_at_minutes

NOW = Wanted("", "")
WATCH = Watch("swr", ("team/*",), interval=timedelta(minutes=10))


@pytest.fixture
def poll(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    return polls_at_minutes(job, scripted, store, clock)


@contextmanager
def recorded(database: Path, minutes: float, *watches: Watch) -> Iterator[Snapshot]:
    now = FakeClock().now + timedelta(minutes=minutes)
    with reading(database) as db:
        yield snapshot(db, database, watches, now)


def test_the_default_range_shows_a_young_record_whole(
    poll: Callable[..., None], database: Path
) -> None:
    """A young record is shown from its first listing on, and an older one for 30 days."""
    poll(0, pointing("a", "1"))
    for minutes, start, current in ((60, at(0), "Everything"), (60 * 24 * 40, None, "30 days")):
        with recorded(database, minutes) as record:
            chart = chart_queries.repository(record, REPOSITORY, NOW)
        assert [choice.name for choice in chart["choices"] if choice.current] == [current]
        assert chart["range"].start == (start or at(minutes - 60 * 24 * 30))
        assert ("earlier" in chart) == (start is None)


def test_links_lead_to_the_rest_of_the_record(poll: Callable[..., None], database: Path) -> None:
    """A range that begins after the first listing links to the time before, and back to now."""
    poll(0, pointing("a", "1"))
    poll(60 * 24 * 3, pointing("a", "2"))
    with recorded(database, 60 * 24 * 3 + 5) as record:
        newest = chart_queries.tag(record, REPOSITORY, "a", Wanted("1d", ""))
        until = newest["range"].start
        assert newest["earlier"].endswith(url("", range="1d", until=until).lstrip("?"))
        assert "newest" not in newest
        before = chart_queries.tag(record, REPOSITORY, "a", Wanted("1d", until))
        assert before["range"].end == until
        assert "until" not in before["newest"]
        whole = chart_queries.tag(record, REPOSITORY, "a", Wanted("all", ""))
        assert not {"earlier", "newest"} & set(whole)


def test_a_shortened_range_links_to_the_time_before() -> None:
    """A chart of a part of everything leads to what it leaves out."""
    shown = Range(at(50), at(90), shortened=True)
    links = neighbours(shown, Wanted("all", ""), "30d", at(0), lambda **each: url("/x", **each))
    assert links == {"earlier": url("/x", range="all", until=at(50))}


@pytest.mark.parametrize("span", ["2d", "1D", "30", "everything"])
def test_an_unknown_range_is_refused(span: str) -> None:
    """A range that the page does not offer is an error that names those it does."""
    with pytest.raises(BadRequest, match="give one of 1d, 7d, 30d, 90d, 1y, all"):
        wanted(span, "")


def test_lanes_are_paged(poll: Callable[..., None], database: Path) -> None:
    """Each tag is on one page, and the last page links back to the first."""
    tags = [pointing(f"t{number}", "1") for number in range(lanes_module.PAGE + 3)]
    poll(0, *tags)
    with recorded(database, 60) as record:
        first = chart_queries.repository(record, REPOSITORY, NOW)
        cursor = first["lanes"].before
        second = chart_queries.repository(record, REPOSITORY, NOW, cursor)
    assert f"lanes={cursor}" in first["next_lanes"]
    assert first["first_lanes"] is second["next_lanes"] is None
    assert "lanes=" not in second["first_lanes"]
    shown = [lane.tag for page in (first, second) for lane in page["lanes"].lanes]
    assert sorted(shown) == sorted(tag.tag for tag in tags)


def test_the_table_of_intervals_is_bounded(poll: Callable[..., None], database: Path) -> None:
    """The table has the newest intervals, and the page knows how many there are."""
    names = [f"t{number}" for number in range(lanes_module.PAGE)]
    for minute, digest in enumerate("123"):
        poll(5 * minute, *(pointing(name, digest) for name in names))
    poll(15, *(pointing(name, "3") for name in names[1:]))
    with recorded(database, 20) as record:
        chart = chart_queries.repository(record, REPOSITORY, NOW)
    assert (len(chart["rows"]), chart["intervals"]) == (chart_queries.INTERVALS, 3 * len(names))
    digests = [row.interval.digest for row in chart["rows"]]
    assert digests == sorted(digests, reverse=True)
    assert [row.tag for row in chart["rows"] if row.deletion is not None] == ["t0"]


def test_the_first_listing_counts_its_tags(poll: Callable[..., None], database: Path) -> None:
    """The end of the timeline has the number of tags that were there from the start."""
    poll(0, pointing("a", "1"), pointing("b", "1"))
    poll(5, pointing("a", "1"), pointing("b", "1"), pointing("c", "1"))
    with recorded(database, 60) as record:
        page = queries.repository(record, REPOSITORY.full_name, queries.NO_CHANGE)
    assert page is not None
    assert page["timeline"][-1] == {
        "entry": "first listing",
        "observed_at": at(0),
        "tags": 2,
    }


def test_no_kind_of_alarm_hides_another() -> None:
    """The newest alarms of each kind are shown in turn, by kind."""
    many = [Alarm("stale", f"swr/team/{number}") for number in range(20)]
    rare = [Alarm("failing", "swr/team/a"), Alarm("moved", "swr/team/b", "1.0.0")]
    shown = chart_queries.mixed([*many, *rare])
    assert [alarm.kind for alarm in shown] == ["failing", *["stale"] * (ALARMS - 2), "moved"]
    assert shown[1:-1] == many[: ALARMS - 2]


def test_alarms_of_the_front_page(poll: Callable[..., None], database: Path) -> None:
    """A failing repository, and a tag that should never move and did, are alarms."""
    poll(0, pointing("1.0.0", "1"))
    poll(5, pointing("1.0.0", "2"))
    poll(10)
    with recorded(database, 15, WATCH) as record:
        found = chart_queries.front(record)["alarms"]
    assert [alarm.kind for alarm in found["newest"]] == ["failing", "moved"]
    assert (found["counts"], found["searched_from"]) == ({"failing": 1, "moved": 1}, None)


def test_few_registries_are_on_the_front_page(
    scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> None:
    """The front page shows the registries with the most gaps, and says how many there are."""
    for number in range(REGISTRIES + 2):
        job = Job(Repository(f"r{number}", "team/api"), scripted, INTERVAL)
        for _ in range(2):
            scripted.then(pointing("a", "1"))
            poll_once(job, store, clock=clock)
            clock.advance(minutes=2 * number + 1)
    with recorded(database, 60) as record:
        chart = chart_queries.front(record)["registries"]
    assert chart.rows.total == REGISTRIES + 2
    assert chart.svg.count('class="strip"') == REGISTRIES


def test_coverage_has_pages_and_a_filter(
    scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> None:
    """The heat map is paged, and shows one registry or the names that contain a text."""
    for number in range(42):
        name = Repository("oci" if number == 41 else "swr", f"team/{number}")
        scripted.then(pointing("a", "1"))
        poll_once(Job(name, scripted, INTERVAL), store, clock=clock)
    with recorded(database, 60) as record:
        first = chart_queries.coverage(record, NOW, "", "", 1)
        second = chart_queries.coverage(record, NOW, "", "", 2)
        oci = chart_queries.coverage(record, NOW, "oci", "", 1)
        named = chart_queries.coverage(record, NOW, "", "TEAM/41", 1)
    assert (len(first["rows"]), len(second["rows"]), first["total"]) == (40, 2, 42)
    assert "page=2" in first["next_page"]
    assert second["next_page"] is None
    assert [row["name"] for row in oci["rows"]] == ["oci/team/41"]
    assert [row["name"] for row in named["rows"]] == ["oci/team/41"]


def test_coverage_says_how_long_and_why(poll: Callable[..., None], database: Path) -> None:
    """The table has the time without a listing by reason, in seconds."""
    poll(0, pointing("a", "1"))
    poll(10, pointing("a", "1"))
    poll(20)
    poll(30)
    with recorded(database, 40) as record:
        (row,) = chart_queries.coverage(record, NOW, "", "", 1)["rows"]
    assert row["failed"] == pytest.approx(600, abs=1)
    assert row["hole"] == pytest.approx(600, abs=1)
    assert (row["held"], row["covered"]) == (0, "33.33 %")


def test_a_repository_is_polled_before_its_coverage_is_known(
    poll: Callable[..., None], database: Path
) -> None:
    """A first poll of just now is neither coverage nor a repository without polls."""
    poll(0, pointing("a", "1"))
    with recorded(database, 5) as record:
        (row,) = chart_queries.coverage(record, NOW, "", "", 1)["rows"]
        others = record.audit.charts.repository_strips(
            [Repository("swr", "team/other")], record.audit.charts.range("1d", record.now)
        )
    assert (row["covered"], row["polled"]) == ("", True)
    assert [(strip.covered, strip.polled) for strip in others.strips] == [(None, False)]


def test_the_last_verification_is_shown(poll: Callable[..., None], database: Path) -> None:
    """The front page has the newest row of verifications, or None without one."""
    poll(0, pointing("a", "1"))
    with recorded(database, 60) as record:
        assert chart_queries.front(record)["verification"] is None
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO verifications (at, result, seconds, detail, change_id, head, ended,"
            " observations_head) VALUES (?, 'fault', 2.5, 'chain', 0, ?, 0, ?)",
            (timestamp(datetime.fromisoformat(at(30))), "0" * 64, "0" * 64),
        )
    with recorded(database, 60) as record:
        found = chart_queries.front(record)["verification"]
    assert (found.result, found.detail) == ("fault", "chain")


def test_an_unknown_image_has_no_page(poll: Callable[..., None], database: Path) -> None:
    """A digest that no listing had is no image; one that a listing had is."""
    poll(0, pointing("a", "1"))
    with recorded(database, 60) as record:
        assert chart_queries.image(record, "sha256:2") is None
        found = chart_queries.image(record, "sha256:1")
    assert found is not None
    assert found["image"].tags.now == 1


def test_the_url_of_an_image_quotes_what_is_no_digest() -> None:
    """A digest stays readable, and any other text cannot leave the parameter."""
    assert image_url("sha256:1") == "/image?digest=sha256:1"
    assert image_url("a&b=c#d/é") == "/image?digest=a%26b%3Dc%23d%2F%C3%A9"
