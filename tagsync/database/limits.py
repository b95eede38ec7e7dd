"""Limit the memory that a query may use, for SQL that a user wrote."""

import sqlite3
import sys
from typing import Any, Final

LONGEST_PATTERN: Final = 1000
"""Maximum length of a pattern of LIKE and GLOB. SQLite cannot interrupt one comparison."""


def limit_memory(connection: sqlite3.Connection, limit: int) -> None:
    """Let queries fail with a MemoryError if they need more memory.

    The rows of the connection become `sqlite3.Row` objects.

    Args:
        connection: The connection of the queries.
        limit: The most bytes that SQLite may use in this process, for all connections together, and
            the maximum size of all rows of this connection together.
    """
    # This limit belongs to the whole process, and can only be lowered.
    connection.execute(f"PRAGMA hard_heap_limit = {limit:d}").close()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN)
    connection.row_factory = _RowsWithLimit(limit)


class _RowsWithLimit:
    """Creates the rows of a connection until they have too many bytes together."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def __call__(self, cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> sqlite3.Row:
        """Return a row.

        Raises:
            MemoryError: If this row exceeds the limit.
        """
        self._left -= sum(map(sys.getsizeof, values))
        if self._left < 0:
            raise MemoryError
        return sqlite3.Row(cursor, values)
