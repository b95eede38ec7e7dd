"""Verification of the structure: definitions, indexes, and names that hide others."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.audit.structure import definition_fault
from tagsync.database import migrations
from tagsync.database.connection import empty_database
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import CHECKS
from tests.support.record import without_triggers
from tests.support.registries import open_at

Edit = str | Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose search index has several pages."""
    path = tmp_path_factory.mktemp("original") / "tagsync.db"
    with Emulator() as swr, Store.open(path) as store, closing(open_at(swr.url)) as registry:
        for number in range(60):
            swr.push("team/api", f"v{number}", f"image {number}")
        job = Job(Repository("swr", "team/api"), registry, timedelta(minutes=5))
        assert poll(job, store).outcome == "ok"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        assert connection.execute("SELECT count(*) FROM image_search_idx").fetchone()[0] > 1
    return path


def edit(original: Path, to: Path, change: Edit) -> None:
    """Copy a database and edit the copy, its definitions included."""
    to.write_bytes(original.read_bytes())
    with closing(sqlite3.connect(to, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        if callable(change):
            change(connection)
        else:
            connection.executescript(change)
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def faults_of(database: Path) -> dict[str, str]:
    with Audit.open(database) as audit:
        return {row["check"]: row["detail"] for row in audit.verify() if row["result"] != "ok"}


def redefine(name: str, old: str, new: str) -> Callable[[sqlite3.Connection], object]:
    """Return an edit that replaces a part of a definition."""

    def change(connection: sqlite3.Connection) -> None:
        sql = "SELECT sql FROM sqlite_master WHERE name = ?"
        (text,) = connection.execute(sql, (name,)).fetchone()
        assert old in text
        sql = "UPDATE sqlite_master SET sql = ? WHERE name = ?"
        connection.execute(sql, (text.replace(old, new, 1), name))

    return change


def exchange_pages(one: str, other: str) -> Callable[[sqlite3.Connection], object]:
    """Return an edit that exchanges the first pages of two tables or indexes."""

    def change(connection: sqlite3.Connection) -> None:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
        for name, source in ((one, other), (other, one)):
            sql = "UPDATE sqlite_master SET rootpage = ? WHERE name = ?"
            connection.execute(sql, (pages[source], name))

    return change


REDEFINED = {
    "a blank in a literal of a view": ("view tag_history", "'updated'", "'upd ated'"),
    "a blank in a path of a view": ("view image_layers", "'$.layers'", "'$.lay ers'"),
    "the case of a literal": ("view change_log", "'updated'", "'Updated'"),
    "the case of a keyword": ("view change_log", "SELECT", "select"),
    "a comment of a view": ("view change_log", "-- The changes", "-- the changes"),
    "a comment that hides a condition": (
        "view tag_history",
        "WHERE c.kind",
        "WHERE c.kind IS NULL -- c.kind",
    ),
    "quotes that make a name": (
        "trigger changes_are_never_updated",
        "RAISE(ABORT, 'changes is append-only')",
        "\"RAISE(ABORT, 'changes is append-only')\"",
    ),
    "brackets that make a name": (
        "trigger images_are_never_deleted",
        "RAISE(ABORT, 'images is append-only')",
        "[RAISE(ABORT, 'images is append-only')]",
    ),
    "a line break of a trigger": (
        "trigger changes_are_never_deleted",
        "BEFORE DELETE",
        "BEFORE\nDELETE",
    ),
    "a condition of a trigger": (
        "trigger images_are_only_filled_in",
        "OLD.verified IS NOT 1",
        "OLD.verified IS NOT 2",
    ),
    "text after a NUL": ("trigger changes_are_never_deleted", "END", "END\0"),
    "the case of an index": ("index changes_in_time", "(observed_at)", "(OBSERVED_AT)"),
    "the condition of an index": (
        "index changes_by_new_digest",
        "WHERE new_digest IS NOT NULL",
        "WHERE new_digest IS  NULL",
    ),
    "a comment of a table": ("table changes", "append-only", "append only"),
    "a blank in a literal of a table": ("table repositories", "'/'", "' /'"),
    "a constraint of a table": ("table images", "CHECK (verified IN (0, 1))", ""),
    "an option of the search index": ("table image_search", "'ascii'", "'unicode61'"),
    "a table of the search index": ("table image_search_idx", "segid, term,", "segid,  term,"),
}


@pytest.mark.parametrize("name", REDEFINED)
def test_altered_definition_is_found(original: Path, database: Path, name: str) -> None:
    """A definition that differs in one character is a fault, which shows the difference."""
    what, old, new = REDEFINED[name]
    edit(original, database, redefine(what.split()[1], old, new))
    fault = faults_of(database)["schema"]
    assert fault.startswith(f"the {what} is altered: from character ")
    assert " instead of " in fault


ADDED = {
    "an index": ("CREATE INDEX mine ON tags (digest)", "the index mine is not tagsync's"),
    "a unique index": (
        "CREATE UNIQUE INDEX mine ON changes (id, tag)",
        "the index mine is not tagsync's",
    ),
    "a partial index": (
        "CREATE INDEX mine ON changes (tag) WHERE kind = 'added'",
        "the index mine is not tagsync's",
    ),
    "an index with a name like one of sqlite-utils": (
        "CREATE INDEX idx__sqlite_migrations_x ON changes (tag)",
        "the index idx__sqlite_migrations_x is not tagsync's",
    ),
    "an index with a name like one of a constraint": (
        (
            "UPDATE sqlite_master SET name = 'sqlite_autoindex_changes_1',"
            " sql = replace(sql, name, 'sqlite_autoindex_changes_1')"
            " WHERE name = 'changes_in_time'"
        ),
        "the index sqlite_autoindex_changes_1 is not tagsync's",
    ),
    "a trigger": (
        "CREATE TRIGGER mine AFTER INSERT ON tags BEGIN DELETE FROM tags; END",
        "the trigger mine is not tagsync's",
    ),
    "a trigger on a view": (
        "CREATE TRIGGER mine INSTEAD OF INSERT ON change_log BEGIN SELECT 1; END",
        "the trigger mine is not tagsync's",
    ),
    "a trigger on an added table": (
        "CREATE TABLE t (x); CREATE TRIGGER mine AFTER INSERT ON t BEGIN SELECT 1; END",
        "the trigger mine is not tagsync's",
    ),
    "a trigger with control characters": (
        'CREATE TRIGGER "a\x1b[2J" AFTER INSERT ON tags BEGIN SELECT 1; END',
        "the trigger 'a\\x1b[2J' is not tagsync's",
    ),
    "a view in place of a table": (
        "ALTER TABLE changes RENAME TO old; CREATE VIEW Changes AS SELECT * FROM old",
        "the view Changes hides the table changes",
    ),
    "a table in place of a view": (
        "DROP VIEW tag_history; CREATE TABLE tag_history (x)",
        "the table tag_history hides the view tag_history",
    ),
    "a name with a blank": (
        'CREATE VIEW "changes " AS SELECT 1',
        "the view 'changes ' hides the table changes",
    ),
    "a name in other letters": (
        'CREATE TABLE "\uff54ags" (x)',
        "the table '\uff54ags' hides the table tags",
    ),
    "a table in place of a function of views": (
        "CREATE VIRTUAL TABLE json_each USING fts5 (key, value, type)",
        "the table json_each hides SQLite's function json_each",
    ),
    "a view in place of a pragma": (
        "CREATE VIEW pragma_table_info AS SELECT 1",
        "the view pragma_table_info hides SQLite's function pragma_table_info",
    ),
    "a reserved name": (
        (
            "INSERT INTO sqlite_master VALUES ('view', 'sqlite_x', 'sqlite_x', 0,"
            " 'CREATE VIEW sqlite_x AS SELECT 1')"
        ),
        "the view sqlite_x hides a table of SQLite",
    ),
}


@pytest.mark.parametrize("name", ADDED)
def test_added_object_is_found(original: Path, database: Path, name: str) -> None:
    """An added index or trigger is a fault, and so is a name that hides one of tagsync's."""
    change, fault = ADDED[name]
    edit(original, database, change)
    assert faults_of(database)["schema"].startswith(fault)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE mine (x UNIQUE, y PRIMARY KEY); INSERT INTO mine VALUES (1, 2)",
        "CREATE TABLE mine (x INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO mine VALUES (7)",
        "CREATE VIEW mine AS SELECT * FROM changes",
        "CREATE VIRTUAL TABLE mine USING fts5 (x); INSERT INTO mine VALUES ('a')",
        "ANALYZE",
        "PRAGMA user_version = 7",
        "VACUUM",
        "REINDEX",
    ],
)
def test_harmless_addition_is_not_a_fault(original: Path, database: Path, change: str) -> None:
    """Tables and views of others, and the statistics of SQLite, are no fault."""
    edit(original, database, change)
    assert faults_of(database) == {}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("DROP INDEX changes_in_time", "the index changes_in_time is missing"),
        ("DROP VIEW tag_moves", "the view tag_moves is missing"),
        ("DROP TRIGGER images_are_never_deleted", "the trigger images_are_never_deleted is missin"),
        ("DROP TABLE observations", "the table observations is missing"),
        (
            "DELETE FROM sqlite_master WHERE name = 'sqlite_autoindex_images_1'",
            "the index sqlite_autoindex_images_1 is missing",
        ),
        (
            "UPDATE sqlite_master SET sql = CAST(sql AS BLOB) WHERE name = 'tag_moves'",
            "the view tag_moves is altered: its definition is b'CREATE VIEW",
        ),
    ],
)
def test_missing_object_is_found(original: Path, database: Path, change: str, fault: str) -> None:
    """A missing object is named, and no later check fails with an error."""
    edit(original, database, change)
    assert faults_of(database)["schema"].startswith(fault)


def partial_while(sql: str) -> Callable[[sqlite3.Connection], object]:
    """Return an edit that runs SQL while an index is redefined to leave out every row."""

    def change(connection: sqlite3.Connection) -> None:
        (path,) = (row[2] for row in connection.execute("PRAGMA database_list"))
        index = "changes_in_time"
        redefine(index, "(observed_at)", "(observed_at) WHERE kind = ''")(connection)
        connection.execute("PRAGMA schema_version = 1001")
        with closing(sqlite3.connect(path)) as other, other, without_triggers(other):
            other.execute(sql)
        redefine(index, " WHERE kind = ''", "")(connection)

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            partial_while(
                "INSERT INTO changes SELECT max(id) + 1, 1, 'x', 'added', NULL, NULL, '{}', NULL,"
                " max(observed_at), '' FROM changes"
            ),
            "missing from index changes_in_time",
        ),
        (partial_while("DELETE FROM changes WHERE id = 60"), "index changes_in_time"),
        (
            partial_while("UPDATE changes SET observed_at = '2020' WHERE id = 7"),
            "row 7 missing from index changes_in_time",
        ),
        (exchange_pages("changes_in_time", "changes_of_tag"), "missing from index changes_"),
        (
            exchange_pages("sqlite_autoindex_repositories_1", "repositories_by_full_name"),
            "missing from index",
        ),
        (exchange_pages("changes", "observations"), "has a value of another type than its column"),
    ],
    ids=["row missing", "row left over", "row altered", "indexes", "constraint", "tables"],
)
def test_index_that_disagrees_with_its_table_is_found(
    original: Path, database: Path, change: Edit, found: str
) -> None:
    """An index with missing, extra or wrong rows is a fault, and no answer depends on it."""
    edit(original, database, change)
    faults = faults_of(database)
    assert found in faults["schema"]
    assert faults.keys() == set(CHECKS)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM image_search_idx",
        "DELETE FROM image_search_idx WHERE pgno > 3",
        "UPDATE image_search_idx SET term = CAST(term || 'f' AS BLOB) WHERE pgno > 3",
    ],
)
def test_search_index_that_finds_nothing_is_found(
    original: Path, database: Path, change: str
) -> None:
    """A search index whose entries are whole but cannot be reached is a fault."""
    edit(original, database, change)
    assert "but a search does not find it" in faults_of(database)["images"]


def test_reference_to_a_missing_row_is_found(original: Path, database: Path) -> None:
    """A row that refers to a missing row is a fault, and the other checks still run."""
    edit(original, database, "UPDATE observations SET repository_id = 77")
    faults = faults_of(database)
    assert faults["schema"] == (
        "row 1 of observations references a row of repositories that is missing"
    )
    assert faults.keys() == {"schema", "observations"}


def test_new_databases_have_equal_definitions() -> None:
    """Two new databases do not differ, and each object of one is missing in an empty one."""
    with closing(empty_database()) as one, closing(empty_database()) as other:
        expected = migrations.definitions(one)
        assert definition_fault(migrations.definitions(other), expected) is None
    for key in expected:
        rest = {name: sql for name, sql in expected.items() if name != key}
        assert definition_fault(rest, expected) == f"the {key} is missing"


def test_structure_is_checked_without_permission_to_write(original: Path, database: Path) -> None:
    """The check of a read-only file in a read-only folder creates and changes nothing."""
    database.write_bytes(original.read_bytes())
    database.chmod(0o400)
    database.parent.chmod(0o500)
    try:
        assert faults_of(database) == {}
        assert [each.name for each in database.parent.iterdir()] == [database.name]
    finally:
        database.parent.chmod(0o700)
    assert database.read_bytes() == original.read_bytes()


ALTERED_INFO = {
    "no row": "DELETE FROM info",
    "a text that is no id": "UPDATE info SET database_id = 'mine'",
}


@pytest.mark.parametrize("name", ALTERED_INFO)
def test_altered_info_is_found(original: Path, database: Path, name: str) -> None:
    """A database that lacks its id is a fault."""
    edit(original, database, ALTERED_INFO[name])
    assert faults_of(database)["schema"] == (
        "info does not have its one row with the id of the database"
    )


def test_each_database_has_one_id() -> None:
    """Two databases have different ids, and no database takes a second one."""
    with closing(empty_database()) as one, closing(empty_database()) as other:
        ids = [db.execute("SELECT database_id FROM info").fetchone() for db in (one, other)]
        assert ids[0] != ids[1]
        with pytest.raises(sqlite3.IntegrityError, match="info_has_one_row"):
            one.execute("INSERT INTO info SELECT * FROM info")
