"""Count the rows that the checks of `tagsync.audit.verify` read."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from tagsync.database.connection import Connection

OnRows = Callable[[str, int], None]
"""Called with the name of a check, and the number of rows that it has read so far."""

_EVERY: Final = 1000
"""Number of rows between two calls of an `OnRows`."""

_TABLES: Final = ("changes", "images", "tags", "daily_changes", "observations", "repositories")
"""The tables whose rows the checks count. The first check reads them all, but counts none."""


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


def rows_to_read(db: Connection) -> int:
    """Return about how many rows the checks will read, all together."""
    present = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return sum(
        int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  constants
        for table in _TABLES
        if table in present
    )
