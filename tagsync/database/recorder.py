"""The records of repositories: read one at a time, and added to with what many polls found.

What comes together is written together: with one statement for the rows of all, and each page of
the file once. Written poll by poll, a first import of 100,000 tags takes half as long again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.connection import Connection
from tagsync.database.hash_chain import GENESIS, link
from tagsync.database.outcomes import (
    Draft,
    Entry,
    EntryChange,
    Finding,
    Known,
    Observation,
    Recorded,
    Standing,
    Unlogged,
    draft,
    names_of_images,
    same_reason,
)
from tagsync.database.parts import Names
from tagsync.database.rows import insert_rows, select_rows
from tagsync.database.schema import index_images
from tagsync.models import FIELDS, Image, RecordedChange, Repository, Tag

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode

_KNOWN: Final = """
    r.id, r.last_attempt_at, r.last_complete_at, r.listing_hash, r.not_before, r.unlogged_from,
    r.failures, (SELECT id || ':' || polls FROM observations
                 WHERE repository_id = r.id AND outcome <> 'failed' ORDER BY id DESC LIMIT 1)
"""
"""The attributes of `Known`."""

_WANTED: Final = "WITH wanted (position, registry, name) AS (VALUES (rows))"
_SELECT_STANDINGS: Final = f"""
    {_WANTED}
    SELECT wanted.position, newest.id, newest.outcome, newest.detail, newest.last_at,
           listed.detail,
           coalesce(listed.tags, (SELECT count(*) FROM tags WHERE repository_id = r.id)), {_KNOWN}
    FROM wanted
    CROSS JOIN repositories AS r ON r.registry = wanted.registry AND r.name = wanted.name
    LEFT JOIN observations AS newest ON newest.id = (
        SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1
    )
    LEFT JOIN observations AS listed ON listed.id = (
        SELECT id FROM observations WHERE repository_id = r.id AND outcome = 'ok'
        ORDER BY id DESC LIMIT 1
    )
"""  # noqa: S608  constants
_SELECT_IDS: Final = f"""
    {_WANTED}
    SELECT wanted.position, r.id FROM wanted
    CROSS JOIN repositories AS r ON r.registry = wanted.registry AND r.name = wanted.name
"""  # noqa: S608  constants
_UPSERT_REPOSITORIES: Final = """
    INSERT INTO repositories (registry, name, first_observed_at, last_attempt_at, last_complete_at,
                              listing_hash, not_before, unlogged_from, failures, last_error)
    VALUES (rows) ON CONFLICT (registry, name) DO UPDATE SET
        first_observed_at = coalesce(first_observed_at, excluded.first_observed_at),
        last_attempt_at = excluded.last_attempt_at, last_complete_at = excluded.last_complete_at,
        listing_hash = excluded.listing_hash, not_before = excluded.not_before,
        unlogged_from = excluded.unlogged_from, failures = excluded.failures,
        last_error = excluded.last_error
"""
_UPSERT_OBSERVATIONS: Final = """
    INSERT INTO observations (id, repository_id, outcome, detail, first_at, last_at, polls, tags)
    VALUES (rows) ON CONFLICT (id) DO UPDATE SET
        last_at = excluded.last_at, polls = polls + 1, tags = excluded.tags
"""
_TAG_COLUMNS: Final = ", ".join(FIELDS)
_UPSERT_TAGS: Final = f"""
    INSERT INTO tags (repository_id, tag, {_TAG_COLUMNS}, first_observed_at, changed_at)
    VALUES (rows) ON CONFLICT (repository_id, tag) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in (*FIELDS, "changed_at"))}
"""  # noqa: S608  the names are the attributes of Tag
_INSERT_CHANGES: Final = """
    INSERT INTO changes (id, repository_id, tag, kind, old_digest, new_digest, fields, not_before,
                         observed_at, hash)
    VALUES (rows)
"""
_INSERT_IMAGES: Final = """
    INSERT INTO images (digest, image_id, media_type, schema, size, manifest, verified,
                        first_observed_at, number)
    VALUES (rows)
"""
_BARE: Final = "manifest IS NULL AND verified IS NULL"
"""Of an image that was recorded without its manifest, and may yet get it."""

_FILL_IN_IMAGE: Final = """
    UPDATE images SET manifest = ?, verified = 1, image_id = coalesce(image_id, ?),
        media_type = coalesce(media_type, ?), schema = coalesce(schema, ?), size = coalesce(size, ?)
    WHERE digest = ?
"""


class Head(msgspec.Struct, frozen=True):
    """The end of the chain of changes: what a witness outside the database has to remember.

    ``change_id`` is 0, and ``hash`` that before the first change, where there is none yet.
    """

    change_id: int
    hash: str


class View:
    """One repository's records as they are within one transaction."""

    def __init__(self, db: Connection, repository: Repository) -> None:
        self._db = db
        row = db.execute(
            f"SELECT {_KNOWN} FROM repositories AS r WHERE registry = ? AND name = ?",  # noqa: S608  constants
            (repository.registry, repository.name),
        ).fetchone()
        self.known: Final = known_of(row) if row else Known()

    def tags(self) -> dict[str, Tag]:
        """The mirror: each tag as the last recorded listing had it."""
        rows = self._db.execute(
            f"SELECT tag, {_TAG_COLUMNS} FROM tags WHERE repository_id = ?",  # noqa: S608  the names are the attributes of Tag
            (self.known.id,),
        )
        return {row[0]: _tag(row) for row in rows}

    def count(self) -> int:
        """How many tags the mirror holds."""
        row = self._db.execute(
            "SELECT count(*) FROM tags WHERE repository_id = ?", (self.known.id,)
        ).fetchone()
        return int(row[0])

    def bare(self, digests: Collection[str]) -> Set[str]:
        """The digests of images that are recorded without a manifest, and may yet get it."""
        rows = self._db.execute(
            f"SELECT digest FROM images WHERE {_BARE}"  # noqa: S608  a constant
            " AND digest IN (SELECT value FROM json_each(?))",
            (_encode(list(digests)).decode(),),
        )
        return {digest for (digest,) in rows}

    def held_in_a_row(self, detail: str) -> int:
        """How many of the newest listings were held for exactly this reason.

        Failed polls in between do not count and do not break the row: they gave no listing.
        """
        rows = self._db.execute(
            "SELECT outcome, detail, polls FROM observations"
            " WHERE repository_id = ? AND outcome <> 'failed' ORDER BY id DESC",
            (self.known.id,),
        )
        count = 0
        for outcome, reason, polls in rows:
            if outcome != "held" or not same_reason(reason, detail):
                break
            count += polls
        return count


class _Recording(NamedTuple):
    """A listing that is being recorded.

    Attributes:
        draft: what it makes of its repository's row.
        entry: its rows.
        repository_id: the repository's key.
    """

    draft: Draft
    entry: Entry
    repository_id: int


class Ledger:
    """The records of all repositories, open for writing within one transaction."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def record(self, findings: Sequence[Finding]) -> list[Recorded]:
        """Adds what polls found: observations, changes, images, and what the mirror becomes.

        Which of them are left out, and when something is recorded to have been, `draft` says.

        Args:
            findings: each of another repository.

        Returns:
            What became of each.

        Raises:
            ValueError: what is said to have changed is not what the history says was there.
        """
        standings = self._standings(findings)
        head = head_of(self._db)
        drafts = self._drafts(findings, standings, head.change_id + 1)
        kept = [made for made in drafts if made is not None]
        ids = self._upsert_repositories(kept)
        listings = [
            _Recording(made, made.finding.found, number)
            for made, number in zip(kept, ids, strict=True)
            if isinstance(made.finding.found, Entry)
        ]
        entries = {one.draft.finding.repository: one.entry for one in listings}
        appended: dict[Repository, list[RecordedChange]] = {}
        if listings:
            self._insert_images(listings)
            appended = self._append(listings, head)
            self._mirror(listings)
        self._observe(kept, ids)
        through = head.change_id + sum(len(entry.changes) for entry in entries.values())
        return [
            Recorded(
                standing.known,
                made.tags if made else standing.tags,
                dropped=made is None,
                unlogged=self._unlogged(
                    standing.known,
                    entries.get(finding.repository),
                    appended.get(finding.repository, ()),
                    through,
                ),
            )
            for finding, standing, made in zip(findings, standings, drafts, strict=True)
        ]

    def acknowledge(self, repositories: Collection[Repository], through: int) -> None:
        """Notes that the log lines of these repositories' changes were written.

        Args:
            repositories: whose.
            through: up to which change; what came later is owed still.
        """
        ids = self._ids(repositories)
        self._db.execute(
            "UPDATE repositories SET unlogged_from ="
            " (SELECT min(id) FROM changes WHERE id > ? AND repository_id = +repositories.id)"
            " WHERE id IN (SELECT value FROM json_each(?)) AND unlogged_from <= ?",
            (through, _encode(ids).decode(), through + 1),
        )

    def _standings(self, findings: Sequence[Finding]) -> list[Standing]:
        rows = select_rows(self._db, _SELECT_STANDINGS, _wanted(f.repository for f in findings))
        standings = [Standing()] * len(findings)
        for position, *newest, detail, tags, known in ((*row[:7], row[7:]) for row in rows):
            before = findings[position].known
            same = known == msgspec.structs.astuple(before)
            standings[position] = Standing(
                before if same else known_of(known),
                Observation(*newest) if newest[0] is not None else None,
                detail,
                tags,
            )
        return standings

    def _drafts(
        self, findings: Sequence[Finding], standings: Sequence[Standing], next_change: int
    ) -> list[Draft | None]:
        drafts = []
        for finding, standing in zip(findings, standings, strict=True):
            made = draft(finding, standing, next_change)
            drafts.append(made)
            if made and isinstance(finding.found, Entry):
                changes = finding.found.changes
                next_change += len(changes)
                if standing.known.id is not None:
                    for change in changes:
                        self._check_that_it_follows(finding.repository, standing.known.id, change)
        return drafts

    def _check_that_it_follows(
        self, repository: Repository, repository_id: int, change: EntryChange
    ) -> None:
        """Makes sure that a change begins where the history of its tag ends.

        The mirror tells what changed, and the file may have been damaged under it: what nobody
        recorded must not enter the history as what was there before.

        Raises:
            ValueError: it does not.
        """
        rows = self._db.execute(
            "SELECT id, tag, kind, old_digest, new_digest, fields, not_before, observed_at, hash,"
            " (SELECT hash FROM changes AS b WHERE b.id = c.id - 1)"
            " FROM changes AS c WHERE repository_id = ? AND tag = ? ORDER BY id DESC",
            (repository_id, change.tag),
        )
        last = rows.fetchone()
        if last is not None:
            number, *content, digest, before = last
            if link(before or GENESIS, number, repository.full_name, *content) != digest:
                raise ValueError(f"change {number} is not what was recorded")
        history = ((row[2], row[5]) for row in chain([last] if last else [], rows))
        if not _follows(change, history):
            raise ValueError(f"tag {change.tag!r} is not what its changes made it")

    def _upsert_repositories(self, drafts: Sequence[Draft]) -> list[int]:
        """Writes the repositories' rows; returns their keys."""
        rows = [
            (
                made.finding.repository.registry,
                made.finding.repository.name,
                made.at if isinstance(made.finding.found, Entry) else None,
                made.at,
                made.after.last_complete_at,
                made.after.listing_hash,
                made.after.not_before,
                made.after.unlogged_from,
                made.after.failures,
                made.error,
            )
            for made in drafts
        ]
        insert_rows(self._db, _UPSERT_REPOSITORIES, rows)
        new = [made.finding.repository for made in drafts if made.after.id is None]
        fresh = dict(zip(new, self._ids(new), strict=True))
        return [
            fresh[made.finding.repository] if made.after.id is None else made.after.id
            for made in drafts
        ]

    def _ids(self, repositories: Collection[Repository]) -> list[int]:
        """The keys of repositories that are recorded."""
        rows = select_rows(self._db, _SELECT_IDS, _wanted(repositories))
        return [number for _, number in sorted(rows)]

    def _insert_images(self, listings: Sequence[_Recording]) -> None:
        """Keeps what no tag led to before, and manifests that could not be had with their image."""
        wanted = {digest for one in listings for digest in one.entry.images}
        known, bare = self._known_images(wanted)
        (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM images").fetchone()
        rows: list[tuple[Any, ...]] = []
        new: dict[str, int] = {}
        names: dict[str, Names] = {}
        filled: dict[str, Image] = {}
        for one in listings:
            for digest, image in one.entry.images.items():
                if digest in bare and image.verified:
                    bare.remove(digest)
                    filled[digest] = image
                elif digest not in known and digest in one.entry.names:
                    last += 1
                    known[digest] = new[digest] = last
                    names[digest] = one.entry.names[digest]
                    rows.append((*msgspec.structs.astuple(image), one.draft.at, last))
                    if image.manifest is None and image.verified is None:
                        bare.add(digest)
        insert_rows(self._db, _INSERT_IMAGES, rows)
        index_images(self._db, new, names)
        self._fill_in(filled.values(), {digest: known[digest] for digest in filled})

    def _fill_in(self, images: Collection[Image], numbers: Mapping[str, int]) -> None:
        """Gives recorded images the manifests that could not be had when they were recorded."""
        self._db.executemany(_FILL_IN_IMAGE, map(_filling_row, images))
        index_images(self._db, numbers, names_of_images(images))

    def _known_images(self, digests: Collection[str]) -> tuple[dict[str, int], set[str]]:
        """The numbers of those that are recorded, and those whose manifest may yet come."""
        rows = self._db.execute(
            f"SELECT digest, number, {_BARE} FROM images"  # noqa: S608  a constant
            " WHERE digest IN (SELECT value FROM json_each(?))",
            (_encode(list(digests)).decode(),),
        ).fetchall()
        numbers = {digest: number for digest, number, _ in rows}
        return numbers, {digest for digest, _, is_bare in rows if is_bare}

    def _append(
        self, listings: Sequence[_Recording], last: Head
    ) -> dict[Repository, list[RecordedChange]]:
        """Appends to the history, after the last change of all.

        Returns:
            What each repository's log will tell of: nothing where this was its first listing.
        """
        number, head = last.change_id, last.hash
        rows: list[tuple[Any, ...]] = []
        appended: dict[Repository, list[RecordedChange]] = {}
        for draft_, entry, repository_id in listings:
            repository = draft_.finding.repository
            name, not_before, at = repository.full_name, draft_.standing.known.not_before, draft_.at
            told: list[RecordedChange] = []
            for change in entry.changes:
                number += 1
                what = (change.tag, change.kind, change.old_digest, change.new_digest)
                head = link(head, number, name, *what, change.fields, not_before, at)
                rows.append((number, repository_id, *what, change.fields, not_before, at, head))
                if not_before is not None:
                    told.append(RecordedChange(number, *what, not_before, at, head))
            appended[repository] = told
        insert_rows(self._db, _INSERT_CHANGES, rows)
        return appended

    def _mirror(self, listings: Sequence[_Recording]) -> None:
        insert_rows(
            self._db,
            _UPSERT_TAGS,
            [
                (repository_id, *msgspec.structs.astuple(tag), draft_.at, draft_.at)
                for draft_, entry, repository_id in listings
                for tag in entry.tags
            ],
        )
        self._db.executemany(
            "DELETE FROM tags WHERE repository_id = ? AND tag = ?",
            (
                (repository_id, change.tag)
                for _, entry, repository_id in listings
                for change in entry.changes
                if change.kind == "deleted"
            ),
        )

    def _observe(self, drafts: Sequence[Draft], ids: Sequence[int]) -> None:
        """Lets the newest observation of each grow, or begins another one."""
        rows = []
        for made, repository_id in zip(drafts, ids, strict=True):
            newest = made.standing.newest if made.grows else None
            what = (repository_id, made.outcome, made.detail, made.at, made.at, 1, made.tags)
            rows.append((newest.id if newest else None, *what))
        insert_rows(self._db, _UPSERT_OBSERVATIONS, rows)

    def _unlogged(
        self,
        known: Known,
        entry: Entry | None,
        appended: Sequence[RecordedChange],
        through: int,
    ) -> Unlogged | None:
        """The changes whose log lines may not have been written, or null.

        They are marked by the transaction that records them, so that a kill between the commit and
        the line makes the next poll write it.

        Args:
            known: what was recorded before.
            entry: the listing that was recorded since, if one was.
            appended: what it changed, see `_append`.
            through: the newest change of all.
        """
        if known.unlogged_from is not None:
            return self._still_unlogged(known.id, known.unlogged_from, through)
        if entry is None:
            return None
        if known.not_before is None:
            return Unlogged(len(entry.changes), (), through)
        return Unlogged(None, appended, through) if appended else None

    def _still_unlogged(self, repository_id: int | None, first: int, through: int) -> Unlogged:
        rows = self._db.execute(
            "SELECT id, tag, kind, old_digest, new_digest, not_before, observed_at, hash"
            " FROM changes WHERE id >= ? AND repository_id = +? ORDER BY id",
            (first, repository_id),
        )
        changes = [RecordedChange(*row) for row in rows]
        news = [change for change in changes if change.not_before is not None]
        # Marked without a change: the first listing, of an empty repository.
        baseline = len(changes) - len(news) if changes else 0
        return Unlogged(baseline if baseline or not changes else None, news, through)


def head_of(db: Connection) -> Head:
    """The newest change of all repositories."""
    row = db.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, GENESIS)


def known_of(row: Sequence[Any]) -> Known:
    """What a row says, if it is of the form that it was written in.

    Raises:
        ValueError, TypeError, msgspec.ValidationError: it is not.
    """
    known = msgspec.convert(msgspec.structs.asdict(Known(*row)), Known)
    for moment in (known.last_attempt_at, known.last_complete_at, known.not_before):
        moment_of(moment)
    return known


def moment_of(text: str | None) -> str | None:
    """The same text, if it is one that `timestamp` writes.

    Raises:
        ValueError, TypeError: it is not.
    """
    if text is not None and timestamp(parse_timestamp(text)) != text:
        raise ValueError("no time of ours")
    return text


def _follows(change: EntryChange, history: Iterable[tuple[str, str]]) -> bool:
    """Whether a change's old values are what the changes of its tag before it left.

    Args:
        change: one that is not recorded yet.
        history: the kind and the fields of each, newest first, read no further than needed.
    """
    wanted = {name: old for name, (old, _) in _decode_fields(change.fields).items()}
    there = False
    for kind, text in history:
        if kind == "deleted":
            break
        there = True
        for name, (_, new) in _decode_fields(text).items():
            if wanted.pop(name, new) != new:
                return False
        if not wanted or kind == "added":
            break
    # What no change since the tag was added has named was null all the time.
    return there == (change.kind != "added") and not any(old is not None for old in wanted.values())


def _wanted(repositories: Iterable[Repository]) -> list[tuple[int, str, str]]:
    return [(position, r.registry, r.name) for position, r in enumerate(repositories)]


_BOOLEANS: Final = tuple(Tag.__struct_fields__.index(name) for name in ("is_trusted", "scanned"))


def _tag(row: Sequence[Any]) -> Tag:
    """A row of ``tags``: SQLite keeps booleans as 0 and 1, and the history should not show that."""
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)


def _filling_row(image: Image) -> tuple[Any, ...]:
    about = (image.image_id, image.media_type, image.schema, image.size)
    return (image.manifest, *about, image.digest)
