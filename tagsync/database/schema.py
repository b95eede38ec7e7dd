"""The database's tables, views and triggers, as a series of migrations.

A migration that has been released is never edited: a change of the schema is a further one.
Nothing here needs a SQLite newer than 3.32, so that the tools of long-lived systems can read it.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from tagsync.database.parts import Names, batch_of, names_of
from tagsync.database.rows import insert_rows
from tagsync.errors import UnusableDatabase

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

APPLICATION_ID: Final = 0x74677379
"""``tgsy`` in the file's header, by which a database of ours is known (PRAGMA application_id)."""

_INSERT_PARTS: Final = (
    "INSERT OR IGNORE INTO image_parts (batch, part)"
    " SELECT ?, value FROM json_each(?) ORDER BY value"
)
_INSERT_MANIFESTS: Final = (
    "INSERT OR IGNORE INTO index_manifests (manifest_digest, index_digest) VALUES (rows)"
)

_encode = msgspec.json.Encoder().encode

_MIGRATION_SET: Final = "tagsync"
_TABLES: Final = (
    """
    CREATE TABLE repositories (
        id INTEGER PRIMARY KEY,
        registry TEXT NOT NULL,
        name TEXT NOT NULL,               -- namespace/name
        namespace TEXT GENERATED ALWAYS AS (substr(name, 1, instr(name, '/') - 1)) VIRTUAL,
        first_observed_at TEXT,           -- of the first complete listing
        last_attempt_at TEXT NOT NULL,
        last_complete_at TEXT,            -- when the last recorded listing had been read
        listing_hash TEXT,                -- of that listing's bytes
        failures INTEGER NOT NULL DEFAULT 0,  -- polls in a row that failed
        last_error TEXT,                  -- why the last poll failed or was held; null if it was ok
        not_before TEXT,                  -- when the last recorded listing began: a change seen
                                          -- next happened after this
        unlogged_from INTEGER,            -- the first change whose log line is not yet written
        UNIQUE (registry, name)
    )
    """,
    """
    CREATE TABLE images (
        digest TEXT PRIMARY KEY,
        image_id TEXT,
        media_type TEXT,
        schema INTEGER,
        size INTEGER,                     -- bytes, as the registry says
        manifest TEXT,                    -- its exact text
        verified INTEGER CHECK (verified IN (0, 1)),  -- 1 it hashes to the digest, 0 it does not
        first_observed_at TEXT NOT NULL,
        number INTEGER UNIQUE             -- 1, 2, 3 … as they came
    )
    """,
    # Clustered by repository, which is how a poll reads and writes it.
    """
    CREATE TABLE tags (
        repository_id INTEGER NOT NULL REFERENCES repositories (id),
        tag TEXT NOT NULL,
        digest TEXT,                      -- null where listed but not resolved
        image_id TEXT,
        schema INTEGER,
        size INTEGER,
        path TEXT,
        internal_path TEXT,
        is_trusted INTEGER,
        tag_type INTEGER,
        scanned INTEGER,
        registry_id INTEGER,              -- the registry's own id of the row
        registry_repo_id INTEGER,         -- and of the repository
        domain_id TEXT,
        created TEXT,
        updated TEXT,
        first_observed_at TEXT NOT NULL,
        changed_at TEXT NOT NULL,         -- observed_at of its last change
        PRIMARY KEY (repository_id, tag)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE changes (
        id INTEGER PRIMARY KEY,
        repository_id INTEGER NOT NULL REFERENCES repositories (id),
        tag TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('added', 'updated', 'deleted')),
        old_digest TEXT,
        new_digest TEXT,
        fields TEXT NOT NULL,             -- JSON: field -> [old, new]
        not_before TEXT,                  -- it happened after this; null: there when first seen
        observed_at TEXT NOT NULL,        -- and no later than this
        hash TEXT NOT NULL                -- of this change and the hash before it
    )
    """,
    "CREATE INDEX changes_of_tag ON changes (repository_id, tag)",
    """
    CREATE TABLE observations (
        id INTEGER PRIMARY KEY,
        repository_id INTEGER NOT NULL REFERENCES repositories (id),
        outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'failed', 'held')),
        detail TEXT,
        first_at TEXT NOT NULL,
        last_at TEXT NOT NULL,
        polls INTEGER NOT NULL,
        tags INTEGER                      -- how many the last of these listings had
    )
    """,
    "CREATE INDEX observations_of_repository ON observations (repository_id)",
)

# A REPLACE would delete without firing a DELETE trigger, so what exists is guarded on INSERT too.
_APPEND_ONLY: Final = (
    """
    CREATE TRIGGER changes_are_never_updated BEFORE UPDATE ON changes
    BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END
    """,
    """
    CREATE TRIGGER changes_are_never_deleted BEFORE DELETE ON changes
    BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END
    """,
    """
    CREATE TRIGGER changes_are_never_replaced BEFORE INSERT ON changes
    WHEN EXISTS (SELECT 1 FROM changes WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END
    """,
    """
    CREATE TRIGGER images_are_never_updated BEFORE UPDATE ON images
    BEGIN SELECT RAISE(ABORT, 'images is append-only'); END
    """,
    """
    CREATE TRIGGER images_are_never_deleted BEFORE DELETE ON images
    BEGIN SELECT RAISE(ABORT, 'images is append-only'); END
    """,
    # One trigger for both rules: with two of them a first import takes 2 % longer. That no rowid is
    # given it sees as -1, so that it guards no image there, where none of ours is.
    """
    CREATE TRIGGER images_are_never_replaced BEFORE INSERT ON images
    BEGIN
        SELECT CASE
            WHEN EXISTS (SELECT 1 FROM images WHERE digest = NEW.digest) THEN RAISE(IGNORE)
            WHEN EXISTS (SELECT 1 FROM images WHERE number = NEW.number)
                OR NEW.rowid <> -1  -- not given
                    AND EXISTS (SELECT 1 FROM images WHERE rowid = NEW.rowid)
            THEN RAISE(ABORT, 'images is append-only')
        END;
    END
    """,
)

_VIEWS: Final = {
    "current_tags": """
        SELECT r.registry || '/' || r.name AS repository, t.tag, t.digest, t.image_id,
               i.media_type, t.schema, t.size, t.path, t.internal_path, t.is_trusted, t.tag_type,
               t.scanned, t.registry_id, t.registry_repo_id, t.domain_id, t.created, t.updated,
               t.first_observed_at, t.changed_at, i.verified, t.repository_id
        FROM tags AS t
        JOIN repositories AS r ON r.id = t.repository_id
        LEFT JOIN images AS i ON i.digest = t.digest
    """,
    "change_log": """
        SELECT c.id, c.observed_at, c.not_before, r.registry || '/' || r.name AS repository, c.tag,
               c.kind, c.kind = 'updated' AND c.old_digest IS NOT c.new_digest AS moved,
               c.old_digest, c.new_digest, c.fields, c.hash, c.repository_id
        FROM changes AS c
        JOIN repositories AS r ON r.id = c.repository_id
    """,
    # Each digest that a tag pointed to, from the change that brought it to the one that ended it.
    "tag_history": """
        SELECT repository, tag, digest, not_before, valid_from, valid_to, repository_id
        FROM (
            SELECT r.registry || '/' || r.name AS repository, c.tag, c.new_digest AS digest, c.kind,
                   c.not_before, c.observed_at AS valid_from, c.repository_id,
                   lead(c.observed_at) OVER (
                       PARTITION BY c.repository_id, c.tag ORDER BY c.id
                   ) AS valid_to
            FROM changes AS c
            JOIN repositories AS r ON r.id = c.repository_id
            WHERE c.kind <> 'updated' OR c.old_digest IS NOT c.new_digest
        )
        WHERE kind <> 'deleted'
    """,
    # Schema 1 lists its layers from the top, and without sizes.
    "image_layers": """
        SELECT i.digest, l.key AS position, json_extract(l.value, '$.digest') AS layer_digest,
               json_extract(l.value, '$.size') AS size
        FROM images AS i,
             json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.layers') AS l
        WHERE l.type = 'object' AND typeof(l.key) = 'integer'
        UNION ALL
        SELECT i.digest, json_array_length(i.manifest, '$.fsLayers') - 1 - l.key,
               json_extract(l.value, '$.blobSum'), NULL
        FROM images AS i,
             json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.fsLayers') AS l
        WHERE l.type = 'object' AND typeof(l.key) = 'integer'
    """,
    "image_platforms": """
        SELECT i.digest AS index_digest,
               json_extract(m.value, '$.platform.os') || '/'
                   || json_extract(m.value, '$.platform.architecture')
                   || coalesce('/' || json_extract(m.value, '$.platform.variant'), '') AS platform,
               json_extract(m.value, '$.digest') AS manifest_digest
        FROM images AS i,
             json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.manifests') AS m
        WHERE m.type = 'object'
    """,
}

_INDEXES: Final = (
    # Digests come in no order: with an index of theirs a first import takes a quarter longer. This
    # table stands for it.
    """
    CREATE TABLE change_images (
        change_id INTEGER PRIMARY KEY REFERENCES changes (id),
        image_number INTEGER              -- of the image that new_digest names; null where that is
    )
    """,
    "CREATE INDEX changes_of_image ON change_images (image_number)",
    """
    INSERT INTO change_images
    SELECT id, (SELECT number FROM images WHERE digest = new_digest) FROM changes
    WHERE kind <> 'deleted'
    """,
    # What is left here of a change that was cut off does not keep its successor out.
    """
    CREATE TRIGGER changes_lead_to_images AFTER INSERT ON changes WHEN NEW.kind <> 'deleted'
    BEGIN
        INSERT OR REPLACE INTO change_images
        SELECT NEW.id, (SELECT number FROM images WHERE digest = NEW.new_digest);
    END
    """,
    "CREATE INDEX changes_in_time ON changes (observed_at)",
    # By which the views find a repository; its two names are one there.
    "CREATE INDEX repositories_by_full_name ON repositories (registry || '/' || name)",
    """
    CREATE TABLE image_parts (
        batch INTEGER NOT NULL,           -- (number - 1) / 1024 of an image that names it
        part INTEGER NOT NULL,            -- a configuration or a layer: 15 digits of its digest
        PRIMARY KEY (batch, part)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE index_manifests (
        manifest_digest TEXT NOT NULL,    -- a manifest of an index
        index_digest TEXT NOT NULL,       -- the index that names it
        PRIMARY KEY (manifest_digest, index_digest)
    ) WITHOUT ROWID
    """,
)

# The change that ended each is looked up for it, so that whatever the view is asked for, a tag, a
# digest or a time, SQLite begins with the index of that. For a digest, that is the one of images.
_TAG_HISTORY: Final = """
    SELECT r.registry || '/' || r.name AS repository, c.tag, i.digest, c.not_before,
           c.observed_at AS valid_from, e.observed_at AS valid_to, c.repository_id,
           iif(e.id IS NULL, r.not_before, e.not_before) AS still_at
    FROM changes AS c
    JOIN repositories AS r ON r.id = c.repository_id
    JOIN change_images AS l ON l.change_id = c.id
    LEFT JOIN images AS i ON i.number = l.image_number AND i.digest = c.new_digest
    LEFT JOIN changes AS e ON e.id = (
        SELECT n.id FROM changes AS n
        WHERE n.repository_id = c.repository_id AND n.tag = c.tag AND n.id > c.id
              AND (n.kind <> 'updated' OR n.old_digest IS NOT n.new_digest)
        ORDER BY n.id LIMIT 1
    )
    WHERE c.kind = 'added' OR c.kind = 'updated' AND c.old_digest IS NOT c.new_digest
"""

# An image may be recorded before its manifest could be had. That it is filled in later, once, is
# the one thing that may happen to an image: its bytes come, verified, and with them what they say.
_FILL_IN: Final = """
    CREATE TRIGGER images_are_only_filled_in BEFORE UPDATE ON images
    WHEN NOT (
        OLD.manifest IS NULL AND typeof(NEW.manifest) = 'text'
        AND OLD.verified IS NULL AND NEW.verified IS 1
        AND NEW.rowid IS OLD.rowid
        AND NEW.digest IS OLD.digest
        AND NEW.number IS OLD.number
        AND NEW.first_observed_at IS OLD.first_observed_at
        AND (OLD.image_id IS NULL OR NEW.image_id IS OLD.image_id)
        AND (OLD.media_type IS NULL OR NEW.media_type IS OLD.media_type)
        AND (OLD.schema IS NULL OR NEW.schema IS OLD.schema)
        AND (OLD.size IS NULL OR NEW.size IS OLD.size)
    )
    BEGIN SELECT RAISE(ABORT, 'images is append-only'); END
"""

_VIEWS_OF_WHAT_IS_RESOLVED: Final = {
    # What a registry's list does not say of a tag may be known of its image.
    "current_tags": """
        SELECT r.registry || '/' || r.name AS repository, t.tag, t.digest,
               coalesce(t.image_id, i.image_id) AS image_id, i.media_type,
               coalesce(t.schema, i.schema) AS schema, coalesce(t.size, i.size) AS size, t.path,
               t.internal_path, t.is_trusted, t.tag_type, t.scanned, t.registry_id,
               t.registry_repo_id, t.domain_id, t.created, t.updated, t.first_observed_at,
               t.changed_at, i.verified, t.repository_id
        FROM tags AS t
        JOIN repositories AS r ON r.id = t.repository_id
        LEFT JOIN images AS i ON i.digest = t.digest
    """,
    # From or to a null digest nothing moved: the tag began or ceased to be resolved.
    "change_log": """
        SELECT c.id, c.observed_at, c.not_before, r.registry || '/' || r.name AS repository, c.tag,
               c.kind, c.kind = 'updated' AND coalesce(c.old_digest <> c.new_digest, 0) AS moved,
               c.old_digest, c.new_digest, c.fields, c.hash, c.repository_id
        FROM changes AS c
        JOIN repositories AS r ON r.id = c.repository_id
    """,
}


def _tables_and_triggers(db: sqlite3.Connection) -> None:
    # One by one: sqlite3's executescript would commit the transaction that makes this atomic.
    for statement in (*_TABLES, *_APPEND_ONLY):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _views_for_people(db: sqlite3.Connection) -> None:
    _define(db, _VIEWS)


def _indexes_for_the_audit(db: sqlite3.Connection) -> None:
    for statement in _INDEXES:
        db.execute(statement)
    names = names_of(db.execute("SELECT digest, manifest, image_id FROM images"))
    index_images(db, dict(db.execute("SELECT digest, number FROM images").fetchall()), names)
    _define(db, {"tag_history": _TAG_HISTORY})


def _manifests_that_come_later(db: sqlite3.Connection) -> None:
    db.execute("DROP TRIGGER images_are_never_updated")
    db.execute(_FILL_IN)
    _define(db, _VIEWS_OF_WHAT_IS_RESOLVED)


def _define(db: sqlite3.Connection, views: Mapping[str, str]) -> None:
    for name, query in views.items():
        db.execute(f"DROP VIEW IF EXISTS {name}")
        db.execute(f"CREATE VIEW {name} AS {query}")


_MIGRATIONS: Final[Mapping[str, Callable[[sqlite3.Connection], None]]] = {
    step.__name__.removeprefix("_"): step
    for step in (
        _tables_and_triggers,
        _views_for_people,
        _indexes_for_the_audit,
        _manifests_that_come_later,
    )
}
"""What each migration does, by its name, the oldest first."""


def index_images(
    connection: sqlite3.Connection, numbers: Mapping[str, int], names: Mapping[str, Names]
) -> None:
    """Lets images be found by what they name.

    Args:
        connection: within a transaction.
        numbers: those of the images, by their digests.
        names: what they name, by their digests.
    """
    parts: dict[int, set[int]] = {}
    for digest, number in numbers.items():
        parts.setdefault(batch_of(number), set()).update(names[digest].parts)
    for batch, found in parts.items():
        connection.execute(_INSERT_PARTS, (batch, _encode(found).decode()))
    manifests = [(name, digest) for digest in numbers for name in names[digest].manifests]
    insert_rows(connection, _INSERT_MANIFESTS, manifests)


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Brings the database to this version's schema; writes nothing to one that has it.

    Runs in one write transaction, so that of several processes one migrates and the others find it
    done, and a kill leaves either the old schema or the new one.

    Args:
        db: a connection that may write, outside a transaction.
        path: how messages call the file.

    Raises:
        UnusableDatabase: it belongs to another program, or to a newer tagsync.
    """
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


def migrations() -> "Migrations":
    """The migrations, as sqlite-utils applies them and notes them down."""
    # 90 ms, for which only a database has a use that is new, or an older tagsync's.
    from sqlite_utils import Migrations  # noqa: PLC0415  see above

    def step(migration: Callable[[sqlite3.Connection], None]) -> Callable[["Database"], None]:
        return lambda db: migration(db.conn)

    made = Migrations(_MIGRATION_SET)
    for name, migration in _MIGRATIONS.items():
        made(name=name)(step(migration))
    return made


def _apply(db: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # noqa: PLC0415  as above

    # sqlite-utils' plugins are for its own command line.
    migrations().apply(Database(db, execute_plugins=False))


def is_new(db: sqlite3.Connection) -> bool:
    """Whether the file holds nothing yet, neither ours nor anybody's."""
    return (
        _pragma(db, "application_id") == 0
        and not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    )


def is_current(db: sqlite3.Connection) -> bool:
    """Whether the database is ours and has exactly the migrations that this version knows."""
    return _pragma(db, "application_id") == APPLICATION_ID and _applied(db) == set(_MIGRATIONS)


def check(db: sqlite3.Connection, path: str) -> None:
    """Makes sure that the database is ours and that this version understands it.

    Args:
        db: a connection that may read.
        path: how messages call the file.

    Raises:
        UnusableDatabase: it is empty, or belongs to another program or to a newer tagsync.
    """
    if is_new(db):
        raise UnusableDatabase(f"{path} holds nothing yet: run tagsync sync first")
    if _pragma(db, "application_id") != APPLICATION_ID:
        raise UnusableDatabase(
            f"{path} is a database of another program: let store.path name a file of tagsync's own"
        )
    if newer := sorted(_applied(db) - set(_MIGRATIONS)):
        raise UnusableDatabase(
            f"{path} was written by a newer tagsync (its schema has {newer[0]}): upgrade this one"
        )


def check_current(db: sqlite3.Connection, path: str) -> None:
    """Makes sure that the database has everything that this version asks for.

    Args:
        db: a connection that may read, to a database that `check` accepted.
        path: how messages call the file.

    Raises:
        UnusableDatabase: it was last written by an older tagsync.
    """
    if not is_current(db):
        raise UnusableDatabase(
            f"{path} was last written by an older tagsync: run tagsync sync, which brings it up to"
            " date"
        )


def definitions(db: sqlite3.Connection) -> dict[str, str]:
    """Every table, index, trigger and view: its kind and name, and its SQL, to be compared.

    The SQL is without blanks and the quotes of names, which sqlite-utils may set in other ways
    from version to version.
    """
    rows = db.execute(
        "SELECT type || ' ' || name, sql FROM sqlite_master"
        " WHERE sql IS NOT NULL AND tbl_name NOT LIKE '\\_sqlite%' ESCAPE '\\' ORDER BY type, name"
    )
    return {name: re.sub(r'[\s"`\[\]]', "", sql) for name, sql in rows}


def _applied(db: sqlite3.Connection) -> set[str]:
    """The migrations that sqlite-utils has noted down in the database."""
    known = db.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()
    if not known:
        return set()
    rows = db.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (_MIGRATION_SET,)
    )
    return {name for (name,) in rows}


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
