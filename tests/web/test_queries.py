"""The queries behind the pages of ``tagsync web``."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.models import Repository, Tag, Watch
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll as poll_once
from tagsync.web.queries import NO_CHANGE, PAGE, changes, front, repository, tag
from tagsync.web.snapshot import Snapshot, snapshot
from tests.support.clock import FakeClock
from tests.support.immutable import add_acceptance, add_violation
from tests.support.registries import Scripted

NAME = "swr/team/api"
ONE, TWO = "sha256:one", "sha256:two"


@pytest.fixture
def poll(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Poll a listing of these tags, five minutes after the last poll."""

    def run(*tags: Tag) -> None:
        clock.advance(minutes=5)
        scripted.then(*tags)
        assert poll_once(job, store, clock=clock).outcome == "ok"

    return run


WATCH = Watch("swr", ("team/*",), interval=timedelta(minutes=10))
NO_WATCH = Watch("swr", ("other/*",))


@contextmanager
def recorded(database: Path, now: datetime, *watches: Watch) -> Iterator[Snapshot]:
    with reading(database) as db:
        yield snapshot(db, database, watches, now)


@pytest.fixture
def record(database: Path, clock: FakeClock) -> Iterator[Callable[[], Snapshot]]:
    """Return a function that returns the record as it is."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(recorded(database, clock()))


def test_changes_of_immutable_tags_come_first(
    poll: Callable[..., None], record: Callable[[], Snapshot], database: Path
) -> None:
    """The pages have the newest open ones, and that of a tag also the accepted ones."""
    tags = [f"v{number}" for number in range(9)]
    for digest in (ONE, TWO):
        poll(*(Tag(name, digest) for name in tags))
    assert front(record())["immutable"] == {"changes": [], "total": 0}
    for change in range(10, 19):
        add_violation(database, change, previous=ONE)
    add_acceptance(database, 11)
    pages = (front(record()), repository(record(), NAME, NO_CHANGE) or {})
    shown = [[each.change_id for each in page["immutable"]["changes"]] for page in pages]
    assert shown == [[18, 17, 16], [18, 17, 16, 15, 14]]
    assert [page["immutable"]["total"] for page in pages] == [8, 8]
    assert len(pages[0]["latest"]) == 2
    of_tags = [tag(record(), NAME, name) or {} for name in ("v0", "v1")]
    assert [
        [(each.change_id, each.is_open) for each in page["immutable"]["changes"]]
        for page in of_tags
    ] == [[(10, True)], [(11, False)]]


def test_the_intervals_of_a_tag(poll: Callable[..., None], record: Callable[[], Snapshot]) -> None:
    """Each digest of a tag is an interval between two listings, newest first."""
    poll(Tag("v1", ONE), Tag("other", ONE))
    poll(Tag("v1", ONE, is_trusted=True), Tag("other", ONE))
    poll(Tag("v1", TWO), Tag("other", ONE))
    poll(Tag("other", ONE))
    page = tag(record(), NAME, "v1")
    assert page is not None
    assert page["intervals"] == [
        {
            "digest": TWO,
            "not_before": "2026-05-03T12:10:00.000Z",
            "valid_from": "2026-05-03T12:15:00.000Z",
            "still_at": "2026-05-03T12:15:00.000Z",
            "valid_to": "2026-05-03T12:20:00.000Z",
        },
        {
            "digest": ONE,
            "not_before": None,
            "valid_from": "2026-05-03T12:05:00.000Z",
            "still_at": "2026-05-03T12:10:00.000Z",
            "valid_to": "2026-05-03T12:15:00.000Z",
        },
    ]
    assert [change["summary"] for change in page["changes"]] == [
        *("deleted", "moved", "fields: is_trusted", "added"),
    ]


def test_a_tag_that_is_resolved_later_has_an_interval_since_then(
    poll: Callable[..., None], record: Callable[[], Snapshot]
) -> None:
    """A tag that was listed without a digest points to the digest that a later poll resolved."""
    poll(Tag("v1"))
    poll(Tag("v1", ONE))
    page = tag(record(), NAME, "v1")
    assert page is not None
    assert [(row["digest"], row["valid_to"]) for row in page["intervals"]] == [
        (ONE, None),
        (None, "2026-05-03T12:10:00.000Z"),
    ]


def test_gaps_after_the_first_page_are_left_out_with_their_number(
    poll: Callable[..., None], record: Callable[[], Snapshot], clock: FakeClock
) -> None:
    """A page shows the newest gaps, with the one that lasts, and how many it leaves out."""
    poll(Tag("v1", ONE))
    for number in range(PAGE + 3):
        clock.advance(hours=1)
        poll(Tag("v1", TWO if number == 0 else ONE))
    page, of_tag = repository(record(), NAME, NO_CHANGE), tag(record(), NAME, "v1")
    assert page is not None
    assert of_tag is not None
    entries = [row["entry"] for row in page["timeline"]]
    assert entries == [*["gap"] * PAGE, "more gaps", *["change"] * 2, "first listing"]
    assert page["timeline"][PAGE]["number"] == 4
    assert (len(of_tag["gaps"]), of_tag["more_gaps"]) == (PAGE, 4)


def test_pages_of_unknown_names(poll: Callable[..., None], record: Callable[[], Snapshot]) -> None:
    """A page of an unknown repository or tag does not exist."""
    poll(Tag("v1", ONE))
    assert repository(record(), "swr/team/typo", 2**62) is None
    assert tag(record(), "swr/team/typo", "v1") is None
    assert tag(record(), NAME, "typo") is None


def test_a_repository_with_a_damaged_row_is_failing(
    job: Job,
    scripted: Scripted,
    store: Store,
    clock: FakeClock,
    poll: Callable[..., None],
    record: Callable[[], Snapshot],
    database: Path,
) -> None:
    """The pages tell the failure, which only the observation has."""
    poll(Tag("v1", ONE))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE repositories SET version = 7")
    scripted.then(Tag("v1", ONE))
    assert poll_once(job, store, clock=clock).outcome == "failed"
    page = front(record())
    assert page["summary"]["counts"]["failing"] == 1
    assert page["repositories"][0]["state"] == "failing"
    assert "its hash is not that of its columns" in page["repositories"][0]["last_error"]


@pytest.mark.parametrize(
    ("minutes", "watches", "stale", "watched"),
    [(30, [WATCH], 0, 1), (31, [WATCH], 1, 1), (31, [], 0, 0), (9999, [NO_WATCH], 0, 0)],
)
def test_stale_is_judged_by_the_repository_s_own_interval(
    poll: Callable[..., None],
    database: Path,
    clock: FakeClock,
    minutes: int,
    watches: list[Watch],
    stale: int,
    watched: int,
) -> None:
    """A repository is stale after three intervals of its watch, and never without a watch."""
    poll(Tag("v1", ONE))
    clock.advance(minutes=minutes)
    with recorded(database, clock(), *watches) as record:
        page = front(record)
        single = repository(record, NAME, 2**62)
    assert (page["summary"]["counts"]["stale"], page["summary"]["counts"]["watched"]) == (
        stale,
        watched,
    )
    expected = bool(stale) if watched else None
    assert single is not None
    assert page["repositories"][0]["stale"] is single["repository"]["stale"] is expected


def test_a_page_answers_as_the_command(
    poll: Callable[..., None], database: Path, clock: FakeClock
) -> None:
    """The queries of a page and those of the commands see the same rows."""
    poll(Tag("v1", ONE), Tag("v2", TWO))
    with recorded(database, clock(), WATCH) as record:
        names = [row["tag"] for row in record.audit.tags([NAME])]
        assert names == [row["tag"] for row in record.query("SELECT tag FROM tags", {})]
        (status,) = record.audit.status({Repository("swr", "team/api"): WATCH}, clock())
        assert status["stale"] is front(record)["repositories"][0]["stale"]


def test_the_worst_repositories_are_first(
    scripted: Scripted, store: Store, clock: FakeClock, database: Path
) -> None:
    """The front page has stale repositories first, and those that are not watched last."""
    for name in ("other/a", "team/fresh", "team/stale"):
        job = Job(Repository("swr", name), scripted, timedelta(minutes=5))
        scripted.then(Tag("v1", ONE))
        poll_once(job, store, clock=clock)
    clock.advance(minutes=31)
    scripted.then(Tag("v1", ONE))
    poll_once(Job(Repository("swr", "team/fresh"), scripted, WATCH.interval), store, clock=clock)
    with recorded(database, clock(), WATCH) as record:
        shown = [(row["repository"], row["stale"]) for row in front(record)["repositories"]]
    assert shown == [("swr/team/stale", True), ("swr/team/fresh", False), ("swr/other/a", None)]


def test_pages_of_changes_cover_the_history(
    poll: Callable[..., None], record: Callable[[], Snapshot]
) -> None:
    """The pages of the list have each change once, without those of first listings."""
    poll(*(Tag(f"first-{number}", ONE) for number in range(5)))
    poll(*(Tag(f"first-{number}", ONE) for number in range(2)), Tag("new", TWO))
    poll(Tag("new", ONE))
    opened, before, found = record(), NO_CHANGE, []
    for _ in range(5):
        page = changes(opened, before, limit=2, most_read=3)
        found.append([row["id"] for row in page["changes"]])
        before = page["next_before"]
    assert found == [[12, 11], [10, 9], [8, 7], [6], []]
    assert before is None
