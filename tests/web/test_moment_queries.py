"""The queries behind pages about a moment answer as the commands do."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.errors import UnclearQuestion, UnknownRepository, UnknownTag
from tagsync.models import Repository
from tagsync.web.moment_queries import (
    FIRST_REPOSITORIES,
    Cursor,
    coverage_at,
    difference,
    front_at,
    has_tag,
    recorded,
    repository_at,
    tag_at,
)
from tagsync.web.snapshot import Snapshot, snapshot
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.registries import poll_any_names

API, WEB, MANY = (Repository("swr", name) for name in ("team/api", "team/web", "team/many"))
MOMENTS = (-5, 0, 3, 5, 7, 10, 12, 60, 119, 120, 125, 130, 135, 200)
"""Minutes: before, at and between the polls, and in the gap from 10 to 120."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    """Three repositories that change, one of them with more tags than a page has."""
    database, clock = tmp_path_factory.mktemp("moments") / "tagsync.db", FakeClock()
    with Store.open(database) as store:
        fill(store, clock)
    with reading(database) as db:
        yield snapshot(db, database, (), clock())


def fill(store: Store, clock: FakeClock) -> None:
    """Record what `record` describes."""

    def poll(repository: Repository, minute: float, tags: dict[str, str]) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll_any_names(store, clock, repository, tags)

    many = {f"t{number:03}": "x" for number in range(230)}
    poll(API, 0, {"latest": "one", "v1": "one", "{{ 7 }}": "one"})
    poll(MANY, 1, many)
    poll(API, 5, {"latest": "two", "v1": "one", "v2": "two"})
    poll(MANY, 6, {**many, "t005": "y", "t150": "y"})
    poll(WEB, 7, {"latest": "one"})
    poll(API, 10, {"latest": "one", "v1": "one", "v2": "two"})
    poll(API, 120, {"latest": "two", "v2": "two"})
    poll(MANY, 125, dict.fromkeys(many, "z"))
    poll(API, 130, {"latest": "two", "v2": "three", "v1": "one"})
    clock.now = FakeClock().now + timedelta(minutes=200)


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return msgspec.json.encode(rows)


@pytest.mark.parametrize("minute", MOMENTS)
@pytest.mark.parametrize("repository", [API, WEB, MANY])
def test_a_repository_at_a_moment(record: Snapshot, repository: Repository, minute: int) -> None:
    """The pages have the rows of ``tags --at``, and its row if nothing is known of the time."""
    moment, after, found = at(minute), "", []
    while True:
        page = repository_at(record, repository, moment, after)
        found += [state for row in page["tags"] for state in row["states"]]
        if page["next_after"] is None:
            break
        after = page["next_after"]
    expected = list(record.audit.tags_at([repository.full_name], moment))
    assert as_json(found) == as_json([row for row in expected if row["tag"] is not None])
    coverage = coverage_at(record, repository, moment)
    assert page["coverage"] == coverage
    if expected and expected[0]["tag"] is None:
        assert as_json([coverage or {}]) == as_json(expected)
    if coverage is None:
        assert {row["certainty"] for row in expected} <= {"certain", "uncertain"}


@pytest.mark.parametrize("minute", MOMENTS)
@pytest.mark.parametrize("tag", ["latest", "v1", "v2", "{{ 7 }}"])
def test_a_tag_at_a_moment(record: Snapshot, tag: str, minute: int) -> None:
    """The page of a tag has its rows of ``tags --at``."""
    rows = [row for row in record.audit.tags_at([API.full_name], at(minute)) if row["tag"] == tag]
    found = tag_at(record, API, tag, at(minute))["found"]
    assert as_json(found["states"] if found else []) == as_json(rows)


@pytest.mark.parametrize("pattern", ["", "swr/team/*", "swr/team/api", "*:latest", "*:t1*"])
@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 7), (3, 8), (-5, 200), (5, None), (6, 60), (60, 60), (60, 122), (119, 130), (130, None)],
)
def test_all_pages_of_a_difference(
    record: Snapshot, pattern: str, start: int, end: int | None
) -> None:
    """The pages together have the rows of ``diff``, and a page is bounded."""
    until = None if end is None else at(end)
    cursor: Cursor | None = Cursor()
    found: list[dict[str, Any]] = []
    while cursor is not None:
        page = difference(record, pattern, at(start), until, cursor, most_repositories=2)
        assert len({row["tag"] for row in page["rows"]}) <= 202
        found += page["rows"]
        cursor = page["following"]
    patterns = [pattern] if pattern else []
    assert as_json(found) == as_json(list(record.audit.diff(patterns, at(start), until)))


def test_the_totals_of_a_difference(record: Snapshot) -> None:
    """The totals count each tag once for each kind, and those that are not certain."""
    page = difference(record, "swr/team/api", at(3), at(120), Cursor())
    assert page["totals"] == {
        "words": {"added": 1, "moved": 1, "deleted": 2},
        "differences": 4,
        "repositories": 1,
        "unsure": 3,
        "unseen": 0,
    }


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("swr/nowhere", UnknownRepository),
        ("swr/team/api:nothing", UnknownTag),
        ("swr/team/api:", UnclearQuestion),
    ],
)
def test_a_pattern_that_matches_nothing(
    record: Snapshot, pattern: str, error: type[Exception]
) -> None:
    """A pattern without a match is an error, as on the command line."""
    with pytest.raises(error):
        difference(record, pattern, at(0), None, Cursor())


def test_the_front_page_at_a_moment(record: Snapshot) -> None:
    """It counts what was listed by then, and shows no later change."""
    page = front_at(record, at(8), "")
    assert (page["listed"], page["covered"]) == (3, 1)
    assert page["overview"].tags == 234
    assert {row["observed_at"] for row in page["latest"]} == {at(5), at(6)}
    assert [row.repository for row in page["repositories"]] == [
        *("swr/team/api", "swr/team/many", "swr/team/web")
    ]
    assert front_at(record, at(8), "swr/team/many")["repositories"][0].repository == WEB.full_name
    before = front_at(record, at(-5), "")
    assert (before["listed"], before["latest"], before["repositories"]) == (0, [], [])


def test_the_front_page_at_a_moment_is_short(
    store: Store, clock: FakeClock, database: Path
) -> None:
    """It has the first repositories, and the pages that follow have all others."""
    names = [f"team/{number}" for number in range(FIRST_REPOSITORIES + 3)]
    for name in names:
        poll_any_names(store, clock, Repository("swr", name), {"v1": "one"})
    with reading(database) as db:
        record = snapshot(db, database, (), clock())
        first = front_at(record, at(0), "")
        rest = front_at(record, at(0), first["next_after"])
    assert len(first["repositories"]) == FIRST_REPOSITORIES
    shown = [row.repository for row in (*first["repositories"], *rest["repositories"])]
    assert shown == [f"swr/{name}" for name in names]
    assert rest["next_after"] is None


def test_names_are_exact(record: Snapshot) -> None:
    """A repository and a tag are found by their exact names, not by patterns."""
    assert recorded(record, "swr/team/api") == API
    assert recorded(record, "swr/team/*") is None
    assert has_tag(record, API, "{{ 7 }}")
    assert not has_tag(record, API, "*")
