"""Migrate a database to this version's schema, and check whose file it is.

There is one migration so far. A migration that was released is never edited: each later change of
the schema is a new migration. `tagsync.database.schema` describes the result of all migrations.
"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tagsync.database import schema
from tagsync.database.digest_index import has_fts5
from tagsync.errors import UnusableDatabase

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

_MIGRATION_SET: Final = "tagsync"
_MIGRATIONS: Final[Mapping[str, Callable[[sqlite3.Connection], None]]] = {"schema": schema.create}
"""The migrations by their names, the oldest first."""

_OF_SQLITE_UTILS: Final = "_sqlite_migrations"
"""The table in which sqlite-utils records the migrations. Its versions define it differently."""


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Bring the database to this version's schema; write nothing if it is up to date.

    All migrations run in one write transaction. If several processes start at the same time, one of
    them migrates, and the others then find the schema up to date. A process that is killed leaves
    either the old schema or the new one.

    Args:
        db: A connection that may write, outside a transaction.
        path: The file, for messages.

    Raises:
        UnusableDatabase: If the file belongs to another program or to a newer tagsync, or if this
            SQLite lacks FTS5.
    """
    require_fts5(db)
    if is_current(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not is_new(db):
            check(db, path)
        _apply(db)
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def require_fts5(db: sqlite3.Connection) -> None:
    """Check that this SQLite has FTS5, which the search by digest needs.

    Raises:
        UnusableDatabase: If FTS5 is missing.
    """
    if not has_fts5(db):
        raise UnusableDatabase(
            "this Python's SQLite was built without FTS5, which tagsync needs to search by digest:"
            " use a Python whose sqlite3 module has FTS5"
        )


def migrations() -> "Migrations":
    """Return the migrations as an object that sqlite-utils applies and records."""
    # Imported lazily: 90 ms that only a migration needs.
    from sqlite_utils import Migrations  # noqa: PLC0415  see above

    def step(migration: Callable[[sqlite3.Connection], None]) -> Callable[["Database"], None]:
        return lambda db: migration(db.conn)

    made = Migrations(_MIGRATION_SET)
    for name, migration in _MIGRATIONS.items():
        made(name=name)(step(migration))
    return made


def is_new(db: sqlite3.Connection) -> bool:
    """Return whether the database is empty: no program has written to it."""
    return (
        _pragma(db, "application_id") == 0
        and not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    )


def is_current(db: sqlite3.Connection) -> bool:
    """Return whether the database has exactly the migrations of this version."""
    is_ours = _pragma(db, "application_id") == schema.APPLICATION_ID
    return is_ours and _applied(db) == set(_MIGRATIONS)


def check(db: sqlite3.Connection, path: str) -> None:
    """Check that the database is tagsync's and that this version understands it.

    Args:
        db: A connection that may read.
        path: The file, for messages.

    Raises:
        UnusableDatabase: If the database is empty, or belongs to another program or to a newer
            tagsync.
    """
    require_fts5(db)
    if is_new(db):
        raise UnusableDatabase(f"{path} is empty: run tagsync sync first")
    if _pragma(db, "application_id") != schema.APPLICATION_ID:
        raise UnusableDatabase(
            f"{path} is a database of another program: set store.path to a file of tagsync's own"
        )
    if newer := sorted(_applied(db) - set(_MIGRATIONS)):
        raise UnusableDatabase(
            f"{path} has the schema of another tagsync, probably a newer one (it has the migration"
            f" {newer[0]}): upgrade tagsync, or set store.path to a new file"
        )


def check_current(db: sqlite3.Connection, path: str) -> None:
    """Check that the database has everything that this version queries.

    Args:
        db: A connection that may read. Its database has to pass `check`.
        path: The file, for messages.

    Raises:
        UnusableDatabase: If an older tagsync wrote the database last.
    """
    if not is_current(db):
        raise UnusableDatabase(
            f"{path} was last written by an older tagsync: run tagsync sync, which brings it up to"
            " date"
        )


def definitions(db: sqlite3.Connection) -> dict[str, str | None]:
    """Return the exact SQL of each table, index, trigger and view, by its kind and name.

    The SQL is None for the index of a constraint, and for the table of sqlite-utils. The indexes of
    that table are left out.
    """
    rows = db.execute(
        "SELECT type || ' ' || name, iif(type = 'table' AND name = ?1, NULL, sql)"
        " FROM sqlite_master WHERE NOT (type = 'index' AND tbl_name = ?1)"
        " ORDER BY type, name",
        (_OF_SQLITE_UTILS,),
    )
    return dict(rows.fetchall())


def _apply(db: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # noqa: PLC0415  90 ms that only a migration needs

    # sqlite-utils' plugins are for its own command line.
    migrations().apply(Database(db, execute_plugins=False))


def _applied(db: sqlite3.Connection) -> set[str]:
    """Return the names of the migrations that the database has."""
    known = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_OF_SQLITE_UTILS,)).fetchone()
    if not known:
        return set()
    rows = db.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (_MIGRATION_SET,)
    )
    return {name for (name,) in rows}


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
