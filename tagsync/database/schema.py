"""The complete schema of the database, as one SQL script.

The comment behind each table, view and column is its description. `descriptions` returns them for
the web pages and the documentation. The schema needs SQLite 3.32 or newer, so that old systems can
read the file. Only ``image_search`` also needs FTS5.
"""

import re
import sqlite3
from collections.abc import Iterator
from typing import Final

APPLICATION_ID: Final = 0x74677379
"""``tgsy`` in the file's header, which marks the file as tagsync's (PRAGMA application_id)."""

TABLES: Final = """
CREATE TABLE repositories ( -- The repositories that are or were watched, and their last poll.
    id INTEGER PRIMARY KEY, -- number of the row
    registry TEXT NOT NULL, -- the registry's name in the configuration
    name TEXT NOT NULL, -- namespace/name
    namespace TEXT GENERATED ALWAYS AS (substr(name, 1, instr(name, '/') - 1)) VIRTUAL, -- \
SWR's organization
    full_name TEXT GENERATED ALWAYS AS (registry || '/' || name) VIRTUAL, -- \
registry/namespace/name
    first_observed_at TEXT, -- end of the first complete listing
    last_attempt_at TEXT NOT NULL, -- end of the last poll, with any outcome
    last_complete_at TEXT, -- end of the last recorded listing
    listing_hash TEXT, -- fingerprint of the last recorded listing
    version INTEGER NOT NULL DEFAULT 0, -- number of complete listings, recorded or held
    failures INTEGER NOT NULL DEFAULT 0, -- consecutive polls that failed
    last_error TEXT, -- why the last poll failed or was held; null if it was ok
    not_before TEXT, -- start of the last recorded listing; the next change happens after this time
    unlogged_from INTEGER, -- id of the first change whose log line is pending; null if no line is
    hash TEXT NOT NULL, -- SHA-256 of the other stored columns
    UNIQUE (registry, name)
);
CREATE INDEX repositories_by_full_name ON repositories (full_name);

CREATE TABLE images ( -- The images that digests name, with the exact text of their manifests.
    id INTEGER PRIMARY KEY, -- 1, 2, 3 … in the order in which images were recorded
    digest TEXT NOT NULL UNIQUE, -- digest of the manifest, as the registry sent it
    image_id TEXT, -- digest of the image's configuration; a verified manifest decides, or else \
the registry's list
    media_type TEXT, -- as the manifest states it
    schema INTEGER, -- version of the manifest format, 1 or 2; decided like image_id
    size INTEGER, -- bytes of configuration and layers; decided like image_id
    manifest TEXT, -- exact text of the manifest
    verified INTEGER CHECK (verified IN (0, 1)), -- \
1: the manifest hashes to the digest; 0: it does not; null: there is no manifest
    first_observed_at TEXT NOT NULL -- end of the first listing that contained the image
);
CREATE INDEX images_by_size ON images (size) WHERE size IS NOT NULL;
-- For the view image_platforms: hardly any of the manifests may be one of an index.
CREATE INDEX images_with_platforms ON images (id) WHERE instr(manifest, '"manifests"') > 0;

-- Finds images by the digests that they reference. The row id is images.id, and the text is every
-- referenced digest in hexadecimal. A manifest's references are indexed only if it is verified;
-- until then the text is the image_id. Contentless tables refuse DELETE before SQLite 3.43, but the
-- command 'delete' of FTS5 works with every version.
CREATE VIRTUAL TABLE image_search USING fts5 (
    digests, content='', detail=none, columnsize=0, tokenize='ascii'
);

-- Clustered by repository, because a poll reads and writes the tags of one repository.
CREATE TABLE tags ( -- Each tag as the last recorded listing had it.
    repository_id INTEGER NOT NULL REFERENCES repositories (id), -- repositories.id
    tag TEXT NOT NULL, -- name of the tag
    digest TEXT, -- digest that the tag points to; null if the tag is listed but was not resolved
    image_id TEXT, -- digest of the image's configuration
    schema INTEGER, -- version of the manifest format, 1 or 2
    size INTEGER, -- bytes, as the registry states it
    path TEXT, -- the registry's external address of the tag
    internal_path TEXT, -- the registry's internal address of the tag
    is_trusted INTEGER, -- 1 if the registry says that the image is signed
    tag_type INTEGER, -- 0: a manifest; 1: a list of manifests
    scanned INTEGER, -- 1 if the registry says that the image was scanned
    registry_id INTEGER, -- the registry's own id of the row
    registry_repo_id INTEGER, -- the registry's own id of the repository
    domain_id TEXT, -- account that owns the tag
    created TEXT, -- time of creation, as the registry states it
    updated TEXT, -- time of the last push, as the registry states it
    first_observed_at TEXT NOT NULL, -- end of the first listing that contained the tag, or that \
contained it again after a deletion
    changed_at TEXT NOT NULL, -- observed_at of the tag's last change
    unresolved_since TEXT, -- nothing is known of the tag's digest after this time, because newer \
listings contain the tag, but did not resolve it; null if the last listing resolved it
    PRIMARY KEY (repository_id, tag)
) WITHOUT ROWID;

CREATE TABLE changes ( -- The history: append-only, each change chained to the one before it.
    id INTEGER PRIMARY KEY, -- 1, 2, 3 … without gaps
    repository_id INTEGER NOT NULL REFERENCES repositories (id), -- repositories.id
    tag TEXT NOT NULL, -- name of the tag
    kind TEXT NOT NULL CHECK (kind IN ('added', 'updated', 'deleted')), -- added, updated or deleted
    old_digest TEXT, -- digest before the change
    new_digest TEXT, -- digest after the change
    fields TEXT NOT NULL, -- JSON of the fields that differ: name → [old, new]
    not_before TEXT, -- the change happened after this time; null: the tag was there when the \
repository was first listed
    observed_at TEXT NOT NULL, -- the change happened no later than this time
    hash TEXT NOT NULL -- SHA-256 of this change and of the previous change's hash
);
CREATE INDEX changes_of_tag ON changes (repository_id, tag);
-- With id before observed_at, SQLite does not prefer this index for a query of one tag, and reads a
-- repository's changes in their order.
CREATE INDEX changes_of_repository ON changes (repository_id, id, observed_at);
CREATE INDEX changes_in_time ON changes (observed_at);
CREATE INDEX changes_by_new_digest ON changes (new_digest) WHERE new_digest IS NOT NULL;

-- Charts of long ranges read this table, because counting millions of changes takes seconds.
CREATE TABLE daily_changes ( -- How many changes were recorded for each repository on each UTC day.
    day TEXT NOT NULL, -- UTC day of observed_at, as YYYY-MM-DD
    repository_id INTEGER NOT NULL REFERENCES repositories (id), -- repositories.id
    baseline INTEGER NOT NULL, -- tags that were there when the repository was first listed
    added INTEGER NOT NULL, -- tags that were added later
    moved INTEGER NOT NULL, -- updates to another digest
    updated INTEGER NOT NULL, -- all other updates; a change from or to a null digest is one
    deleted INTEGER NOT NULL, -- tags that were deleted
    PRIMARY KEY (day, repository_id)
) WITHOUT ROWID;

CREATE TABLE observations ( -- When tagsync polled, and the results. A row is a run of polls of a \
repository with the same result.
    id INTEGER PRIMARY KEY, -- number of the row
    repository_id INTEGER NOT NULL REFERENCES repositories (id), -- repositories.id
    outcome TEXT NOT NULL CHECK (outcome IN ('ok', 'failed', 'held')), -- ok, failed or held
    reasons TEXT, -- words for why the polls failed or were held, or for what is unusual about the \
listings; sorted, separated by commas; null if there are none
    reason_key TEXT, -- fingerprint of the subject of the reasons, such as the set of deletions
    source TEXT, -- where digests came from: swr; head if each tag of an OCI registry was resolved \
by a request; or the name of the registry's own list: gitlab, google, acr, harbor, quay, zot, \
dockerhub; null if the polls failed
    clock_said TEXT, -- the clock's time, if it was before the last recorded time; first_at and \
last_at then show only the order
    detail TEXT, -- the reasons in a sentence for people
    first_at TEXT NOT NULL, -- end of the first poll of the run; last_at of the row before, if no \
time without complete listings is between the two, or if the run only goes on after midnight (UTC)
    last_at TEXT NOT NULL, -- end of the last poll of the run
    polls INTEGER NOT NULL, -- number of polls
    tags INTEGER, -- number of tags in the last listing of the run; null if the polls failed
    ended INTEGER, -- 1, 2, 3 … without gaps, in the order in which rows ended; null while the row \
may grow
    change_id INTEGER, -- the newest change, of all repositories, when the row ended; null if \
there was none
    hash TEXT -- SHA-256 of this row, of the hash of the row that ended before it, and of the hash \
of the change change_id; null while the row may grow
);
CREATE INDEX observations_of_repository ON observations (repository_id);
CREATE UNIQUE INDEX observations_ended ON observations (ended) WHERE ended IS NOT NULL;
CREATE INDEX observations_growing ON observations (last_at) WHERE ended IS NULL;

CREATE TABLE verifications ( -- The results of the daemon's verifications: append-only.
    id INTEGER PRIMARY KEY, -- number of the row
    at TEXT NOT NULL, -- end of the verification
    result TEXT NOT NULL CHECK (result IN ('ok', 'fault', 'failed')), -- ok, fault, or failed if \
the verification did not finish
    seconds REAL NOT NULL, -- duration of the verification
    detail TEXT, -- the faults, or why it did not finish; null if the result is ok
    change_id INTEGER NOT NULL, -- the newest change that a verification without a fault has \
covered; 0 if there is none
    head TEXT NOT NULL, -- hash of that change; zeros if there is none
    ended INTEGER NOT NULL, -- number of the observation that ended last and that a verification \
without a fault has covered; 0 if there is none
    observations_head TEXT NOT NULL -- hash of that observation; zeros if there is none
);

CREATE TABLE events ( -- The outbox of notifications: append-only. A row is written in the \
transaction that caused it.
    id INTEGER PRIMARY KEY, -- 1, 2, 3 … without gaps
    at TEXT NOT NULL, -- when it was observed; for a change its observed_at
    kind TEXT NOT NULL CHECK (kind IN ('added', 'moved', 'updated', 'deleted', 'held', 'failed', \
'recovered', 'stale', 'immutable_moved', 'immutable_deleted', 'unverified', 'baselined', \
'verification_failed')), -- what happened; docs/notifications.md explains each kind
    repository_id INTEGER REFERENCES repositories (id), -- repositories.id; null if the event is \
about the whole database
    tag TEXT, -- name of the tag; null if the event is not about one tag
    change_id INTEGER REFERENCES changes (id), -- changes.id; null if no change caused the event
    detail TEXT -- JSON object with what else is known; null if the change says everything
);
-- The alarms about tags that must not move are read often, and are few.
CREATE INDEX events_immutable ON events (change_id)
WHERE kind IN ('immutable_moved', 'immutable_deleted');
-- Before each event about staleness or a wrong manifest, the one before it is looked up.
CREATE INDEX events_unverified ON events (repository_id, tag) WHERE kind = 'unverified';
CREATE INDEX events_stale ON events (repository_id, at) WHERE kind = 'stale';

CREATE TABLE destinations ( -- Where notifications are sent, and how far each destination has got.
    name TEXT PRIMARY KEY, -- its name in the configuration
    cursor INTEGER NOT NULL, -- events.id; all events up to it were accepted or not wanted
    sequence INTEGER NOT NULL DEFAULT 0, -- events that were accepted, repeats included
    batch TEXT, -- JSON array of the events.id that are being sent together; null if none are
    lease_holder TEXT, -- the process that may send; null if none may
    lease_until TEXT, -- when another process may take over the lease
    failures INTEGER NOT NULL DEFAULT 0, -- consecutive attempts that failed
    failing_since TEXT, -- the first of these attempts; null if there is none
    last_error TEXT, -- why the last attempt failed; null if it was accepted
    retry_at TEXT, -- when the next attempt is due; null if nothing failed
    last_accepted_at TEXT -- when the receiver last accepted something; null if it never has
);

CREATE TABLE acceptances ( -- The changes of immutable tags that were accepted: append-only.
    change_id INTEGER PRIMARY KEY REFERENCES changes (id), -- changes.id
    at TEXT NOT NULL, -- when it was accepted
    who TEXT NOT NULL, -- the user who accepted it, as the system names them
    reason TEXT NOT NULL -- the reason that they gave
);

CREATE TABLE info ( -- The identity of this file, in one row.
    database_id TEXT NOT NULL, -- random; tells this database from a copy that was restored
    created_at TEXT NOT NULL -- when the file was created
);
CREATE UNIQUE INDEX info_has_one_row ON info ((1));
"""

TRIGGERS: Final = """
CREATE TRIGGER changes_are_never_updated BEFORE UPDATE ON changes
BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END;
CREATE TRIGGER changes_are_never_deleted BEFORE DELETE ON changes
BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END;
-- INSERT OR REPLACE deletes without firing a DELETE trigger.
CREATE TRIGGER changes_are_never_replaced BEFORE INSERT ON changes
WHEN EXISTS (SELECT 1 FROM changes WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'changes is append-only'); END;

CREATE TRIGGER verifications_are_never_updated BEFORE UPDATE ON verifications
BEGIN SELECT RAISE(ABORT, 'verifications is append-only'); END;
CREATE TRIGGER verifications_are_never_deleted BEFORE DELETE ON verifications
BEGIN SELECT RAISE(ABORT, 'verifications is append-only'); END;
CREATE TRIGGER verifications_are_never_replaced BEFORE INSERT ON verifications
WHEN EXISTS (SELECT 1 FROM verifications WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'verifications is append-only'); END;

CREATE TRIGGER events_are_never_updated BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_are_never_replaced BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;

CREATE TRIGGER acceptances_are_never_updated BEFORE UPDATE ON acceptances
BEGIN SELECT RAISE(ABORT, 'acceptances is append-only'); END;
CREATE TRIGGER acceptances_are_never_deleted BEFORE DELETE ON acceptances
BEGIN SELECT RAISE(ABORT, 'acceptances is append-only'); END;
CREATE TRIGGER acceptances_are_never_replaced BEFORE INSERT ON acceptances
WHEN EXISTS (SELECT 1 FROM acceptances WHERE change_id = NEW.change_id)
BEGIN SELECT RAISE(ABORT, 'acceptances is append-only'); END;

CREATE TRIGGER images_are_never_deleted BEFORE DELETE ON images
BEGIN SELECT RAISE(ABORT, 'images is append-only'); END;
-- In a BEFORE trigger NEW.id is -1 if the statement does not give an id.
CREATE TRIGGER images_are_never_replaced BEFORE INSERT ON images
BEGIN
    SELECT CASE
        WHEN EXISTS (SELECT 1 FROM images WHERE digest = NEW.digest) THEN RAISE(IGNORE)
        WHEN NEW.id <> -1 AND EXISTS (SELECT 1 FROM images WHERE id = NEW.id)
        THEN RAISE(ABORT, 'images is append-only')
    END;
END;
-- An image that was recorded without a verified manifest may receive one later, once, and with it
-- the columns that the manifest decides.
CREATE TRIGGER images_are_only_filled_in BEFORE UPDATE ON images
WHEN NOT (
    OLD.verified IS NOT 1 AND NEW.verified IS 1
    AND typeof(NEW.manifest) = 'text'
    AND NEW.id IS OLD.id
    AND NEW.digest IS OLD.digest
    AND NEW.first_observed_at IS OLD.first_observed_at
)
BEGIN SELECT RAISE(ABORT, 'images is append-only'); END;
"""

VIEWS: Final = """
CREATE VIEW current_tags AS -- Each tag now, with its repository's full name.
SELECT
    r.full_name AS repository, -- registry/namespace/name
    t.tag, -- name of the tag
    t.digest, -- digest that the tag points to; null if the tag is listed but was not resolved
    coalesce(t.image_id, i.image_id) AS image_id, -- digest of the image's configuration, as the \
registry lists it or else as images has it
    i.media_type, -- as the manifest states it
    coalesce(t.schema, i.schema) AS schema, -- version of the manifest format, 1 or 2
    coalesce(t.size, i.size) AS size, -- bytes, as the registry lists them or else as images has \
them
    t.path, -- the registry's external address of the tag
    t.internal_path, -- the registry's internal address of the tag
    t.is_trusted, -- 1 if the registry says that the image is signed
    t.tag_type, -- 0: a manifest; 1: a list of manifests
    t.scanned, -- 1 if the registry says that the image was scanned
    t.registry_id, -- the registry's own id of the row
    t.registry_repo_id, -- the registry's own id of the repository
    t.domain_id, -- account that owns the tag
    t.created, -- time of creation, as the registry states it
    t.updated, -- time of the last push, as the registry states it
    t.first_observed_at, -- end of the first listing that contained the tag, or that contained it \
again after a deletion
    t.changed_at, -- observed_at of the tag's last change
    t.unresolved_since, -- nothing is known of the tag's digest after this time, because newer \
listings contain the tag, but did not resolve it; null if the last listing resolved it
    i.verified, -- 1: the recorded manifest hashes to the digest; 0: it does not; null: there is \
none
    t.repository_id -- repositories.id
FROM tags AS t
JOIN repositories AS r ON r.id = t.repository_id
LEFT JOIN images AS i ON i.digest = t.digest;

CREATE VIEW change_log AS -- The changes, with the repository's full name and whether the tag moved.
SELECT
    c.id, -- 1, 2, 3 … without gaps
    c.observed_at, -- the change happened no later than this time
    c.not_before, -- the change happened after this time; null: the tag was there when the \
repository was first listed
    r.full_name AS repository, -- registry/namespace/name
    c.tag, -- name of the tag
    c.kind, -- added, updated or deleted
    c.kind = 'updated' AND coalesce(c.old_digest <> c.new_digest, 0) AS moved, -- \
1 if the tag points to another digest after the change; a change from or to null is not a move
    c.old_digest, -- digest before the change
    c.new_digest, -- digest after the change
    c.fields, -- JSON of the fields that differ: name → [old, new]
    c.hash, -- SHA-256 of this change and of the previous change's hash
    c.repository_id -- repositories.id
FROM changes AS c
JOIN repositories AS r ON r.id = c.repository_id;

-- For each interval, a subquery looks up the change that ended it. A query by tag, by digest or by
-- time can therefore start with the index that fits it.
CREATE VIEW tag_history AS -- Each digest that a tag pointed to, from valid_from until valid_to.
SELECT
    r.full_name AS repository, -- registry/namespace/name
    c.tag, -- name of the tag
    c.new_digest AS digest, -- digest that the tag pointed to; null if it was not resolved
    c.not_before, -- the interval began after this time; null: the tag was there when the \
repository was first listed
    c.observed_at AS valid_from, -- the interval began no later than this time
    e.observed_at AS valid_to, -- end of the first listing with another state; null: the interval \
has not ended
    c.repository_id, -- repositories.id
    iif(
        e.id IS NULL,
        coalesce(min(t.unresolved_since, r.not_before), r.not_before),
        e.not_before
    ) AS still_at -- \
last time at which the tag is known to have pointed to the digest
FROM changes AS c
JOIN repositories AS r ON r.id = c.repository_id
LEFT JOIN changes AS e ON e.id = (
    SELECT n.id FROM changes AS n
    WHERE n.repository_id = c.repository_id AND n.tag = c.tag AND n.id > c.id
          AND (n.kind <> 'updated' OR n.old_digest IS NOT n.new_digest)
    ORDER BY n.id LIMIT 1
)
LEFT JOIN tags AS t ON t.repository_id = c.repository_id AND t.tag = c.tag
                   AND t.digest = c.new_digest
WHERE c.kind = 'added' OR c.kind = 'updated' AND c.old_digest IS NOT c.new_digest;

CREATE VIEW tag_moves AS -- Each move of a tag to another digest, even if it was deleted in between.
SELECT
    id, -- changes.id
    observed_at, -- the move happened no later than this time
    not_before, -- the move happened after this time
    repository, -- registry/namespace/name
    tag, -- name of the tag
    previous_digest, -- the last digest that the tag pointed to before the move
    new_digest, -- digest after the move
    repository_id -- repositories.id
FROM (
    SELECT c.*, r.full_name AS repository,
           coalesce(c.old_digest, (
               SELECT p.new_digest FROM changes AS p
               WHERE p.repository_id = c.repository_id AND p.tag = c.tag AND p.id < c.id
                     AND p.new_digest IS NOT NULL
               ORDER BY p.id DESC LIMIT 1
           )) AS previous_digest
    FROM changes AS c
    JOIN repositories AS r ON r.id = c.repository_id
)
WHERE not_before IS NOT NULL AND new_digest <> previous_digest;

-- A manifest of schema 1 lists the highest layer first, and has no sizes.
CREATE VIEW image_layers AS -- The layers that each recorded manifest references.
SELECT
    i.digest, -- digest of the manifest
    l.key AS position, -- 0 is the lowest layer
    json_extract(l.value, '$.digest') AS layer_digest, -- digest of the layer
    json_extract(l.value, '$.size') AS size -- bytes; null if the manifest does not state it
FROM images AS i,
     json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.layers') AS l
WHERE l.type = 'object' AND typeof(l.key) = 'integer'
UNION ALL
SELECT i.digest, json_array_length(i.manifest, '$.fsLayers') - 1 - l.key,
       json_extract(l.value, '$.blobSum'), NULL
FROM images AS i,
     json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.fsLayers') AS l
WHERE l.type = 'object' AND typeof(l.key) = 'integer';

CREATE VIEW image_platforms AS -- The platforms that each recorded index references.
SELECT
    i.digest AS index_digest, -- digest of the index
    json_extract(m.value, '$.platform.os') || '/'
        || json_extract(m.value, '$.platform.architecture')
        || coalesce('/' || json_extract(m.value, '$.platform.variant'), '') AS platform, -- \
os/architecture, and the variant if there is one
    json_extract(m.value, '$.digest') AS manifest_digest -- digest of that platform's manifest
FROM images AS i,
     json_each(iif(json_valid(i.manifest), i.manifest, '{}'), '$.manifests') AS m
WHERE instr(i.manifest, '"manifests"') > 0 AND m.type = 'object';
"""

SEARCH_TABLE: Final = "image_search"

RANDOM_ID: Final = "lower(hex(randomblob(16)))"
"""SQL expression for a new ``database_id``: 32 hexadecimal digits."""

_HEAD: Final = re.compile(r"CREATE (?:TABLE|VIEW) (\w+) (?:\(|AS) -- (.+)")
_COLUMN: Final = re.compile(r"^    (?:.* AS |\w+\.)?(\w+)\b.*?-- (.+)$", re.MULTILINE)


def create(db: sqlite3.Connection) -> None:
    """Create everything in an empty database, within the caller's transaction."""
    # Execute one statement at a time, because executescript would commit the transaction.
    for statement in statements():
        db.execute(statement)
    db.execute(
        f"INSERT INTO info VALUES ({RANDOM_ID}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"  # noqa: S608  constant
    )
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def statements() -> Iterator[str]:
    """Yield the statements of the schema in their order."""
    statement = ""
    for line in (TABLES + TRIGGERS + VIEWS).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def descriptions() -> dict[str, tuple[str, dict[str, str]]]:
    """Return the description of each table and view, and of each of its columns."""
    described: dict[str, tuple[str, dict[str, str]]] = {}
    for statement in statements():
        if head := _HEAD.search(statement):
            columns = _COLUMN.findall(statement)
            described[head[1]] = head[2], dict(columns)
    return described
