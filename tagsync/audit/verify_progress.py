"""Count the rows that the checks of `tagsync.audit.verify` read."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from tagsync.database.connection import Connection
from tagsync.database.sqlite_errors import SqliteError

OnRows = Callable[[str, int], None]
"""Called with the name of a check, and the number of rows that it has read so far."""

_EVERY: Final = 1000
"""Number of rows between two calls of an `OnRows`."""

_TABLES: Final = ("changes", "images", "tags", "daily_changes", "observations", "repositories")
"""The tables whose rows the checks read: the first check all of them, and the others each one."""

_STEPS: Final = 100
"""About how many steps of SQLite's virtual machine the first check needs for a row."""


class RowCounter(Counter[str]):
    """The number of rows that a check has read, which is reported while the check runs."""

    def __init__(self, check: str, on_rows: OnRows) -> None:
        super().__init__()
        self._check = check
        self._on_rows = on_rows
        self._next = _EVERY
        on_rows(check, 0)

    def __setitem__(self, key: str, rows: int) -> None:
        super().__setitem__(key, rows)
        if rows >= self._next:
            self._next = rows + _EVERY
            self._on_rows(self._check, rows)

    @contextmanager
    def steps_of(self, db: Connection) -> Iterator[None]:
        """Report about how many rows SQLite has read, while its long statements run in the block.

        The count itself stays the same.
        """
        rows = count(_EVERY, _EVERY)
        raised: list[BaseException] = []

        def report() -> bool:
            # SQLite would hide an exception, such as an interrupt by the user.
            try:
                self._on_rows(self._check, next(rows))
            except BaseException as error:  # noqa: BLE001  it is raised below
                raised.append(error)
            return bool(raised)

        db.set_progress_handler(report, _STEPS * _EVERY)
        try:
            yield
        except SqliteError:
            if raised:
                raise raised[0] from None
            raise
        finally:
            db.set_progress_handler(None, 0)


def rows_to_read(db: Connection) -> int:
    """Return about how many rows the checks will read, all together."""
    present = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return 2 * sum(
        int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  constants
        for table in _TABLES
        if table in present
    )
