"""The database as Datasette sees it: nothing can be written, and nothing goes stale."""

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
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError

Answer = TypeVar("Answer")

Ask = Callable[[str, Mapping[str, object]], list[dict[str, Any]]]
"""Answers one query, with its named parameters, by rows whose keys are the columns."""

TIME_LIMIT: Final = 30.0
"""Seconds that a query may take."""

_COUNT_TIME_LIMIT: Final = 1000
"""Milliseconds for what Datasette asks by itself: how many rows a table or a view has in all."""


class ReadOnlyDatabase(Database):  # type: ignore[misc]  # Datasette has no types
    """A database file that is opened anew for each answer, for reading only.

    Datasette would keep a connection for each of its threads. One that was opened while nobody
    wrote is of a kind that never looks at the file again (see `tagsync.database.reading`), and one
    whose file was replaced would go on with the old one; opening takes about a millisecond.
    """

    def __init__(self, datasette: Datasette, path: Path) -> None:
        super().__init__(datasette, path=str(path), is_mutable=True)
        self._file = path
        self._busy: set[Any] = set()
        self._ended = False
        self._lock = Lock()

    async def execute_fn(self, fn: Callable[[Any], Answer]) -> Answer:
        """Calls a function with a connection, in one of Datasette's threads.

        Raises:
            tagsync.errors.StoreError: the database cannot be read any more.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.ds.executor, self._with_connection, fn)

    async def execute_write_fn(self, fn: Callable[[Any], object], block: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002  Datasette's signature
        """Refuses.

        Raises:
            Forbidden: always.
        """
        raise Forbidden("the record is read-only here")

    async def execute(
        self, sql: str, *args: Any, custom_time_limit: int | None = None, **kwargs: Any
    ) -> Results:
        """As Datasette's, but silent on standard error about SQL that a person got wrong."""
        if sql.startswith("select count(*) from"):
            custom_time_limit = min(custom_time_limit or _COUNT_TIME_LIMIT, _COUNT_TIME_LIMIT)
        kwargs["log_sql_errors"] = False
        return await super().execute(sql, *args, custom_time_limit=custom_time_limit, **kwargs)

    async def consistently(self, answer: Callable[[Ask], Answer]) -> Answer:
        """Calls a function that asks several things of one and the same state of the record.

        Raises:
            tagsync.errors.StoreError: the database cannot be read, or not in time.
        """

        def within(connection: Any) -> Answer:
            def ask(sql: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
                return [dict(row) for row in connection.execute(sql, parameters)]

            with (
                translate_sqlite_errors(self._file),
                sqlite_timelimit(connection, TIME_LIMIT * 1000),
            ):
                return answer(ask)

        return await self.execute_fn(within)

    def end(self) -> None:
        """Ends the queries that are under way and answers no more, so that the process can end."""
        with self._lock:
            self._ended = True
            for connection in self._busy:
                connection.interrupt()

    def _with_connection(self, fn: Callable[[Any], Answer]) -> Answer:
        failure: Exception | None = None
        with reading(self._file) as db:
            self.ds._prepare_connection(db, self.name)  # noqa: SLF001  as Database does
            with self._lock:
                if self._ended:
                    raise StoreError("tagsync web is ending: start it again and ask once more")
                self._busy.add(db)
            try:
                answer = fn(db)
            except Exception as error:  # noqa: BLE001  raised below
                failure = error
            finally:
                with self._lock:
                    self._busy.remove(db)
        # Not within, where what SQL got wrong would be laid at the file's door.
        if failure:
            raise failure
        return answer
