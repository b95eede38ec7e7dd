"""Whether the record is what was recorded: every promise that a tampered file would break.

Each check reads the database once, in an order in which it needs to remember little, and names the
first thing that does not fit.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import Any, Final

import msgspec

from tagsync import manifests
from tagsync.database import schema
from tagsync.database.connection import Connection, empty_database
from tagsync.database.hash_chain import GENESIS, link
from tagsync.database.parts import batch_of, names_of
from tagsync.models import FIELDS, Image

Row = dict[str, Any]


_NULL: Final = "'null'"


class _Misfit(Exception):
    """The first thing that does not fit, in a sentence."""


class _Mistyped(_Misfit):
    """A value is of a type that its column never holds, so that nothing can be compared with it."""


class _Change(msgspec.Struct, frozen=True):
    """A change as it is read back; attributes as the columns, and its repository's full name."""

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


_CHANGES: Final = (
    "SELECT c.id, r.registry || '/' || r.name, c.tag, c.kind, c.old_digest, c.new_digest, c.fields,"
    " c.not_before, c.observed_at, c.hash FROM changes AS c"
    " LEFT JOIN repositories AS r ON r.id = c.repository_id"
)

_THAT_LED_TO: Final = "FROM change_images JOIN changes ON id = change_id WHERE image_number = ?"
"""The changes that led to the image of a number."""

_decode = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode


def verify(db: Connection, heads: Collection[str] = ()) -> Iterator[Row]:
    """Checks the whole record.

    Args:
        db: one that `schema.check_current` accepts, in a transaction.
        heads: hashes of changes that a witness outside the database remembers.

    Returns:
        A row for each check: ``check``, ``rows`` that were looked at, ``result`` (``ok`` or
        ``fault``), and as ``detail`` what does not fit, or what is worth knowing.
    """
    checks: tuple[tuple[str, Callable[[Counter[str]], str | None]], ...] = (
        ("schema", partial(_check_schema, db)),
        ("chain", partial(_check_chain, db, heads)),
        ("images", partial(_check_images, db)),
        ("tags", partial(_check_tags, db)),
        ("observations", partial(_check_observations, db)),
    )
    unfit: _Mistyped | None = None
    for name, check in checks:
        seen: Counter[str] = Counter()
        try:
            if unfit:
                raise _Misfit(f"not looked at, because {unfit}")
            result, detail = "ok", check(seen)
        except _Misfit as misfit:
            result, detail = "fault", str(misfit)
            unfit = unfit or (misfit if isinstance(misfit, _Mistyped) else None)
        yield {"check": name, "rows": seen[""], "result": result, "detail": detail}


def _check_schema(db: Connection, seen: Counter[str]) -> None:
    """Tables and views, and the triggers that keep the history append-only, are as in a new one.

    What somebody added for themselves is theirs, but for triggers, which might alter what is
    recorded.
    """
    present = schema.definitions(db)
    with closing(empty_database()) as new:
        wanted = schema.definitions(new)
        for name in wanted:
            kind, table = name.split()
            if kind == "table" and name in present:
                _check_types(db, table, new.query("SELECT * FROM pragma_table_info(?)", (table,)))
    for name, sql in wanted.items():
        seen[""] += 1
        if present.get(name) != sql:
            raise _Misfit(f"the {name} is {'altered' if name in present else 'missing'}")
    for name in present.keys() - wanted.keys():
        if name.startswith("trigger "):
            raise _Misfit(f"the {name} is not ours")


def _check_types(db: Connection, table: str, columns: Iterable[Row]) -> None:
    """Each value is of its column's type, which SQLite lets everybody ignore."""
    cases = " ".join(
        f"WHEN typeof([{column['name']}]) NOT IN ('{column['type'].lower()}'"
        f"{'' if column['notnull'] or column['pk'] else ', ' + _NULL}) THEN '{column['name']}'"
        for column in columns
    )
    row = db.execute(
        f"SELECT wrong FROM (SELECT CASE {cases} END AS wrong FROM {table})"  # noqa: S608  our own names
        " WHERE wrong IS NOT NULL LIMIT 1"
    ).fetchone()
    if row:
        raise _Mistyped(f"{table} has a value of another type than its column {row[0]}")


def _check_chain(db: Connection, heads: Collection[str], seen: Counter[str]) -> str:
    """Each change's hash follows from its content and the hash before it, from the first to now."""
    wanted = set(heads) - {GENESIS}
    head, last = GENESIS, 0
    for row in db.execute(f"{_CHANGES} ORDER BY c.id"):
        change = _Change(*row)
        seen[""] += 1
        if change.id != last + 1:
            raise _Misfit(f"change {last + 1} is missing before {change}")
        if change.repository is None:
            raise _Misfit(f"the repository of {change} is missing")
        head, last = link(head, *row[:-1]), change.id
        if head != change.hash:
            raise _Misfit(
                f"{change} does not have the hash that its content and the change before it give"
            )
        wanted.discard(head)
    if wanted:
        raise _Misfit(
            f"no change has the hash {min(wanted)}: what was recorded when it was the head has been"
            " cut off or rewritten"
        )
    return f"head {head}"


def _check_images(db: Connection, seen: Counter[str]) -> str | None:
    """Each manifest is what was found of it when it came, and some change or index brought it."""
    false = named = 0
    _check_changes_lead_to_images(db)
    _check_numbers(db)
    rows = db.execute(
        "SELECT digest, manifest, image_id, schema, size, verified, first_observed_at, number,"
        " media_type FROM images ORDER BY number"
    )
    for row in rows:
        digest, text, image_id, version, size, verified, first_observed_at, number, kind = row
        seen[""] += 1
        image = manifests.listed_image(digest, text, image_id=image_id, schema=version, size=size)
        if image.verified != verified:
            fits = {True: "is", False: "is not", None: "is missing and so cannot be"}
            raise _Misfit(
                f"image {digest}: its manifest {fits[image.verified]} what its digest and image_id"
                f" say, and verified is {verified}"
            )
        false += verified == 0
        named += _check_image_is_indexed(db, digest, text, image_id, number)
        _check_image_was_brought(db, digest, number, first_observed_at)
        columns = {"image_id": image_id, "schema": version, "size": size, "media_type": kind}
        _check_image_is_described(db, image, number, columns)
    _check_indexes_hold_no_more(db, named)
    return f"{false} were not what their digests say when they came" if false else None


def _check_image_is_described(
    db: Connection, image: Image, number: int, columns: Mapping[str, Any]
) -> None:
    """What is recorded of an image was said by its manifest, or by a change that led to it."""
    read = None
    if image.verified and image.manifest:
        read = manifests.fetched_image(image.digest, image.manifest.encode(), "")
    said = {name: {getattr(read, name, None)} for name in columns}
    unsaid = {"media_type"} if read is None or read.media_type is None else set()
    changes = db.execute(f"SELECT kind, fields {_THAT_LED_TO}", (number,))
    for kind, text in changes:
        fields = _pairs(text) or {}
        for name in columns:
            if name not in fields and kind == "updated":
                unsaid.add(name)  # it stayed as it was
            said[name].add(fields.get(name, (None, None))[1])
    for name, value in columns.items():
        if name not in unsaid and value not in said[name]:
            raise _Misfit(f"image {image.digest} has {value!r} as {name}, which nothing said of it")


def _check_image_is_indexed(
    db: Connection, digest: str, text: str | None, image_id: str | None, number: int
) -> int:
    """Find would find it by all that it names; returns how many manifests that are."""
    parts, manifests = names_of([(digest, text, image_id)])[digest]
    ((indexed,),) = db.execute(
        "SELECT (SELECT count(*) FROM image_parts WHERE batch = ?"
        " AND part IN (SELECT value FROM json_each(?)))"
        " + (SELECT count(*) FROM index_manifests WHERE index_digest = ?"
        " AND manifest_digest IN (SELECT value FROM json_each(?)))",
        (batch_of(number), _json(list(parts)), digest, _json(list(manifests))),
    ).fetchall()
    if indexed != len(parts) + len(manifests):
        raise _Misfit(f"image {digest}: find would not find it by all that it names")
    return len(manifests)


def _json(value: Sequence[int | str]) -> str:
    return msgspec.json.encode(value).decode()


def _check_image_was_brought(
    db: Connection, digest: str, number: int, first_observed_at: str
) -> None:
    change = db.execute(
        f"SELECT observed_at {_THAT_LED_TO} ORDER BY change_id LIMIT 1", (number,)
    ).fetchone()
    if change and change[0] == first_observed_at:
        return
    if _is_part(db, digest):
        return
    if change:
        raise _Misfit(
            f"image {digest} was first observed at {first_observed_at}, and the first change to it"
            f" at {change[0]}"
        )
    raise _Misfit(f"image {digest}: the change that brought it is missing")


def _is_part(db: Connection, digest: str) -> bool:
    """Whether some index names it: by its bytes, or by others if those are not what it says."""
    rows = db.execute(
        "SELECT i.digest, i.manifest, i.verified FROM index_manifests AS m"
        " JOIN images AS i ON i.digest = m.index_digest WHERE m.manifest_digest = ?",
        (digest,),
    )
    return any(
        verified == 0 or digest in names_of([(index, text, None)])[index].manifests
        for index, text, verified in rows
    )


def _check_indexes_hold_no_more(db: Connection, named: int) -> None:
    """What the images name and the changes led to is indexed, and nothing else."""
    ((manifests, links, arrivals),) = db.execute(
        "SELECT (SELECT count(*) FROM index_manifests), (SELECT count(*) FROM change_images),"
        " (SELECT count(*) FROM changes WHERE kind <> 'deleted')"
    ).fetchall()
    if links != arrivals:
        raise _Misfit(f"change_images has {links} rows, and {arrivals} changes led to something")
    if manifests != named:
        raise _Misfit(
            f"index_manifests has {manifests} rows, and the indexes name {named} manifests"
        )


def _check_numbers(db: Connection) -> None:
    """Images are numbered as they came, without a gap."""
    ((first, last, numbers, count),) = db.execute(
        "SELECT min(number), max(number), count(number), count(*) FROM images"
    ).fetchall()
    if count and (first, last, numbers) != (1, count, count):
        raise _Misfit(
            f"the {count} images are not numbered from 1 to {count}: {numbers} have numbers, from"
            f" {first} to {last}"
        )


def _check_changes_lead_to_images(db: Connection) -> None:
    """By its number in ``change_images`` each change leads to the image that its digest names."""
    row = db.execute(
        f"{_CHANGES} LEFT JOIN change_images AS l ON l.change_id = c.id"
        " LEFT JOIN images AS i ON i.number = l.image_number"
        " WHERE i.digest IS NOT c.new_digest"
        " OR (l.image_number IS NULL) <> (c.new_digest IS NULL)"
        " OR (l.change_id IS NULL) <> (c.kind = 'deleted') ORDER BY c.id LIMIT 1"
    ).fetchone()
    if row is None:
        return
    change = _Change(*row)
    there = db.execute("SELECT 1 FROM images WHERE digest = ?", (change.new_digest,)).fetchone()
    if there or change.new_digest is None:
        raise _Misfit(f"change_images does not lead from {change} to the image of its new digest")
    raise _Misfit(f"image {change.new_digest}, which {change} brought, is missing")


def _check_tags(db: Connection, seen: Counter[str]) -> None:
    """The changes, replayed tag by tag, give exactly the rows of ``tags``."""
    columns = ("tag", *FIELDS, "first_observed_at", "changed_at")
    rows = db.execute(
        f"SELECT repository_id, {', '.join(columns)} FROM tags ORDER BY repository_id, tag"  # noqa: S608  constants
    )
    mirror = next(rows, None)
    for repository_id, tag, replayed in _replay(db):
        seen[""] += replayed is not None
        place = (repository_id, tag)
        if mirror and tuple(mirror[:2]) < place:
            raise _Misfit(f"{_called(db, mirror)} is in tags, and no change brought it")
        if mirror is None or tuple(mirror[:2]) > place:
            if replayed is not None:
                raise _Misfit(f"{_called(db, place)} is missing in tags, and no change deleted it")
            continue
        if replayed is None:
            raise _Misfit(f"{_called(db, place)} is in tags, and a change deleted it")
        for name, value in zip(columns[1:], mirror[2:], strict=True):
            if value != replayed.get(name):
                raise _Misfit(
                    f"{_called(db, place)} has {value!r} as {name} in tags, and"
                    f" {replayed.get(name)!r} by its changes"
                )
        mirror = next(rows, None)
    if mirror:
        raise _Misfit(f"{_called(db, mirror)} is in tags, and no change brought it")


def _replay(db: Connection) -> Iterator[tuple[int, str, Row | None]]:
    """What the changes of each tag come to, in the order of repositories and tags."""
    rows = db.execute(
        _CHANGES.replace("SELECT ", "SELECT c.repository_id, ", 1)
        + " ORDER BY c.repository_id, c.tag, c.id"
    )
    for (repository_id, tag), changes in groupby(rows, key=lambda row: (row[0], row[3])):
        state: Row | None = None
        for _, *change in changes:
            state = _after(state, _Change(*change))
        yield repository_id, tag, state


def _after(state: Row | None, change: _Change) -> Row | None:
    """What a tag is after a change, if the change fits what it was before."""
    if (change.kind == "added") != (state is None):
        raise _Misfit(f"{change} does not fit the changes of the tag before it")
    before = state or {}
    fields = _pairs(change.fields)
    if fields is None:
        raise _Misfit(f"{change} has fields that are not the JSON of pairs")
    fits = before.get("digest") == change.old_digest and all(
        before.get(name) == old for name, (old, _) in fields.items()
    )
    after = {**before, **{name: new for name, (_, new) in fields.items()}}
    if not fits or (after.get("digest") != change.new_digest):
        raise _Misfit(f"{change} does not fit the changes of the tag before it")
    if change.kind == "deleted":
        return None
    return {"first_observed_at": change.observed_at, **after, "changed_at": change.observed_at}


def _pairs(fields: str) -> dict[str, tuple[Any, Any]] | None:
    """The fields of a change, each old and new; null where they are not the JSON of that."""
    try:
        return _decode(fields)
    except msgspec.DecodeError:
        return None


def _called(db: Connection, place: Sequence[Any]) -> str:
    """A tag as people call it."""
    row = db.execute(
        "SELECT registry || '/' || name FROM repositories WHERE id = ?", (place[0],)
    ).fetchone()
    return f"{row[0] if row else 'a repository that is missing'} tag {place[1]!r}"


def _check_observations(db: Connection, seen: Counter[str]) -> None:
    """Each change was seen by a complete listing, and each repository's records agree on them."""
    repositories = db.execute(
        "SELECT id, registry || '/' || name, first_observed_at, last_complete_at,"
        " (SELECT count(*) FROM tags WHERE repository_id = r.id),"
        " (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'"
        "  ORDER BY id DESC LIMIT 1), not_before, last_attempt_at,"
        " (SELECT max(last_at) FROM observations WHERE repository_id = r.id)"
        " FROM repositories AS r ORDER BY id"
    ).fetchall()
    for number, name, first, last, tags, listed, began, attempt, looked in repositories:
        runs = db.execute(
            "SELECT first_at, last_at FROM observations WHERE repository_id = ? AND outcome = 'ok'"
            " ORDER BY first_at",
            (number,),
        ).fetchall()
        seen[""] += len(runs)
        ends = (runs[0][0], max(end for _, end in runs)) if runs else (None, None)
        if ends != (first, last):
            raise _Misfit(
                f"{name} was listed from {first} until {last} by its own row, and from {ends[0]}"
                f" until {ends[1]} by its observations"
            )
        if attempt != looked:
            raise _Misfit(
                f"{name} was last polled at {attempt} by its own row, and at {looked} by its"
                " observations"
            )
        if (began is None) != (last is None) or (began or "") > (last or ""):
            raise _Misfit(
                f"{name} was listed last until {last}, which cannot have begun at {began}"
            )
        if runs and listed != tags:
            raise _Misfit(f"{name} has {tags} tags, and its last complete listing had {listed}")
        _check_changes_were_observed(db, number, runs)


def _check_changes_were_observed(
    db: Connection, repository_id: int, runs: Sequence[tuple[str, str]]
) -> None:
    firsts = [first for first, _ in runs]
    for row in db.execute(f"{_CHANGES} WHERE c.repository_id = ?", (repository_id,)):
        change = _Change(*row)
        run = bisect_right(firsts, change.observed_at) - 1
        if run < 0 or change.observed_at > runs[run][1]:
            raise _Misfit(f"no complete listing was observed when {change} was")
