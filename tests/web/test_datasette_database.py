"""The database as the web pages read it, without a server."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from datasette.app import Datasette
from datasette.database import QueryInterrupted

from tagsync.database.store import Store
from tagsync.errors import DamagedRecord, StoreError
from tagsync.models import Repository, Watch
from tagsync.web.datasette_database import ReadOnlyDatabase
from tagsync.web.snapshot import Snapshot
from tests.support.clock import FakeClock

REPOSITORY = Repository("swr", "team/api")
WATCH = Watch("swr", ("team/*",))
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def read(database: Path, clock: FakeClock) -> Callable[..., Any]:
    """Return a function that calls another one with a snapshot of a small record."""
    Store.open(database).close()
    execute(
        database,
        "INSERT INTO repositories (registry, name, last_attempt_at, last_complete_at, hash)"
        " VALUES ('swr', 'team/api', '2026-05-03T11:59:00.000Z', '2026-05-03T11:59:00.000Z', '')",
    )

    def run(fn: Callable[[Snapshot], Any], *watches: Watch, time_limit: float = 30.0) -> Any:
        datasette = Datasette(memory=False)
        opened = ReadOnlyDatabase(datasette, database, watches, clock, time_limit)
        try:
            return asyncio.run(opened.read(fn))
        finally:
            datasette.executor.shutdown()

    return run


def execute(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql)


def test_a_page_gets_the_queries_of_the_commands(read: Callable[..., Any]) -> None:
    """A page can use each query of the commands, the watches, and the time of the request."""

    def fn(record: Snapshot) -> Any:
        repositories = record.audit.repositories(())
        return repositories, record.audit.status(dict.fromkeys(repositories, WATCH), record.now)

    repositories, (status,) = read(fn)
    assert repositories == [REPOSITORY]
    assert (status["repository"], status["stale"]) == ("swr/team/api", False)


def test_an_answer_sees_one_state(read: Callable[..., Any], database: Path) -> None:
    """What another process commits while a page is read is not in the page."""

    def fn(record: Snapshot) -> tuple[int, int]:
        before = len(record.query("SELECT id FROM repositories", {}))
        execute(
            database,
            "INSERT INTO repositories (registry, name, last_attempt_at, hash)"
            " VALUES ('swr', 'team/new', '2026-05-03T12:00:00.000Z', '')",
        )
        return before, len(record.audit.repositories(()))

    # Another connection keeps the WAL, without which the file itself would change.
    with Store.open(database):
        assert read(fn) == (1, 1)


@pytest.mark.parametrize("watches", [(), (WATCH,)])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE repositories SET last_complete_at = 'soon'", "is not a timestamp"),
        ("UPDATE repositories SET last_complete_at = x'ff'", "holds bytes"),
        ("UPDATE repositories SET name = CAST(x'ff' AS TEXT)", "decode"),
    ],
)
def test_a_damaged_row_is_reported(
    read: Callable[..., Any], database: Path, sql: str, expected: str, watches: tuple[Watch, ...]
) -> None:
    """Pages report values that tagsync did not write, as the commands do."""
    execute(database, sql)

    def fn(record: Snapshot) -> bool | None:
        (row,) = record.query("SELECT registry, name, last_complete_at FROM repositories", {})
        return record.stale(Repository(row["registry"], row["name"]), row["last_complete_at"])

    with pytest.raises(StoreError, match=expected) as raised:
        read(fn, *watches)
    assert "tagsync.db" in str(raised.value)
    assert isinstance(raised.value, DamagedRecord) or expected == "decode"


def test_a_page_has_a_time_limit(read: Callable[..., Any]) -> None:
    """Queries of a page that take too long are interrupted."""
    with pytest.raises(StoreError, match="interrupted"):
        read(lambda record: record.query(ENDLESS, {}), time_limit=0.05)


def test_a_count_of_a_large_table_is_interrupted(database: Path, clock: FakeClock) -> None:
    """A count of all rows has a time limit, although SQLite's count(*) is a single step."""
    Store.open(database).close()
    execute(
        database,
        "CREATE TABLE large AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000)"
        " SELECT i FROM n",
    )
    datasette = Datasette(memory=False)
    opened = ReadOnlyDatabase(datasette, database, (), clock, count_time_limit=1)
    try:
        with pytest.raises(QueryInterrupted):
            asyncio.run(opened.execute("select count(*) from [large]"))
    finally:
        datasette.executor.shutdown()


def test_an_error_of_sqlite_after_an_interrupt_is_no_bug(database: Path, clock: FakeClock) -> None:
    """Each error of SQLite after the server began to stop becomes one sentence."""
    Store.open(database).close()
    datasette = Datasette(memory=False)
    opened = ReadOnlyDatabase(datasette, database, (), clock)

    def fn(_db: object) -> None:
        opened.interrupt()
        raise sqlite3.OperationalError("vtable constructor failed: image_search")

    with pytest.raises(StoreError, match="tagsync web is stopping"):
        asyncio.run(opened.execute_fn(fn))
    datasette.executor.shutdown()


def test_a_query_that_begins_after_an_interrupt_is_ended(database: Path, clock: FakeClock) -> None:
    """A query for which a connection is already open does not outlast the end of the server."""
    Store.open(database).close()
    datasette = Datasette(memory=False)
    opened = ReadOnlyDatabase(datasette, database, (), clock)
    has_connection, interrupted = Event(), Event()

    def fn(db: sqlite3.Connection) -> None:
        has_connection.set()
        assert interrupted.wait(10)
        db.execute(ENDLESS.replace("FROM n)", "FROM n LIMIT 100000000)")).fetchall()

    async def end() -> None:
        query = asyncio.create_task(opened.execute_fn(fn))
        assert await asyncio.to_thread(has_connection.wait, 10)
        opened.interrupt()
        interrupted.set()
        await opened.end_queries()
        await query

    with pytest.raises(StoreError, match="tagsync web is stopping"):
        asyncio.run(end())
    datasette.executor.shutdown()
