"""Values that SQLite accepts and tagsync never writes, in every column of every table."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.queries import Audit
from tagsync.cli.coverage import coverage_blocks
from tagsync.cli.diff import diff_blocks
from tagsync.cli.find import find_blocks
from tagsync.cli.log import log_blocks
from tagsync.cli.status import status_blocks
from tagsync.cli.tables import Block, View, render
from tagsync.cli.tags import moment_blocks, tag_blocks
from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import TagsyncError
from tagsync.models import Image, Listing, Repository, Tag, Watch
from tagsync.polling.jobs import Job, Options
from tagsync.polling.run_once import run_once
from tagsync.registries.lanes import LanePool
from tests.support.clock import FakeClock
from tests.support.record import without_triggers
from tests.support.registries import Scripted

TABLES = ("repositories", "images", "tags", "changes", "observations")
WRONG: tuple[object, ...] = (b"\xff\x00", "x", "", 2**63 - 1, -1, "2026-13-03T12:00:00.000Z")
NAMES = ("team/api", "team/web")
DIGEST = f"sha256:{'a' * 64}"


def poll_all(store: Store, clock: FakeClock, *tags: str) -> None:
    """Poll two repositories; each lists the same tags."""
    scripted = Scripted(clock)
    jobs = [Job(Repository("swr", name), scripted, timedelta(minutes=5)) for name in NAMES]
    now = timestamp(clock.now)
    listing = Listing(
        {name: Tag(name, DIGEST, size=1, is_trusted=True) for name in tags},
        {DIGEST: Image(DIGEST, "c" * 64, "a/b", 2, 1, "{}", verified=True)},
        now,
        now,
        None,
    )
    scripted.script += [listing, listing]
    run_once(jobs, store, {"swr": LanePool(1)}, Options())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with additions and a deletion, whose newest listing is held."""
    path = tmp_path_factory.mktemp("original") / "tagsync.db"
    clock = FakeClock()
    with Store.open(path) as store:
        for tags in ("ab", "abc", "ac", ""):
            poll_all(store, clock, *tags)
            clock.advance(minutes=5)
    return path


QUERIES = (
    *("status", "last attempt", "tags", "tags --at", "diff", "log", "coverage", "find", "verify"),
    *("baseline", "tag names"),
)
VIEW = View(80, FakeClock().now)


def columns() -> Iterator[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        from tagsync.database import schema  # noqa: PLC0415  only to list the columns

        schema.create(connection)
        for table in TABLES:
            for row in connection.execute(f"PRAGMA table_info({table})"):
                yield table, row[1]


def queries(audit: Audit) -> dict[str, Callable[[], object]]:
    """Return one call for each query of the command line."""
    watch = Watch("swr", ("team/*",))
    now = FakeClock().now + timedelta(hours=1)
    watches = {Repository("swr", name): watch for name in NAMES}
    return {
        "status": lambda: audit.status(watches, now),
        "last attempt": lambda: audit.last_attempt_at(list(watches)),
        "tags": lambda: list(audit.tags(())),
        "tags --at": lambda: list(audit.tags_at((), "2026-05-03T12:07:00.000Z")),
        "diff": lambda: list(audit.diff((), "2026-05-03T12:01:00.000Z", None)),
        "log": lambda: list(audit.log((), ChangeFilter(tag="a*"))),
        "coverage": lambda: list(audit.coverage(())),
        "find": lambda: list(audit.find(DIGEST)),
        "verify": lambda: list(audit.verify()),
        "baseline": lambda: audit.count_baseline((), ChangeFilter(tag="a*")),
        "tag names": lambda: audit.check_tags(("*:a",), "nope"),
    }


def documents(audit: Audit, view: View) -> dict[str, Callable[[], Iterable[Block]]]:
    """Return a call for each table of the command line."""
    asked = queries(audit)

    def rows(name: str) -> Any:
        return asked[name]()

    moment = "2026-05-03T12:07:00.000Z"
    return {
        "status": lambda: status_blocks(rows("status"), show_all=True),
        "tags": lambda: tag_blocks(rows("tags"), view),
        "tags --at": lambda: moment_blocks(rows("tags --at"), view, moment),
        "diff": lambda: diff_blocks(rows("diff"), view, moment, None),
        "log": lambda: log_blocks(rows("log"), view, (0, 0)),
        "coverage": lambda: coverage_blocks(rows("coverage"), rows("coverage"), view),
        "find": lambda: find_blocks(rows("find"), view, rows("find")),
    }


@pytest.mark.processes  # no processes, but as long: a thousand databases, with all queries of each
@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_wrong_values_are_errors_of_the_database(
    table: str, column: str, original: Path, tmp_path: Path
) -> None:
    """A wrong value never looks like a bug: a query or a poll succeeds, or it reports the record.

    In a pass, the other repository is polled all the same.
    """
    for number, value in enumerate(WRONG):
        path = tmp_path / f"{number}.db"
        path.write_bytes(original.read_bytes())
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = 1")
            where = " WHERE tag = 'a'" if table == "tags" else " WHERE rowid = 1"
            with without_triggers(connection), suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
        assert_only_expected_errors(path)


def assert_only_expected_errors(path: Path) -> None:
    for name in QUERIES:
        with suppress(TagsyncError), Audit.open(path) as audit:
            queries(audit)[name]()
            if document := documents(audit, VIEW).get(name):
                assert list(render(document(), VIEW))
    clock = FakeClock()
    for tags in ("", "acd"):
        clock.advance(hours=1)
        with suppress(TagsyncError), Store.open(path) as store:
            poll_all(store, clock, *tags)
