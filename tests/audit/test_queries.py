"""The log of changes, and the indexes that queries use."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.at_moment import HISTORIES_SQL
from tagsync.audit.change_log import EVERYTHING, ChangeFilter
from tagsync.audit.digest_search import TAGS_OF_DIGEST_SQL
from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.errors import UnclearQuestion, UnknownTag
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import PollAt, RunQuery, at, pointing
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, Scripted


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"since": at(3)}, [3, 4, 5]),
        ({"since": at(5)}, [3, 4, 5]),
        ({"since": at(6)}, [5]),
        ({"until": at(4)}, [1, 2, 3, 4]),
        ({"until": at(-1)}, []),
        ({"since": at(6), "until": at(7)}, [5]),
        ({"kinds": ["deleted", "added"]}, [1, 2, 4, 5]),
        ({"kinds": ["updated"]}, [3]),
        ({"tag": "a"}, [1, 3]),
        ({"tag": "[bc]"}, [2, 4, 5]),
        ({"tag": "nope"}, []),
        ({"moved": True}, [3]),
        ({"baseline": False}, [3, 4, 5]),
        ({"after": 3}, [4, 5]),
        ({"after": 3, "kinds": ["added"]}, [5]),
    ],
    ids=str,
)
def test_log_shows_changes_that_may_match(
    poll_at: PollAt, run_query: RunQuery, options: dict[str, Any], expected: list[int]
) -> None:
    """The log omits a change only if it certainly does not match the filters."""
    poll_at(0, "a", "b")
    poll_at(5, pointing("a", "x"))
    poll_at(10, pointing("a", "x"), "c")
    rows = run_query("log", (), ChangeFilter(**options))
    assert [row["id"] for row in rows] == expected
    assert all(row["moved"] is (row["id"] == 3) for row in rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"newest": 2}, [4, 5]),
        ({"newest": 9}, [1, 2, 3, 4, 5]),
        ({"reverse": True}, [5, 4, 3, 2, 1]),
        ({"newest": 2, "reverse": True}, [5, 4]),
    ],
    ids=str,
)
def test_log_shows_the_newest_changes(
    poll_at: PollAt, run_query: RunQuery, options: dict[str, Any], expected: list[int]
) -> None:
    """A number of changes is counted from the newest; the order can be reversed."""
    poll_at(0, "a", "b")
    poll_at(5, pointing("a", "x"))
    poll_at(10, pointing("a", "x"), "c")
    assert [row["id"] for row in run_query("log", (), **options)] == expected
    assert [row["tag"] for row in run_query("log", (), ChangeFilter(tag="[ab]"), newest=2)] == [
        *("a", "b")
    ]


def test_baseline_is_counted(poll_at: PollAt, database: Path) -> None:
    """The baseline is counted with the same filters as the changes."""
    poll_at(0, "a", "b")
    poll_at(5, "a", "b", "c")
    with Audit.open(database) as audit:
        for wanted, expected in (
            (EVERYTHING, (2, 1)),
            (ChangeFilter(tag="[b-z]", baseline=False), (1, 1)),
            (ChangeFilter(since=at(3)), (0, 0)),
            (ChangeFilter(kinds=["deleted"]), (0, 0)),
        ):
            assert audit.count_baseline((), wanted) == expected
        assert audit.count_baseline(("*:a",), EVERYTHING) == (1, 1)
        assert audit.last_change_id() == 3


def test_pattern_selects_changes(
    store: Store, scripted: Scripted, clock: FakeClock, run_query: RunQuery
) -> None:
    """A pattern selects the changes of the repositories that match, oldest first."""
    for name in ("team/a", "team/b", "other/c"):
        scripted.then("x", "y")
        poll(Job(Repository("swr", name), scripted, INTERVAL), store, clock=clock)
    assert [row["id"] for row in run_query("log", ("swr/team/*",))] == [1, 2, 3, 4]
    assert [row["id"] for row in run_query("log", ("*c", "*a"), ChangeFilter(tag="y"))] == [2, 6]
    ids = [row["id"] for row in run_query("log", ("swr/team/*:x", "*/c:[yz]"))]
    assert ids == [1, 3, 6]


def test_pattern_selects_tags_of_every_query(poll_at: PollAt, run_query: RunQuery) -> None:
    """A pattern with a colon narrows each query to tags."""
    poll_at(0, "v1", "v2")
    poll_at(5, pointing("v1", "x"), pointing("v2", "x"))
    pattern = ("swr/team/*:v1",)
    assert [row["tag"] for row in run_query("tags", pattern)] == ["v1"]
    assert [row["tag"] for row in run_query("tags_at", pattern, at(1))] == ["v1", "v1"]
    assert [row["tag"] for row in run_query("diff", pattern, at(0), at(5))] == ["v1"]
    assert [row["tag"] for row in run_query("tags", ("*:v1", "*"))] == ["v1", "v2"]


def test_unknown_tag_names_the_nearest(poll_at: PollAt, database: Path) -> None:
    """A tag that was never recorded is refused; a deleted one and a glob are not."""
    poll_at(0, "v1", "latest")
    poll_at(5, "latest")
    with Audit.open(database) as audit:
        audit.check_tags(("*:v1", "*:x*", "*"))
        audit.check_tags((), "v1")
        for patterns, tag in ((("*:latets",), None), ((), "latets"), (("*:v1",), "latets")):
            with pytest.raises(UnknownTag, match=r"'latets' .* in swr/team/api: .* is latest"):
                audit.check_tags(patterns, tag)
        for pattern in (":v1", "swr/team/api:"):
            with pytest.raises(UnclearQuestion, match="write REPOSITORY or REPOSITORY:TAG"):
                audit.check_tags((pattern,))


FULL_SCANS = ("SCAN changes", "SCAN c", "SCAN n", "SCAN e", "SCAN i", "SCAN p", "SCAN images")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM tag_history WHERE repository = 'swr/team/api' AND tag = 'v1'",
        "SELECT * FROM tag_history WHERE repository_id = 1 AND tag = 'v1'",
        "SELECT * FROM tag_history WHERE digest = 'sha256:1'",
        "SELECT * FROM tag_history WHERE digest IN ('sha256:1', 'sha256:2') AND digest > ''",
        "SELECT * FROM tag_history WHERE digest GLOB 'sha256:1*' AND digest > ''",
        "SELECT * FROM change_log WHERE repository = 'swr/team/api' AND tag = 'v1' ORDER BY id",
        "SELECT * FROM change_log WHERE observed_at >= '2026-05-03'",
        (
            "SELECT * FROM change_log WHERE repository_id IN (SELECT value FROM json_each('[1]'))"
            " ORDER BY id"
        ),
        HISTORIES_SQL,
        TAGS_OF_DIGEST_SQL,
    ],
)
def test_queries_use_an_index(store: Store, database: Path, sql: str) -> None:
    """A query for a tag, a repository at a moment or a digest scans no whole table."""
    del store
    with closing(sqlite3.connect(database)) as connection:
        parameters = ["[]"] * sql.count("?")
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan
    assert not [line for line in plan if f"{line} ".startswith(tuple(f"{s} " for s in FULL_SCANS))]
    if sql is HISTORIES_SQL:
        assert not [line for line in plan if "TEMP B-TREE" in line]
