"""Many rows in one statement of SQLite."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

_AT_ONCE: Final = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows to a statement: as many as are left, of few forms that SQLite has prepared already.

With 512, 64, 8 and 1, which are more statements for the rest, a first import takes 4 % longer.
"""


def insert_rows(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Inserts rows in their order.

    Python's lock is free while SQLite works on a statement, and is taken back after it. So with
    many rows to a statement other threads go on reading registries on a second core, where one by
    one each row would wait for them.

    Args:
        connection: within a transaction.
        statement: an INSERT of ``VALUES (rows)``, for which a place for each value is put in.
        rows: all of one length.
    """
    for some in _portions(rows):
        _execute(connection, statement, some)


def select_rows(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Asks for something about each of many rows.

    Args:
        connection: see `insert_rows`.
        statement: a SELECT from a table of ``VALUES (rows)``.
        rows: all of one length.

    Yields:
        The rows of the answers.
    """
    for some in _portions(rows):
        yield from _execute(connection, statement, some)


def _portions(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    begin = 0
    for count in _AT_ONCE:
        while len(rows) - begin >= count:
            yield rows[begin : begin + count]
            begin += count


def _execute(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]
) -> sqlite3.Cursor:
    values = list(chain.from_iterable(rows))
    return connection.execute(_with_places(statement, len(rows), len(rows[0])), values)


@cache
def _with_places(statement: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("(rows)", ", ".join([row] * count))
