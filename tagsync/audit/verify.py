"""Verify that the database still has exactly what tagsync recorded.

There are nine checks, in this order. Each of them is a row of the output:

1. ``schema``: tables, indexes, views and triggers are exactly those of a new database, every value
   has the type of its column, each index agrees with its table, and ``info`` has its one row.
2. ``chain``: from the first change to the head, the hash of each change matches its content and the
   previous change's hash.
3. ``images``: each manifest hashes to its digest if, and only if, it is recorded as verified, and
   the other columns are what it states; a change or an index references each image; the search
   index finds each image by exactly the digests that the image references.
4. ``tags``: the changes, replayed tag by tag, give exactly the rows of ``tags``.
5. ``days``: the counts of ``daily_changes`` are those of the changes.
6. ``events``: the events have no gap, and each change outside of first listings has the one that
   says how the tag changed; see `tagsync.audit.verify_events`.
7. ``observations``: from the first observation that ended to the last one, the hash of each matches
   its content and the previous one's hash; at most one observation of a repository still grows, and
   it is the newest; a complete listing observed each change, and each repository's row agrees with
   its observations.
8. ``repositories``: each repository's row has its checksum.
9. ``heads``: every head that a witness has is a hash of one of the two chains.

Each check reads the database once, in an order that needs little memory, and reports the first
fault that it finds.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import Any, Final

import msgspec

from tagsync import manifests
from tagsync.audit.faults import UnreadableTable, VerificationFault
from tagsync.audit.observation_chain import check_checksums, check_heads, check_observation_chain
from tagsync.audit.structure import damage, definition_fault
from tagsync.audit.verify_daily_changes import check_days
from tagsync.audit.verify_events import check_events
from tagsync.audit.verify_progress import OnRows, RowCounter
from tagsync.database import migrations, schema
from tagsync.database.connection import Connection, empty_database
from tagsync.database.digest_index import (
    images_referencing,
    indexed_terms,
    lost_term,
    search_terms,
)
from tagsync.database.hash_chain import GENESIS, link
from tagsync.database.sqlite_errors import SqliteError
from tagsync.models import FIELDS, Image

Row = dict[str, Any]

_SQL_NULL: Final = "'null'"


class _Change(msgspec.Struct, frozen=True):
    """A row of ``changes``; attributes as its columns, and its repository's full name."""

    id: int
    repository: str | None
    tag: str
    kind: str
    old_digest: str | None
    new_digest: str | None
    fields: str
    not_before: str | None
    observed_at: str
    hash: str

    def __str__(self) -> str:
        return (
            f"change {self.id} ({self.repository} tag {self.tag!r} {self.kind},"
            f" observed {self.observed_at})"
        )


_CHANGES_SQL: Final = (
    "SELECT c.id, r.full_name, c.tag, c.kind, c.old_digest, c.new_digest, c.fields,"
    " c.not_before, c.observed_at, c.hash FROM changes AS c"
    " LEFT JOIN repositories AS r ON r.id = c.repository_id"
)
_WITHOUT_IMAGE: Final = (
    "WHERE c.new_digest IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM images WHERE digest = c.new_digest)"
)
_IMAGES_SQL: Final = (
    "SELECT id, digest, manifest, image_id, schema, size, media_type, verified, first_observed_at"
    " FROM images ORDER BY id"
)
_INCOMPLETE_LISTINGS_SQL: Final = (
    "SELECT first_at, last_at FROM observations"
    " WHERE outcome = 'ok' AND instr(',' || reasons || ',', ',unfetched,')"
)
_CHANGES_OF_IMAGE_SQL: Final = "FROM changes WHERE new_digest = ?"
_REPOSITORIES_SQL: Final = """
    SELECT id, full_name, first_observed_at, last_complete_at,
           (SELECT count(*) FROM tags WHERE repository_id = r.id),
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1),
           not_before, last_attempt_at,
           (SELECT max(last_at) FROM observations
            WHERE repository_id = r.id AND reasons IS NOT 'damaged'),
           version,
           (SELECT total(polls) FROM observations
            WHERE repository_id = r.id AND outcome <> 'failed')
    FROM repositories AS r ORDER BY id
"""
_WRONG_UNRESOLVED_SQL: Final = """
    SELECT repository_id, tag, digest, unresolved_since, last_complete_at
    FROM tags JOIN repositories ON id = repository_id
    WHERE iif(unresolved_since IS NULL, digest IS NULL, unresolved_since > last_complete_at)
    LIMIT 1
"""

_decode = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode


def verify(
    db: Connection, heads: Collection[str] = (), on_rows: OnRows = lambda *_: None
) -> Iterator[Row]:
    """Run all checks; the docstring of this module lists them.

    Args:
        db: A connection that `tagsync.database.migrations.check_current` accepts, in a transaction.
        heads: Hashes, of either chain, that a witness outside the database has kept.
        on_rows: Called when a check begins, and again and again while it reads rows.

    Yields:
        A row for each check, as soon as it has ended. ``check`` is its name, ``rows`` the number of
        rows that it read, ``result`` is ``ok`` or ``fault``, and ``detail`` is the fault. If the
        result is ``ok``, ``detail`` is additional information or None.
    """
    checks: tuple[tuple[str, Callable[[RowCounter], str | None]], ...] = (
        ("schema", partial(_check_schema, db)),
        ("chain", partial(_check_chain, db)),
        ("images", partial(_check_images, db)),
        ("tags", partial(_check_tags, db)),
        ("days", partial(check_days, db)),
        ("events", partial(check_events, db)),
        ("observations", partial(_check_observations, db)),
        ("repositories", partial(check_checksums, db)),
        ("heads", partial(check_heads, db, heads)),
    )
    unreadable: UnreadableTable | None = None
    first_fault: str | None = None
    for name, check in checks:
        read = RowCounter(name, on_rows)
        try:
            if unreadable:
                raise VerificationFault(f"not checked, because {unreadable}")
            result, detail = "ok", check(read)
        except SqliteError as error:
            if first_fault is None:
                raise
            result, detail = "fault", f"not checked, because {first_fault} ({error})"
        except VerificationFault as fault:
            result, detail = "fault", str(fault)
            first_fault = first_fault or detail
            unreadable = unreadable or (fault if isinstance(fault, UnreadableTable) else None)
        yield {"check": name, "rows": read[""], "result": result, "detail": detail}


# --- 1. schema ------------------------------------------------------------------------------------


def _check_schema(db: Connection, read: RowCounter) -> None:
    """Compare the structure with that of a new database, and check types and indexes."""
    present = migrations.definitions(db)
    with closing(empty_database()) as new, read.steps_of(db):
        expected = migrations.definitions(new)
        read[""] = len(expected)
        fault = definition_fault(present, expected)
        changed = {key for key, sql in expected.items() if present.get(key, "") != sql}
        if fault and any(key.startswith(("table ", "index ")) for key in changed):
            raise UnreadableTable(fault)
        tables = [name for name in schema.descriptions() if f"table {name}" in expected]
        for table in tables:
            _check_types(db, table, new.query("SELECT * FROM pragma_table_info(?)", (table,)))
        found = damage(db, tables)
    if found and not found.is_readable:
        raise UnreadableTable(fault or found.sentence)
    if fault := fault or (found and found.sentence) or _info_fault(db):
        raise VerificationFault(fault)


def _info_fault(db: Connection) -> str | None:
    """Return a fault if ``info`` does not have exactly one row, or an id that is not tagsync's."""
    ids = [row[0] for row in db.execute("SELECT database_id FROM info LIMIT 2")]
    if len(ids) == 1 and re.fullmatch("[0-9a-f]{32}", ids[0]):
        return None
    return "info does not have its one row with the id of the database"


def _check_types(db: Connection, table: str, columns: Iterable[Row]) -> None:
    """Check that each value has the type of its column, which SQLite does not enforce."""
    cases = " ".join(
        f"WHEN typeof([{column['name']}]) NOT IN ('{column['type'].lower()}'"
        f"{'' if column['notnull'] or column['pk'] else ', ' + _SQL_NULL})"
        f" THEN '{column['name']}'"
        for column in columns
    )
    row = db.execute(
        f"SELECT wrong FROM (SELECT CASE {cases} END AS wrong FROM {table})"  # noqa: S608  tagsync's own names
        " WHERE wrong IS NOT NULL LIMIT 1"
    ).fetchone()
    if row:
        raise UnreadableTable(f"{table} has a value of another type than its column {row[0]}")


# --- 2. chain -------------------------------------------------------------------------------------


def _check_chain(db: Connection, read: Counter[str]) -> str:
    """Recompute the hash of each change, from the first one to the head."""
    head, last = GENESIS, 0
    for row in db.execute(f"{_CHANGES_SQL} ORDER BY c.id"):
        change = _Change(*row)
        read[""] += 1
        if change.id != last + 1:
            raise VerificationFault(f"change {last + 1} is missing before {change}")
        if change.repository is None:
            raise VerificationFault(f"the repository of {change} is missing")
        head, last = link(head, *row[:-1]), change.id
        if head != change.hash:
            raise VerificationFault(
                f"{change} does not have the hash that its content and the change before it give"
            )
    return f"head {head}"


# --- 3. images ------------------------------------------------------------------------------------


def _check_images(db: Connection, read: Counter[str]) -> str | None:
    """Check each image against its manifest, the changes and the search index."""
    unverified = 0
    expected = _IndexSum()
    # Such a listing may record manifests of an index without the index itself.
    incomplete = db.execute(_INCOMPLETE_LISTINGS_SQL).fetchall()
    _check_changes_have_images(db)
    _check_ids(db)
    for row in db.execute(_IMAGES_SQL):
        number, digest, text, image_id, schema, size, media_type, verified, first_at = row
        read[""] += 1
        image = manifests.listed_image(digest, text, image_id=image_id, schema=schema, size=size)
        if image.verified != verified:
            finding = {
                True: "matches",
                False: "does not match",
                None: "is missing, so it cannot match",
            }
            raise VerificationFault(
                f"image {digest}: its manifest {finding[image.verified]} its digest,"
                f" but verified is {verified}"
            )
        unverified += verified == 0
        expected.add(search_terms(text, image_id, verified), number)
        if not (verified and any(first <= first_at <= last for first, last in incomplete)):
            _check_origin(db, digest, first_at)
        columns = {"image_id": image_id, "schema": schema, "size": size, "media_type": media_type}
        _check_description(db, image, columns)
    _check_search_index(db, expected)
    if not unverified:
        return None
    return f"manifests that did not match their digests when they were recorded: {unverified}"


def _check_ids(db: Connection) -> None:
    """Check that the ids of the images are 1, 2, 3 … without a gap."""
    ((first, last, count),) = db.execute("SELECT min(id), max(id), count(*) FROM images").fetchall()
    if count and (first, last) != (1, count):
        raise VerificationFault(
            f"the {count} images are not numbered from 1 to {count}, but from {first} to {last}"
        )


def _check_changes_have_images(db: Connection) -> None:
    """Check that the image of each change's new digest is recorded."""
    row = db.execute(f"{_CHANGES_SQL} {_WITHOUT_IMAGE} ORDER BY c.id LIMIT 1").fetchone()
    if row is not None:
        change = _Change(*row)
        raise VerificationFault(f"image {change.new_digest}, which {change} references, is missing")


def _check_origin(db: Connection, digest: str, first_observed_at: str) -> None:
    """Check that a change or an index references an image.

    The first change to the image has to have the image's time, unless an index references it.
    """
    change = db.execute(
        f"SELECT observed_at {_CHANGES_OF_IMAGE_SQL} ORDER BY id LIMIT 1", (digest,)
    ).fetchone()
    if (change and change[0] == first_observed_at) or _is_in_an_index(db, digest):
        return
    if change:
        raise VerificationFault(
            f"image {digest} was first observed at {first_observed_at}, and the first change to it"
            f" at {change[0]}"
        )
    raise VerificationFault(f"image {digest}: no change and no index references it")


def _is_in_an_index(db: Connection, digest: str) -> bool:
    return any(
        ("manifest", digest) in manifests.decode(text).references()
        for _, text, _ in images_referencing(db, digest.rpartition(":")[2])
    )


def _check_description(db: Connection, image: Image, columns: Mapping[str, Any]) -> None:
    """Check that each column of an image comes from its manifest or from a change.

    If a verified manifest states a value, no other one may be recorded, whatever a change states.
    """
    read = None
    if image.verified and image.manifest:
        read = manifests.fetched_image(image.digest, image.manifest.encode(), "")
    stated = {name: {getattr(read, name, None)} for name in columns}
    unstated = {"media_type"} if read is None or read.media_type is None else set()
    changes = db.execute(f"SELECT kind, fields {_CHANGES_OF_IMAGE_SQL}", (image.digest,))
    for kind, text in changes:
        fields = _pairs(text) or {}
        for name in columns:
            if name not in fields and kind == "updated":
                unstated.add(name)  # the change leaves out a value that stayed the same
            stated[name].add(fields.get(name, (None, None))[1])
    for name, value in columns.items():
        if name not in unstated and value not in stated[name]:
            raise VerificationFault(
                f"image {image.digest} has {value!r} as {name}, which neither its manifest nor a"
                " change states"
            )
        stated_value = getattr(image, name)
        if read is not None and stated_value is not None and value != stated_value:
            raise VerificationFault(
                f"image {image.digest} has {value!r} as {name}, but its manifest states"
                f" {stated_value!r}"
            )


class _IndexSum:
    """A sum over the entries of the search index. It does not depend on their order.

    Python salts the hashes of strings in each process. An attacker can therefore not choose wrong
    entries that give the right sum.
    """

    def __init__(self) -> None:
        self.entries = 0
        self.total = 0

    def add(self, terms: Iterable[str], image_id: int) -> None:
        for term in terms:
            self.entries += 1
            # Hash one string: the hashes of similar tuples differ in a regular way.
            self.total += hash(f"{image_id} {term}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _IndexSum):
            return NotImplemented
        return (self.entries, self.total) == (other.entries, other.total)

    __hash__ = None  # type: ignore[assignment]  # a sum is compared and never stored


def _check_search_index(db: Connection, expected: _IndexSum) -> None:
    """Check that the search index has exactly the references of the images."""
    found = _IndexSum()
    with indexed_terms(db) as entries:
        for term, image_id in entries:
            found.add((term,), image_id)
    if found == expected:
        if lost := lost_term(db):
            raise VerificationFault(f"the search index has {lost}, but a search does not find it")
        return
    for number, digest, text, image_id, verified in db.execute(
        "SELECT id, digest, manifest, image_id, verified FROM images ORDER BY id"
    ):
        for term in search_terms(text, image_id, verified):
            hits = db.execute(
                "SELECT 1 FROM image_search WHERE image_search MATCH ? AND rowid = ?",
                (f'"{term}"', number),
            )
            if not hits.fetchone():
                raise VerificationFault(
                    f"image {digest}: the search index lacks {term}, which the image references"
                )
    raise VerificationFault(
        f"the search index has {found.entries} entries, but the images have {expected.entries}"
        " references"
    )


# --- 4. tags --------------------------------------------------------------------------------------


def _check_tags(db: Connection, read: Counter[str]) -> None:
    """Replay the changes tag by tag, and compare the result with the rows of ``tags``."""
    columns = ("tag", *FIELDS, "first_observed_at", "changed_at")
    rows = db.execute(
        f"SELECT repository_id, {', '.join(columns)} FROM tags ORDER BY repository_id, tag"  # noqa: S608  constants
    )
    stored = next(rows, None)
    for repository_id, tag, replayed in _replay(db):
        read[""] += replayed is not None
        key = (repository_id, tag)
        if stored and tuple(stored[:2]) < key:
            raise VerificationFault(f"{_name_of(db, stored)} is in tags, and no change added it")
        if stored is None or tuple(stored[:2]) > key:
            if replayed is not None:
                raise VerificationFault(
                    f"{_name_of(db, key)} is missing in tags, and no change deleted it"
                )
            continue
        if replayed is None:
            raise VerificationFault(f"{_name_of(db, key)} is in tags, and a change deleted it")
        for name, value in zip(columns[1:], stored[2:], strict=True):
            if value != replayed.get(name):
                raise VerificationFault(
                    f"{_name_of(db, key)} has {value!r} as {name} in tags, and"
                    f" {replayed.get(name)!r} by its changes"
                )
        stored = next(rows, None)
    if stored:
        raise VerificationFault(f"{_name_of(db, stored)} is in tags, and no change added it")
    _check_unresolved(db)


def _check_unresolved(db: Connection) -> None:
    """Check that each tag without a digest has the time since when, and each time is possible."""
    row = db.execute(_WRONG_UNRESOLVED_SQL).fetchone()
    if row:
        *key, digest, since, last = row
        raise VerificationFault(
            f"{_name_of(db, key)} has the digest {digest} and is unresolved since {since} in tags;"
            f" the last listing was at {last}"
        )


def _replay(db: Connection) -> Iterator[tuple[int, str, Row | None]]:
    """Yield the state of each tag after its last change, by repository and tag.

    The state is None if the last change deleted the tag.
    """
    rows = db.execute(
        _CHANGES_SQL.replace("SELECT ", "SELECT c.repository_id, ", 1)
        + " ORDER BY c.repository_id, c.tag, c.id"
    )
    for (repository_id, tag), changes in groupby(rows, key=lambda row: (row[0], row[3])):
        state: Row | None = None
        for _, *change in changes:
            state = _after(state, _Change(*change))
        yield repository_id, tag, state


def _after(state: Row | None, change: _Change) -> Row | None:
    """Return the state of a tag after a change.

    Raises:
        VerificationFault: If the change does not fit the state before it.
    """
    if (change.kind == "added") != (state is None):
        raise VerificationFault(f"{change} does not fit the changes of the tag before it")
    before = state or {}
    fields = _pairs(change.fields)
    if fields is None:
        raise VerificationFault(f"{change} has fields that are not a JSON object of pairs")
    fits = before.get("digest") == change.old_digest and all(
        before.get(name) == old for name, (old, _) in fields.items()
    )
    after = {**before, **{name: new for name, (_, new) in fields.items()}}
    if not fits or (after.get("digest") != change.new_digest):
        raise VerificationFault(f"{change} does not fit the changes of the tag before it")
    if change.kind == "deleted":
        return None
    return {"first_observed_at": change.observed_at, **after, "changed_at": change.observed_at}


def _pairs(fields: str) -> dict[str, tuple[Any, Any]] | None:
    """Return a change's old and new values by field, or None if the JSON is wrong."""
    try:
        return _decode(fields)
    except (msgspec.DecodeError, RecursionError):
        return None


def _name_of(db: Connection, key: Sequence[Any]) -> str:
    """Return the name of a tag for a message."""
    row = db.execute("SELECT full_name FROM repositories WHERE id = ?", (key[0],)).fetchone()
    return f"{row[0] if row else 'a missing repository'} tag {key[1]!r}"


# --- 7. observations ------------------------------------------------------------------------------


def _check_observations(db: Connection, read: Counter[str]) -> str:
    """Check the chain of observations, and each repository's row and changes against them."""
    head = check_observation_chain(db, read)
    _check_repositories_were_observed(db)
    return head


def _check_repositories_were_observed(db: Connection) -> None:
    for row in db.execute(_REPOSITORIES_SQL).fetchall():
        number, name, first, last, tags, listed, began, attempt, polled, version, listings = row
        runs = db.execute(
            "SELECT first_at, last_at FROM observations WHERE repository_id = ? AND outcome = 'ok'"
            " ORDER BY first_at",
            (number,),
        ).fetchall()
        ends = (runs[0][0], max(end for _, end in runs)) if runs else (None, None)
        if ends != (first, last):
            raise VerificationFault(
                f"{name} was listed from {first} until {last} according to its own row, but from"
                f" {ends[0]} until {ends[1]} according to its observations"
            )
        if attempt != polled:
            raise VerificationFault(
                f"{name} was last polled at {attempt} according to its own row, but at {polled}"
                " according to its observations"
            )
        if (began is None) != (last is None) or (began or "") > (last or ""):
            raise VerificationFault(
                f"{name} was last listed until {last}, so the listing cannot have begun at {began}"
            )
        if runs and listed != tags:
            raise VerificationFault(
                f"{name} has {tags} tags, but its last complete listing had {listed}"
            )
        if version != listings:
            raise VerificationFault(
                f"{name} had {version} complete listings according to its own row, but"
                f" {listings:.0f} according to its observations"
            )
        _check_changes_were_observed(db, number, runs)


def _check_changes_were_observed(
    db: Connection, repository_id: int, runs: Sequence[tuple[str, str]]
) -> None:
    firsts = [first for first, _ in runs]
    for row in db.execute(f"{_CHANGES_SQL} WHERE c.repository_id = ?", (repository_id,)):
        change = _Change(*row)
        run = bisect_right(firsts, change.observed_at) - 1
        if run < 0 or change.observed_at > runs[run][1]:
            raise VerificationFault(f"no complete listing covers the time of {change}")
