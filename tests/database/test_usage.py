"""The space that the database takes, and the log lines that are pending."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tagsync.database.store import Store
from tagsync.database.usage import MAX_PENDING
from tests.support.calls import raised_by

REPOSITORIES = [
    "INSERT INTO repositories (id, registry, name, last_attempt_at, hash)"
    f" VALUES ({number}, 'a', 'team/{number}', '', '')"
    for number in (1, 2)
]


def write(database: Path, *statements: str) -> None:
    """Run SQL that changes the database, bypassing the store."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_the_sizes_are_those_of_the_files(store: Store, database: Path) -> None:
    """The file and its WAL are measured, and the file system that they are on."""
    write(database, *REPOSITORIES)
    usage = store.disk_usage()
    file_system = os.statvfs(database)
    assert usage.database == database.stat().st_size > 0
    assert usage.wal == Path(f"{database}-wal").stat().st_size > 0
    assert usage.file_system == file_system.f_blocks * file_system.f_frsize
    assert 0 < usage.free < usage.file_system


def test_a_file_that_is_gone_is_an_error_with_its_name(store: Store, database: Path) -> None:
    """A missing WAL has no bytes, and a missing database is a StoreError."""
    Path(f"{database}-wal").unlink()
    assert store.disk_usage().wal == 0
    database.unlink()
    assert str(raised_by(store.disk_usage)) == f"{database}: No such file or directory"


def test_the_changes_from_the_first_unlogged_one_on_are_pending(
    store: Store, database: Path
) -> None:
    """Each repository counts its own changes from `unlogged_from` on, and no others."""
    write(
        database,
        *REPOSITORIES,
        *(
            "INSERT INTO changes"
            f" VALUES ({change}, {1 + change % 2}, 'x', 'added', NULL, 'a', '{{}}', NULL, '', '')"
            for change in range(1, 11)
        ),
    )
    assert store.pending_log_lines() == 0
    write(database, "UPDATE repositories SET unlogged_from = 7 WHERE id = 1")
    assert store.pending_log_lines() == 2
    write(database, "UPDATE repositories SET unlogged_from = 1 WHERE id = 2")
    assert store.pending_log_lines() == 7


def test_pending_lines_are_counted_up_to_a_limit(store: Store, database: Path) -> None:
    """The count stops at its limit, so that it is fast whatever is pending."""
    write(
        database,
        *REPOSITORIES,
        "UPDATE repositories SET unlogged_from = 1",
        "WITH RECURSIVE n (id) AS"
        f" (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id <= {MAX_PENDING})"
        " INSERT INTO changes SELECT id, 1, 'x', 'added', NULL, 'a', '{}', NULL, '', '' FROM n",
    )
    assert store.pending_log_lines() == MAX_PENDING
