"""The database as Datasette reads it: read-only, and opened again for each answer."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, TypeVar

from datasette.app import Datasette
from datasette.database import Database, Results
from datasette.utils import InvalidSql, sqlite_timelimit
from datasette.utils.asgi import Forbidden

from tagsync.clock import Clock
from tagsync.database.connection import Connection, reading
from tagsync.database.limits import limit_memory
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError
from tagsync.models import Watch
from tagsync.web.snapshot import Snapshot, snapshot

Result = TypeVar("Result")

DATABASE: Final = "tagsync"
"""Name of the database in URLs, independent of its file name."""

TIME_LIMIT: Final = 30.0
"""The longest time that a query may take, in seconds."""

MEMORY_LIMIT: Final = 256 * 2**20
"""The most memory that SQLite may use for all queries together, in bytes, and the maximum size of
the rows of one query."""

THREADS: Final = 3
"""Maximum number of queries at the same time."""

COUNT_TIME_LIMIT: Final = 25
"""Time limit of each count of all rows of a table or view, in milliseconds.

A page of a large table shows its rows soon, and says which counts it leaves out. With 20 ms or less
Datasette would check the time at each step of SQLite, which makes all counts slow.
"""

FACET_TIME_LIMIT: Final = 50
"""Time limit of each count of the values of a column, in milliseconds."""

_COUNT: Final = "select count(*) from"
"""The beginning of the SQL with which Datasette counts all rows."""

_INTERRUPT_EVERY: Final = 0.05
"""Seconds between two interrupts of the queries that end with the process."""

_STOPPING: Final = "tagsync web is stopping: start it again and reload the page"


class ReadOnlyDatabase(Database):  # type: ignore[misc]  # Datasette has no types
    """A database file that is opened again, for reading only, for each answer.

    Datasette's own class keeps a connection open for each thread. If no process has the database
    open, tagsync opens the file as immutable (see `tagsync.database.connection`). If such a
    connection stayed open, it would not see later changes or a restored file. Opening a connection
    takes about a millisecond.
    """

    def __init__(
        self,
        datasette: Datasette,
        path: Path,
        watches: Sequence[Watch],
        clock: Clock,
        time_limit: float = TIME_LIMIT,
        hosts: Mapping[str, Sequence[str]] = MappingProxyType({}),
        count_time_limit: int = COUNT_TIME_LIMIT,
    ) -> None:
        super().__init__(datasette, path=str(path), is_mutable=True)
        self.clock = clock
        self._file = path
        self._watches = watches
        self._hosts = hosts
        self._time_limit = time_limit
        self._count_time_limit = count_time_limit
        self._open_connections: set[Any] = set()
        self._closing = False
        self._lock = Lock()

    async def execute_fn(self, fn: Callable[[Any], Result]) -> Result:
        """Call a function with a new connection in one of Datasette's threads.

        Raises:
            tagsync.errors.StoreError: If the database cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.ds.executor, self._with_connection, fn)

    async def execute_write_fn(self, fn: Callable[[Any], object], block: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  Datasette's signature
        """Raise an error, because Datasette may not write to the database.

        Raises:
            Forbidden: Always.
        """
        raise Forbidden("the database is read-only here")

    async def execute(
        self, sql: str, *args: Any, custom_time_limit: int | None = None, **kwargs: Any
    ) -> Results:
        """Run a query as Datasette does, but print no SQL errors on standard error.

        If Datasette counts all rows of a table or view, the query has a shorter time limit.
        """
        if sql.startswith(_COUNT):
            # SQLite counts with count(*) in one step, which no time limit interrupts.
            sql = sql.replace("count(*)", "count(1)", 1)
            custom_time_limit = self._count_time_limit
        kwargs["log_sql_errors"] = False
        return await super().execute(sql, *args, custom_time_limit=custom_time_limit, **kwargs)

    async def read(self, fn: Callable[[Snapshot], Result]) -> Result:
        """Call a function with a `Snapshot` of the record.

        Raises:
            tagsync.errors.StoreError: If the database cannot be read, or if the queries take longer
                than `TIME_LIMIT`.
        """

        def with_connection(db: Connection) -> Result:
            # Rows and texts as in the commands: Datasette would replace bytes that are not UTF-8.
            db.row_factory, db.text_factory = None, str
            with (
                translate_sqlite_errors(self._file),
                sqlite_timelimit(db, self._time_limit * 1000),
            ):
                return fn(snapshot(db, self._file, self._watches, self.clock(), self._hosts))

        return await self.execute_fn(with_connection)

    def interrupt(self) -> None:
        """Interrupt the running queries and refuse new ones, so that the process can end."""
        with self._lock:
            self._closing = True
            for connection in self._open_connections:
                connection.interrupt()

    async def end_queries(self) -> None:
        """Interrupt queries until none is left, and refuse new ones.

        SQLite forgets an interrupt of a connection on which no query runs, and a query may be just
        about to begin. Therefore one interrupt is not enough.
        """
        self.interrupt()
        while self._open_connections:
            await asyncio.sleep(_INTERRUPT_EVERY)
            self.interrupt()

    def _with_connection(self, fn: Callable[[Any], Result]) -> Result:
        failure: Exception | None = None
        with reading(self._file) as db:
            self.ds._prepare_connection(db, self.name)  # noqa: SLF001  as Database does
            limit_memory(db, MEMORY_LIMIT)
            with self._lock:
                if self._closing:
                    raise StoreError(_STOPPING)
                self._open_connections.add(db)
            try:
                result = fn(db)
            except MemoryError:
                limit = MEMORY_LIMIT // 2**20
                failure = InvalidSql(f"the query needs more than {limit} MiB of memory")
            except Exception as error:  # noqa: BLE001  raised below
                failure = error
            finally:
                with self._lock:
                    self._open_connections.remove(db)
                    # SQLite reports an interrupt in several ways: a virtual table cannot be opened.
                    if self._closing and isinstance(failure, sqlite3.Error):
                        failure = StoreError(_STOPPING)
        # Raise the error outside `reading`, which would report an error in a user's SQL as an error
        # of the database file.
        if failure:
            raise failure
        return result
