"""The database for Datasette: read-only, and opened anew for each answer."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from datasette.app import Datasette
from datasette.database import Database, Results
from datasette.utils import sqlite_timelimit
from datasette.utils.asgi import Forbidden

from tagsync.database.connection import reading
from tagsync.database.decoding import check_values
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError

Result = TypeVar("Result")

Query = Callable[[str, Mapping[str, object]], list[dict[str, Any]]]
"""A function that runs SQL with named parameters and returns rows as dictionaries."""

TIME_LIMIT: Final = 30.0
"""The longest time that a query may take, in seconds."""

_COUNT_TIME_LIMIT: Final = 1000
"""Time limit for Datasette's counts of all rows of a table or view, in milliseconds."""


class ReadOnlyDatabase(Database):  # type: ignore[misc]  # Datasette has no types
    """A database file that is opened anew, for reading only, for each answer.

    Datasette's own class keeps a connection open for each thread. If no process writes when a
    connection is opened, it treats the file as immutable (see `tagsync.database.connection`), and
    would not see later changes or a restored file. Opening takes about a millisecond.
    """

    def __init__(self, datasette: Datasette, path: Path) -> None:
        super().__init__(datasette, path=str(path), is_mutable=True)
        self._file = path
        self._open_connections: set[Any] = set()
        self._closing = False
        self._lock = Lock()

    async def execute_fn(self, fn: Callable[[Any], Result]) -> Result:
        """Call a function with a new connection, in one of Datasette's threads.

        Raises:
            tagsync.errors.StoreError: If the database cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.ds.executor, self._with_connection, fn)

    async def execute_write_fn(self, fn: Callable[[Any], object], block: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  Datasette's signature
        """Raise an error, because nothing may be written.

        Raises:
            Forbidden: Always.
        """
        raise Forbidden("the database is read-only here")

    async def execute(
        self, sql: str, *args: Any, custom_time_limit: int | None = None, **kwargs: Any
    ) -> Results:
        """Run a query as Datasette does, but do not print SQL errors on standard error."""
        if sql.startswith("select count(*) from"):
            custom_time_limit = min(custom_time_limit or _COUNT_TIME_LIMIT, _COUNT_TIME_LIMIT)
        kwargs["log_sql_errors"] = False
        return await super().execute(sql, *args, custom_time_limit=custom_time_limit, **kwargs)

    async def consistently(self, fn: Callable[[Query], Result]) -> Result:
        """Call a function with a `Query`. All queries see the same state of the record.

        Raises:
            tagsync.errors.StoreError: If the database cannot be read, or if the queries take longer
                than `TIME_LIMIT`.
        """

        def with_connection(connection: Any) -> Result:
            def query(sql: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
                rows = [dict(row) for row in connection.execute(sql, parameters)]
                for row in rows:
                    check_values(row, "a row of this page")
                return rows

            with (
                translate_sqlite_errors(self._file),
                sqlite_timelimit(connection, TIME_LIMIT * 1000),
            ):
                return fn(query)

        return await self.execute_fn(with_connection)

    def interrupt(self) -> None:
        """Interrupt running queries and refuse further ones, so that the process can end."""
        with self._lock:
            self._closing = True
            for connection in self._open_connections:
                connection.interrupt()

    def _with_connection(self, fn: Callable[[Any], Result]) -> Result:
        failure: Exception | None = None
        with reading(self._file) as db:
            self.ds._prepare_connection(db, self.name)  # noqa: SLF001  as Database does
            with self._lock:
                if self._closing:
                    raise StoreError("tagsync web is stopping: start it again and reload the page")
                self._open_connections.add(db)
            try:
                result = fn(db)
            except Exception as error:  # noqa: BLE001  raised below
                failure = error
            finally:
                with self._lock:
                    self._open_connections.remove(db)
        # Not raised inside `reading`, which would report an error in a user's SQL as a fault of the
        # database file.
        if failure:
            raise failure
        return result
