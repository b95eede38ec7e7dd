"""Verification: it finds each alteration of a database."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.audit import verify
from tagsync.audit.queries import Audit
from tagsync.database.digest_index import search_terms
from tagsync.database.hash_chain import GENESIS, link
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.manifests import listed_image
from tagsync.models import Repository
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.audit import CHECKS, Edit, altered_copy, faults_of
from tests.support.clock import FakeClock
from tests.support.record import rebuild_observation_chain, recount_days
from tests.support.registries import Scripted, open_at


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two repositories, with every kind of change and valid manifests."""
    path = tmp_path_factory.mktemp("original") / "tagsync.db"
    with Emulator() as swr, Store.open(path) as store:
        registry = open_at(swr.url)
        jobs = [
            Job(Repository("swr", name), registry, timedelta(minutes=5))
            for name in ("team/api", "team/web")
        ]

        def poll_all() -> None:
            for job in jobs:
                assert poll(job, store).outcome == "ok"

        swr.push("team/api", "v1", "one")
        swr.push("team/api", "v2", "two")
        swr.push("team/web", "v1", "web one")
        swr.push("team/web", "old", "old")
        poll_all()
        swr.push("team/api", "v1", "three")
        swr.delete("team/web", "old")
        poll_all()
        swr.push("team/api", "v3", "four")
        swr.set_fields("team/web", "v1", is_trusted=True)
        poll_all()
        swr.push("team/web", "v1", "web newest")
        poll_all()
        registry.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path


def rebuild_chain(connection: sqlite3.Connection) -> None:
    """Give every change a matching hash, as an attacker could who knows the formula."""
    head = GENESIS
    rows = connection.execute(
        "SELECT c.id, registry || '/' || name, tag, kind, old_digest, new_digest, fields,"
        " c.not_before, observed_at FROM changes AS c JOIN repositories AS r"
        " ON r.id = repository_id ORDER BY c.id"
    ).fetchall()
    for row in rows:
        head = link(head, *row)
        connection.execute("UPDATE changes SET hash = ? WHERE id = ?", (head, row[0]))


def undo_newest_change_in_mirror(connection: sqlite3.Connection) -> None:
    """Set the mirror row of the newest change back to its state before."""
    tag, fields = connection.execute(
        "SELECT tag, fields FROM changes ORDER BY id DESC LIMIT 1"
    ).fetchone()
    (before,) = connection.execute(
        "SELECT max(observed_at) FROM changes WHERE repository_id = 2 AND tag = ?"
        " AND id < (SELECT max(id) FROM changes)",
        (tag,),
    ).fetchone()
    for name, (old, _) in json.loads(fields).items():
        connection.execute(
            f"UPDATE tags SET {name} = ?, changed_at = ? WHERE repository_id = 2 AND tag = ?",
            (old, before, tag),
        )


def make_newest_image_part_of_another(connection: sqlite3.Connection) -> None:
    """Make the search index claim that another image references the newest one."""
    (digest,) = connection.execute(
        "SELECT new_digest FROM changes ORDER BY id DESC LIMIT 1"
    ).fetchone()
    connection.execute("INSERT INTO image_search (rowid, digests) VALUES (1, ?)", (digest[7:],))


def remove_from_search_index(connection: sqlite3.Connection, where: str = "id = 1") -> None:
    """Remove images from the search index, which FTS5 allows if their text is known."""
    rows = connection.execute(
        f"SELECT id, manifest, image_id, verified FROM images WHERE {where}"
    ).fetchall()
    for number, *content in rows:
        connection.execute(
            "INSERT INTO image_search (image_search, rowid, digests) VALUES ('delete', ?, ?)",
            (number, " ".join(sorted(search_terms(*content)))),
        )


ADD_TAG = (
    "INSERT INTO tags (repository_id, tag, first_observed_at, changed_at) VALUES ({}, '{}', 1, 1)"
)
DELETE_NEWEST_CHANGE = "DELETE FROM changes WHERE id = (SELECT max(id) FROM changes)"

ALTERATIONS: dict[str, tuple[tuple[Edit, ...], str, str]] = {
    "a tag of a change": (("UPDATE changes SET tag = 'v9' WHERE id = 2",), "chain", "change 2 "),
    "a digest of a change": (
        ("UPDATE changes SET new_digest = 'sha256:0' WHERE id = 5",),
        "chain",
        "change 5 ",
    ),
    "the kind of a change": (
        ("UPDATE changes SET kind = 'deleted' WHERE id = 5",),
        "chain",
        "change 5 ",
    ),
    "observed_at of a change": (
        ("UPDATE changes SET observed_at = '2020-01-01T00:00:00.000Z' WHERE id = 3",),
        "chain",
        "change 3 ",
    ),
    "not_before of a change": (
        ("UPDATE changes SET not_before = NULL WHERE id = 6",),
        "chain",
        "change 6 ",
    ),
    "the fields of a change": (
        ("UPDATE changes SET fields = replace(fields, 'true', 'null') WHERE kind = 'updated'",),
        "chain",
        "change ",
    ),
    "the repository of a change": (
        ("UPDATE changes SET repository_id = 2 WHERE id = 1",),
        "chain",
        "change 1 ",
    ),
    "the hash of a change": (
        ("UPDATE changes SET hash = hash || '0' WHERE id = 4",),
        "chain",
        "change 4 ",
    ),
    "the first change deleted": (("DELETE FROM changes WHERE id = 1",), "chain", "change 1 is"),
    "a change in the middle deleted": (
        ("DELETE FROM changes WHERE id = 5",),
        "chain",
        "change 5 is missing",
    ),
    "a change deleted, later ones renumbered": (
        ("DELETE FROM changes WHERE id = 5", "UPDATE changes SET id = id - 1 WHERE id > 5"),
        "chain",
        "change 5 ",
    ),
    "a change inserted": (
        (
            (
                "INSERT INTO changes SELECT max(id) + 1, 1, 'v7', 'added', NULL, NULL, '{}',"
                " observed_at, observed_at, hash FROM changes"
            ),
        ),
        "chain",
        "change 10 ",
    ),
    "two changes swapped": (
        (
            "UPDATE changes SET id = 99 WHERE id = 5",
            "UPDATE changes SET id = 5 WHERE id = 6",
            "UPDATE changes SET id = 6 WHERE id = 99",
        ),
        "chain",
        "change 5 ",
    ),
    "a repository renamed": (
        ("UPDATE repositories SET name = 'team/other' WHERE id = 2",),
        "chain",
        "change ",
    ),
    "a repository deleted": (
        ("DELETE FROM repositories WHERE id = 2",),
        "chain",
        "the repository of change ",
    ),
    "the newest change deleted": ((DELETE_NEWEST_CHANGE,), "tags", "swr/team/web tag 'v1' has "),
    "the newest change deleted, and undone in the mirror": (
        (undo_newest_change_in_mirror, DELETE_NEWEST_CHANGE),
        "images",
        "no change and no index references it",
    ),
    "the fields of a change, with the whole chain": (
        (
            "UPDATE changes SET fields = replace(fields, 'api:v2', 'api:v8') WHERE tag = 'v2'",
            rebuild_chain,
        ),
        "tags",
        "swr/team/api tag 'v2' has ",
    ),
    "an old digest, with the whole chain": (
        ("UPDATE changes SET old_digest = 'sha256:0' WHERE id = 5", rebuild_chain),
        "tags",
        "does not fit the changes of the tag before it",
    ),
    "an update that becomes an addition, with the whole chain": (
        ("UPDATE changes SET kind = 'added', old_digest = NULL WHERE id = 5", rebuild_chain),
        "tags",
        "does not fit the changes of the tag before it",
    ),
    "fields that are not an object, with the whole chain": (
        ("UPDATE changes SET fields = '[]' WHERE id = 5", rebuild_chain),
        "tags",
        "has fields that are not a JSON object of pairs",
    ),
    "a deletion removed, with the whole chain": (
        (
            "DELETE FROM changes WHERE kind = 'deleted'",
            "UPDATE changes SET id = id - 1 WHERE id > 6",
            rebuild_chain,
        ),
        "tags",
        "tag 'old' is missing in tags",
    ),
    "a manifest": (
        ("UPDATE images SET manifest = manifest || ' ' WHERE verified",),
        "images",
        "does not match its digest",
    ),
    "a manifest removed": (
        ("UPDATE images SET manifest = NULL",),
        "images",
        "is missing, so it cannot match",
    ),
    "the image_id of an image": (
        (f"UPDATE images SET image_id = '{'0' * 64}'",),
        "images",
        "as image_id, which neither its manifest nor a change states",
    ),
    "whether a manifest is verified": (
        ("UPDATE images SET verified = 0",),
        "images",
        "matches its digest",
    ),
    "the image_id of an image removed": (
        ("UPDATE images SET image_id = NULL",),
        "images",
        "has None as image_id, which neither its manifest nor a change states",
    ),
    "the size of an image": (
        ("UPDATE images SET size = size + 1",),
        "images",
        "as size, which neither its manifest nor a change states",
    ),
    "the schema of an image": (
        ("UPDATE images SET schema = 1",),
        "images",
        "has 1 as schema, which neither its manifest nor a change states",
    ),
    "the media type of an image": (
        ("UPDATE images SET media_type = 'text/plain'",),
        "images",
        "has 'text/plain' as media_type, which neither its manifest nor a change states",
    ),
    "first_observed_at of an image": (
        ("UPDATE images SET first_observed_at = '2020-01-01T00:00:00.000Z'",),
        "images",
        "was first observed at 2020",
    ),
    "an image deleted": (
        ("DELETE FROM images WHERE digest = (SELECT min(digest) FROM images)",),
        "images",
        "is missing",
    ),
    "the newest change deleted, its image made part of an index": (
        (undo_newest_change_in_mirror, make_newest_image_part_of_another, DELETE_NEWEST_CHANGE),
        "images",
        "no change and no index references it",
    ),
    "an invalid value of verified": (
        ("UPDATE images SET verified = 7",),
        "images",
        "but verified is 7",
    ),
    "the time of the last poll": (
        ("UPDATE repositories SET last_attempt_at = '2020-01-01T00:00:00.000Z'",),
        "observations",
        "was last polled at 2020-01-01T00:00:00.000Z according to its own row",
    ),
    "the start of the last listing": (
        ("UPDATE repositories SET not_before = '2999-01-01T00:00:00.000Z'",),
        "observations",
        "so the listing cannot have begun at 2999",
    ),
    "the start of the last listing removed": (
        ("UPDATE repositories SET not_before = NULL",),
        "observations",
        "so the listing cannot have begun at None",
    ),
    "an image removed from the search index": (
        (remove_from_search_index,),
        "images",
        "the search index lacks ",
    ),
    "the search index emptied": (
        ("INSERT INTO image_search (image_search) VALUES ('delete-all')",),
        "images",
        "the search index lacks ",
    ),
    "a digest added to the search index": (
        ("INSERT INTO image_search (rowid, digests) VALUES (1, 'abcdef')",),
        "images",
        "the search index has ",
    ),
    "a missing image added to the search index": (
        ("INSERT INTO image_search (rowid, digests) VALUES (4711, 'abcdef')",),
        "images",
        "the search index has ",
    ),
    "the ids of images": (
        ("UPDATE images SET id = id + 1024",),
        "images",
        "are not numbered from 1 to ",
    ),
    "an image without a change": (
        ("INSERT INTO images (digest, first_observed_at) VALUES ('sha256:0', 't')",),
        "images",
        "image sha256:0: no change and no index references it",
    ),
    "the ids of two images swapped": (
        (
            "UPDATE images SET id = -id",
            "UPDATE images SET id = iif(id = -1, 2, iif(id = -2, 1, -id))",
        ),
        "images",
        "the search index lacks ",
    ),
    "the number of listings": (
        ("UPDATE repositories SET version = version + 1 WHERE id = 1",),
        "observations",
        "complete listings according to its own row",
    ),
    "a row of the mirror": (
        ("UPDATE tags SET digest = 'sha256:0' WHERE tag = 'v3'",),
        "tags",
        "swr/team/api tag 'v3' has 'sha256:0' as digest",
    ),
    "a field of the mirror": (
        ("UPDATE tags SET is_trusted = 1 WHERE tag = 'v3'",),
        "tags",
        "as is_trusted in tags",
    ),
    "changed_at of the mirror": (
        ("UPDATE tags SET changed_at = '2020-01-01T00:00:00.000Z' WHERE tag = 'v3'",),
        "tags",
        "as changed_at in tags",
    ),
    "unresolved since a time after the last listing": (
        ("UPDATE tags SET unresolved_since = '2999-01-01T00:00:00.000Z' WHERE tag = 'v3'",),
        "tags",
        "and is unresolved since 2999-01-01T00:00:00.000Z in tags",
    ),
    "first_observed_at of the mirror": (
        ("UPDATE tags SET first_observed_at = '2020-01-01T00:00:00.000Z' WHERE tag = 'v3'",),
        "tags",
        "as first_observed_at in tags",
    ),
    "a row of the mirror deleted": (
        ("DELETE FROM tags WHERE tag = 'v2'",),
        "tags",
        "swr/team/api tag 'v2' is missing in tags",
    ),
    "the last row of the mirror deleted": (
        ("DELETE FROM tags WHERE repository_id = 2",),
        "tags",
        "swr/team/web tag 'v1' is missing in tags",
    ),
    "a row of the mirror added": (
        (ADD_TAG.format(1, "a"),),
        "tags",
        "swr/team/api tag 'a' is in tags, and no change added it",
    ),
    "a last row of the mirror added": (
        (ADD_TAG.format(2, "z"),),
        "tags",
        "swr/team/web tag 'z' is in tags, and no change added it",
    ),
    "a deleted tag added to the mirror": (
        (ADD_TAG.format(2, "old"),),
        "tags",
        "swr/team/web tag 'old' is in tags, and a change deleted it",
    ),
    "a count of a day": (
        ("UPDATE daily_changes SET moved = moved + 1 WHERE repository_id = 1",),
        "days",
        "are not those that daily_changes counts: 2 moved instead of 1",
    ),
    "a change that counts under another kind": (
        ("UPDATE daily_changes SET moved = moved - 1, deleted = deleted + 1",),
        "days",
        "0 moved instead of 1, 1 deleted instead of 0",
    ),
    "a day removed": (
        ("DELETE FROM daily_changes WHERE repository_id = 2",),
        "days",
        " are not counted in daily_changes",
    ),
    "a day added": (
        ("INSERT INTO daily_changes VALUES ('2020-01-01', 1, 0, 0, 0, 0, 0)",),
        "days",
        "are not those that daily_changes counts: a row without a change",
    ),
    "a day renamed": (
        ("UPDATE daily_changes SET day = '2020-01-01' WHERE repository_id = 2",),
        "days",
        "swr/team/web on 2020-01-01 ",
    ),
    "the first event removed": (
        ("DELETE FROM events WHERE id = 1",),
        "events",
        "events are not numbered from 1 to",
    ),
    "the newest event of a change removed": (
        ("DELETE FROM events WHERE id = (SELECT max(id) FROM events)",),
        "events",
        "change 9 has no event",
    ),
    "an event removed and the others renumbered": (
        (
            "DELETE FROM events WHERE kind = 'deleted'",
            "UPDATE events SET id = (SELECT count(*) FROM events AS o WHERE o.id <= events.id)",
        ),
        "events",
        " has no event",
    ),
    "an event of another kind": (
        ("UPDATE events SET kind = 'updated' WHERE kind = 'moved'",),
        "events",
        "(updated) does not say what change",
    ),
    "an event of another tag": (
        ("UPDATE events SET tag = 'other' WHERE kind = 'deleted'",),
        "events",
        "(deleted) does not say what change",
    ),
    "an event of another time": (
        ("UPDATE events SET at = '2020-01-01T00:00:00.000Z' WHERE kind = 'deleted'",),
        "events",
        "(deleted) does not say what change",
    ),
    "an event of another repository": (
        ("UPDATE events SET repository_id = 3 - repository_id WHERE kind = 'deleted'",),
        "events",
        "(deleted) does not say what change",
    ),
    "an event for a tag of the first listing": (
        (
            (
                "INSERT INTO events SELECT (SELECT max(id) + 1 FROM events), observed_at, 'added',"
                " repository_id, tag, id, NULL FROM changes WHERE id = 1"
            ),
        ),
        "events",
        "(added) does not say what change 1 did",
    ),
    "an event without its change": (
        ("UPDATE events SET change_id = NULL WHERE kind = 'deleted'",),
        "events",
        "(deleted) names no change",
    ),
    "an event written twice": (
        (
            (
                "INSERT INTO events SELECT (SELECT max(id) + 1 FROM events), at, kind,"
                " repository_id, tag, change_id, detail FROM events WHERE kind = 'deleted'"
            ),
        ),
        "events",
        "has more than one event, or its event is not in its place",
    ),
    "a change for an event without one": (
        ("UPDATE events SET change_id = 1 WHERE kind = 'baselined' AND id = 1",),
        "events",
        "event 1 (baselined) does not say what change 1 did",
    ),
    "an alarm about a tag that was not deleted": (
        (
            (
                "INSERT INTO events SELECT (SELECT max(id) + 1 FROM events), at,"
                " 'immutable_deleted', repository_id, tag, change_id, '{}' FROM events"
                " WHERE kind = 'moved' LIMIT 1"
            ),
        ),
        "events",
        "(immutable_deleted) does not say what change",
    ),
    "an acceptance without an alarm": (
        ("INSERT INTO acceptances VALUES (1, '2020-01-01T00:00:00.000Z', 'ada', 'why')",),
        "events",
        "change 1 is accepted, but it is no change of an immutable tag",
    ),
    "observations deleted": (
        ("DELETE FROM observations WHERE repository_id = 1",),
        "observations",
        "swr/team/api was listed from",
    ),
    "an observation cut short": (
        ("UPDATE observations SET last_at = first_at WHERE repository_id = 2",),
        "observations",
        "swr/team/web was listed from",
    ),
    "an observation that hides a gap with a change": (
        (
            (
                "INSERT INTO observations (id, repository_id, outcome, first_at, last_at, polls,"
                " tags) SELECT 99, repository_id, outcome, first_at, first_at, 0, tags"
                " FROM observations WHERE id = 1"
            ),
            "UPDATE observations SET first_at = last_at WHERE id = 1",
            "UPDATE observations SET id = 100 WHERE id = 1",
            "UPDATE observations SET ended = 1, change_id = 1 WHERE id = 99",
            rebuild_observation_chain,
        ),
        "observations",
        "no complete listing covers the time of change",
    ),
    "the number of listed tags": (
        ("UPDATE observations SET tags = 7",),
        "observations",
        "its last complete listing had 7",
    ),
}


def test_unaltered_database_verifies(original: Path) -> None:
    """An unaltered database has no faults, and accepts its own head as a witness."""
    assert faults_of(original) == {}
    with Audit.open(original) as audit:
        chain = next(row for row in audit.verify() if row["check"] == "chain")
    with Store.open_for_reading(original) as store:
        heads = store.heads()
    head = heads.changes
    assert (chain["rows"], chain["detail"]) == (head.change_id, f"head {head.hash}")
    assert faults_of(original, head.hash, heads.observations.hash, GENESIS) == {}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_alteration_is_found(original: Path, database: Path, name: str) -> None:
    """An alteration that bypasses the triggers is found and named."""
    edits, check, named = ALTERATIONS[name]
    faults = faults_of(altered_copy(original, database, *edits))
    assert named in (faults[check] or "")


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("DROP TRIGGER {0}", "the trigger {0} is missing"),
        (
            "DROP TRIGGER {0}; CREATE TRIGGER {0} BEFORE DELETE ON changes BEGIN SELECT 1; END",
            "the trigger {0} is altered: from character ",
        ),
        (
            "CREATE TRIGGER mine AFTER INSERT ON tags BEGIN DELETE FROM tags; END",
            "the trigger mine is not tagsync's",
        ),
        (
            "CREATE TRIGGER mine BEFORE INSERT ON image_search_data BEGIN SELECT 1; END",
            "the trigger mine is not tagsync's",
        ),
        (
            "CREATE TRIGGER mine BEFORE INSERT ON _sqlite_migrations BEGIN SELECT 1; END",
            "the trigger mine is not tagsync's",
        ),
        (
            "DROP VIEW change_log; CREATE VIEW change_log AS SELECT 1",
            (
                "the view change_log is altered: from character 27 it differs,"
                " ' VIEW change_log AS SELECT 1' instead of"
            ),
        ),
        ("DROP INDEX changes_by_new_digest", "the index changes_by_new_digest is missing"),
        ("CREATE TABLE mine (x); CREATE VIEW of_mine AS SELECT 1", None),
    ],
)
def test_altered_schema_is_found(
    original: Path, database: Path, sql: str, fault: str | None
) -> None:
    """An altered trigger, view or index is a fault; other tables are allowed."""
    database.write_bytes(original.read_bytes())
    name = "changes_are_never_deleted"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(sql.format(name))
    found = faults_of(database).get("schema")
    assert found is None if fault is None else (found or "").startswith(fault.format(name))


@pytest.mark.parametrize(
    ("column", "table"),
    [
        ("tag", "changes"),
        ("observed_at", "changes"),
        ("manifest", "images"),
        ("image_id", "images"),
        ("tag", "tags"),
        ("first_at", "observations"),
    ],
)
def test_value_of_the_wrong_type_is_found(
    original: Path, database: Path, table: str, column: str
) -> None:
    """A value of the wrong type is a fault, and skips the checks that depend on it."""
    edit = f"UPDATE {table} SET {column} = CAST({column} AS BLOB)"
    faults = faults_of(altered_copy(original, database, edit))
    fault = f"{table} has a value of another type than its column {column}"
    assert faults.pop("schema") == fault
    assert set(faults.values()) == {f"not checked, because {fault}"}
    assert set(faults) == {*CHECKS} - {"schema"}


def test_swapped_ids_change_the_sum_of_the_index() -> None:
    """The sum over the search index differs for any two images whose ids are swapped."""
    for number in range(500):
        sums = []
        for ids in ((1, 2), (2, 1)):
            index_sum = verify._IndexSum()  # noqa: SLF001  the sum has no other face
            for term, image_id in zip((f"a{number}", f"b{number}"), ids, strict=True):
                index_sum.add((term,), image_id)
            sums.append(index_sum)
        assert sums[0] != sums[1]


def test_head_of_a_witness_reveals_missing_changes(original: Path, database: Path) -> None:
    """A consistent database without its newest change lacks the head of a witness."""

    def remove_newest_change(connection: sqlite3.Connection) -> None:
        (digest,) = connection.execute(
            "SELECT new_digest FROM changes ORDER BY id DESC LIMIT 1"
        ).fetchone()
        undo_newest_change_in_mirror(connection)
        remove_from_search_index(connection, f"digest = '{digest}'")
        connection.execute("DELETE FROM images WHERE digest = ?", (digest,))
        connection.execute("DELETE FROM events WHERE change_id = (SELECT max(id) FROM changes)")
        connection.execute(DELETE_NEWEST_CHANGE)
        recount_days(connection)

    with Store.open_for_reading(original) as store:
        head = store.heads().changes
    without_newest = altered_copy(original, database, remove_newest_change)
    assert faults_of(without_newest) == {}
    assert head.hash in (faults_of(without_newest, head.hash)["heads"] or "")
    with Store.open_for_reading(without_newest) as store:
        assert faults_of(original, store.heads().changes.hash) == {}


def test_chain_continues_across_stores(
    scripted: Scripted, clock: FakeClock, database: Path
) -> None:
    """Stores continue one chain, whichever appends; an empty database has a head too."""
    with Store.open(database) as store:
        assert (store.heads().changes.change_id, store.heads().changes.hash) == (0, GENESIS)
    for number in range(4):
        with Store.open(database) as one, Store.open(database) as other:
            for store, name in ((one, "team/a"), (other, "team/b")):
                scripted.then(f"v{number}")
                job = Job(Repository("swr", name), scripted, timedelta(minutes=5))
                assert poll(job, store, Options(accept_deletions=True), clock).outcome == "ok"
            assert one.heads() == other.heads()
    assert faults_of(database) == {}
    with Store.open_for_reading(database) as store:
        assert store.heads().changes.change_id == 14


def test_image_recorded_as_unverified_is_not_a_fault(
    scripted: Scripted, clock: FakeClock, job: Job, store: Store, database: Path
) -> None:
    """An image that was recorded as unverified is reported, but not as a fault."""
    wrong = listed_image("sha256:a", "{}", image_id=None, schema=None, size=None)
    scripted.then("a")
    listing: Any = scripted.script.pop()
    scripted.script.append(msgspec.structs.replace(listing, images={"sha256:a": wrong}))
    poll(job, store, clock=clock)
    assert wrong.verified is False
    assert faults_of(database) == {}
    with Audit.open(database) as audit:
        (row,) = (row for row in audit.verify() if row["check"] == "images")
    assert row["detail"] == "manifests that did not match their digests when they were recorded: 1"
