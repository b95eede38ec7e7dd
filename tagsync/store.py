"""The only writer of the database: each poll's result in one short transaction.

A `Store` has one connection, which its threads take in turn; other processes wait for its
transactions at most `tagsync.database.BUSY_TIMEOUT` seconds, as it does for theirs.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

import msgspec

from tagsync.chain import GENESIS, link
from tagsync.database import (
    BUSY_TIMEOUT,
    Connection,
    connect,
    connect_for_reading,
    empty_database,
    in_plain_words,
)
from tagsync.models import (
    FIELDS,
    GONE,
    Change,
    Image,
    Listing,
    ObservedOutcome,
    RecordedChange,
    Repository,
    Tag,
    Unchanged,
    parse_timestamp,
    timestamp,
)
from tagsync.parts import BATCH, Names, names_of
from tagsync.rows import insert_rows
from tagsync.schema import index_images

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, tuple[Any, Any]]).decode

_TAG_COLUMNS: Final = ", ".join(FIELDS)
_UPSERT_TAG: Final = f"""
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
                        first_observed_at, batch)
    VALUES (rows)
"""
_FILL_IN_IMAGE: Final = """
    UPDATE images SET manifest = ?, verified = 1, image_id = coalesce(image_id, ?),
        media_type = coalesce(media_type, ?), schema = coalesce(schema, ?), size = coalesce(size, ?)
    WHERE digest = ?
"""


_BEHIND: Final = "the clock was behind the record"
"""What an observation says of listings whose times tell their order only."""


class Known(msgspec.Struct, frozen=True):
    """What the database holds of a repository as a whole; attributes as its columns.

    ``id`` is null for a repository that was never polled. ``looks`` is the newest complete listing,
    recorded or held: as long as it is the same, there was none in between, whatever clocks said.
    """

    id: int | None = None
    last_attempt_at: str | None = None
    last_complete_at: str | None = None
    listing_hash: str | None = None
    not_before: str | None = None
    unlogged_from: int | None = None
    failures: int = 0
    looks: str | None = None


class Head(msgspec.Struct, frozen=True):
    """The end of the chain of changes: what a witness outside the database has to remember.

    ``change_id`` is 0, and ``hash`` that before the first change, where there is none yet.
    """

    change_id: int
    hash: str


class Unlogged(msgspec.Struct, frozen=True):
    """Changes that are committed and whose log lines may not have been written.

    Attributes:
        baseline: how many tags were there when the repository was first listed; null where that
            is not news.
        changes: what happened after that, oldest first.
        through: the newest of them all, for `Store.acknowledge`.
    """

    baseline: int | None
    changes: Sequence[RecordedChange]
    through: int


class Entry:
    """A listing, and what it changes, in the form in which it is recorded.

    It is made before the transaction begins, so that nobody waits meanwhile.
    """

    def __init__(self, listing: Listing, changes: Sequence[Change]) -> None:
        """Takes a listing, and what it changes in the mirror."""
        self.listing: Final = listing
        self.changes: Final = changes
        self.fields: Final = [_encode(change.fields).decode() for change in changes]
        self.tags: Final = [
            msgspec.structs.astuple(listing.tags[change.tag])
            for change in changes
            if change.kind != "deleted"
        ]
        self.images: Final = {**listing.images, **listing.children}
        fresh = {change.new_digest for change in changes} | listing.children.keys()
        self.names: Final = _names_of(
            image for digest, image in self.images.items() if digest in fresh
        )
        """What those images name that may not be recorded yet."""


class Store:
    """The database, open for writing."""

    def __init__(self, db: Connection, path: Path) -> None:
        """Takes over a connection; use `open`."""
        self._db = db
        self._path = path
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path, busy_timeout: float = BUSY_TIMEOUT) -> Self:
        """Opens the database, creating and migrating it as needed.

        Args:
            path: the file.
            busy_timeout: seconds to wait for another process's transaction.

        Raises:
            UnusableDatabase: the file is no database, another program's, or a newer tagsync's.
            StoreError: it cannot be read or written.
        """
        return cls(connect(path, busy_timeout), path)

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Opens the database so that nothing can be written; where there is none yet, an empty one.

        Raises:
            UnusableDatabase, StoreError: as `open`.
        """
        if path.exists() and path.stat().st_size:
            return cls(connect_for_reading(path), path)
        return cls(empty_database(), path)

    def close(self) -> None:
        """Waits for the transaction in hand, then closes the database for good."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def repositories(self) -> list[Repository]:
        """Every repository that was ever polled, but those whose registry says they are gone."""
        with self._lock, in_plain_words(self._path):
            rows = self._db.execute(
                "SELECT registry, name FROM repositories AS r WHERE instr(coalesce((SELECT detail"
                " FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1), ''), ?)"
                " <> 1",
                (GONE,),
            ).fetchall()
        return [Repository(*row) for row in rows]

    def freshness(self) -> dict[Repository, tuple[str | None, int]]:
        """The same repositories, each with when it was last listed in full and its tags then."""
        with self._lock, in_plain_words(self._path):
            rows = self._db.execute(
                "SELECT registry, name, last_complete_at,"
                " (SELECT count(*) FROM tags WHERE repository_id = r.id)"
                " FROM repositories AS r"
            ).fetchall()
            known = {Repository(*row[:2]): (_moment(row[2]), int(row[3])) for row in rows}
        return {repository: known[repository] for repository in self.repositories()}

    def head(self) -> Head:
        """The newest change of all repositories."""
        with self._lock, in_plain_words(self._path):
            return _head(self._db)

    def known(self, repository: Repository) -> Known:
        """What is recorded of a repository as a whole."""
        with self._lock, in_plain_words(self._path):
            return Ledger(self._db, repository).known

    def with_manifest(self, digests: Collection[str]) -> Set[str]:
        """Those of the digests whose manifest is recorded."""
        with self._lock, in_plain_words(self._path):
            rows = self._db.execute(
                "SELECT digest FROM images WHERE manifest IS NOT NULL"
                " AND digest IN (SELECT value FROM json_each(?))",
                (_encode(list(digests)).decode(),),
            ).fetchall()
        return {digest for (digest,) in rows}

    @contextmanager
    def reading(self, repository: Repository) -> Iterator["Ledger"]:
        """One consistent view of a repository's records, for decisions that are not carried out."""
        with self._transaction("BEGIN"):
            yield Ledger(self._db, repository)

    @contextmanager
    def recording(self, repository: Repository, before: Known | None = None) -> Iterator["Ledger"]:
        """One write transaction on a repository's records: all of it is kept, or none.

        Args:
            repository: whose records.
            before: what was known when the poll began that is recorded; left out: what is known.

        Raises:
            StoreError: it could not be begun or committed; nothing of it was kept.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            yield Ledger(self._db, repository, before)

    def unlogged(self, repository: Repository) -> Unlogged | None:
        """The changes whose log lines may not have been written, or null.

        They are marked by the transaction that records them, so that a kill between the commit and
        the line makes the next poll write it.
        """
        with self._transaction("BEGIN"):
            return Ledger(self._db, repository).unlogged()

    def acknowledge(self, repository: Repository, through: int) -> None:
        """Notes that the log lines of a repository's changes, up to this one, were written."""
        with self._transaction("BEGIN IMMEDIATE"):
            Ledger(self._db, repository).acknowledge(through)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._lock, in_plain_words(self._path):
            self._db.execute(begin)
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise


class Ledger:
    """One repository's records within one transaction of the store."""

    def __init__(self, db: Connection, repository: Repository, before: Known | None = None) -> None:
        self._db = db
        self._repository = repository
        row = db.execute(
            "SELECT id, last_attempt_at, last_complete_at, listing_hash, not_before, unlogged_from,"
            " failures, (SELECT id || ':' || polls FROM observations WHERE repository_id = r.id"
            "  AND outcome <> 'failed' ORDER BY id DESC LIMIT 1)"
            " FROM repositories AS r WHERE registry = ? AND name = ?",
            (repository.registry, repository.name),
        ).fetchone()
        same = before is not None and row == msgspec.structs.astuple(before)
        self.known: Final = before if before and same else _known(row) if row else Known()
        self._before: Final = before or self.known

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
            if outcome != "held" or _reason(reason) != detail:
                break
            count += polls
        return count

    def complete(
        self,
        entry: Entry,
        *,
        interval: timedelta,
        detail: str | None = None,
    ) -> None:
        """Records a listing: its changes and images, the mirror, and that we looked.

        It was read after all that is recorded (see `Known.looks`). If the clock says otherwise it
        was set back, and the record goes on from where it was, so that its times stay in order.

        Args:
            entry: what was read, and what it changes in the mirror.
            interval: how often the repository is meant to be polled.
            detail: what the observation should say of it.

        Raises:
            ValueError: what is said to have changed is not what the history says was there.
        """
        if self.known.id is not None:
            for change in entry.changes:
                self._check_that_it_follows(change)
        listing = entry.listing
        at, detail = self._in_order(listing.finished_at, detail)
        repository_id = self._id(at)
        self._insert_images(entry, at)
        first = self._append(repository_id, entry, at)
        self._mirror(repository_id, entry, at)
        self._attempted(
            repository_id,
            at,
            "first_observed_at = coalesce(first_observed_at, ?), last_complete_at = ?,"
            " listing_hash = ?, not_before = ?, failures = 0, last_error = NULL,"
            " unlogged_from = coalesce(unlogged_from, ?)",
            (at, at, listing.fingerprint, _beginning(listing), first),
        )
        self._observe(repository_id, "ok", detail, at, interval, len(listing.tags))

    def confirm(self, listing: Unchanged, *, interval: timedelta) -> int:
        """Records that a listing was the last recorded one again, in order as `complete` does.

        Returns:
            How many tags that is.
        """
        newest = self._last_observation("")
        last = newest
        if last and last["outcome"] != "ok":
            last = self._last_observation("AND outcome = 'ok'")
        detail, tags = (_reason(last["detail"]), last["tags"]) if last else (None, self.count())
        at, detail = self._in_order(listing.finished_at, detail)
        repository_id = self._id(at)
        self._attempted(
            repository_id,
            at,
            "last_complete_at = ?, not_before = ?, failures = 0, last_error = NULL",
            (at, _beginning(listing)),
        )
        self._observe(repository_id, "ok", detail, at, interval, tags, newest)
        return int(tags)

    def hold(self, detail: str, at: str, tags: int, *, interval: timedelta) -> None:
        """Records that a listing was complete but is not believed yet; the mirror stays.

        Args:
            detail: why, as `held_in_a_row` will be asked.
            at: when it had been read.
            tags: how many it had.
            interval: how often the repository is meant to be polled.
        """
        at, remark = self._in_order(at, detail)
        repository_id = self._id(at)
        self._attempted(repository_id, at, "failures = 0, last_error = ?", (detail,))
        self._observe(repository_id, "held", remark, at, interval, tags)

    def fail(self, error: str, detail: str, at: str, *, interval: timedelta) -> None:
        """Records that a poll gave no listing, and why; everything else stays.

        Args:
            error: the whole sentence.
            detail: what of it stays the same while the reason does, so that an outage is one row.
            at: when it was known.
            interval: how often the repository is meant to be polled.
        """
        # Two that fail together are told of in either order, which is no matter of the clock.
        at = max(at, self.known.last_attempt_at or at)
        repository_id = self._id(at)
        self._attempted(repository_id, at, "failures = failures + 1, last_error = ?", (error,))
        self._observe(repository_id, "failed", detail, at, interval, None)

    def unlogged(self) -> Unlogged | None:
        """See `Store.unlogged`."""
        if self.known.unlogged_from is None:
            return None
        fresh = "FROM changes WHERE id >= ? AND repository_id = +?"
        parameters = (self.known.unlogged_from, self.known.id)
        first, baseline, through = self._db.execute(
            f"SELECT count(*), count(*) FILTER (WHERE not_before IS NULL), max(id) {fresh}",
            parameters,
        ).fetchone()
        rows = self._db.execute(
            "SELECT id, tag, kind, old_digest, new_digest, not_before, observed_at, hash"
            f" {fresh} AND not_before IS NOT NULL ORDER BY id",
            parameters,
        )
        if not first:
            # Marked without a change: the first listing, of an empty repository.
            return Unlogged(0, (), self.known.unlogged_from - 1)
        return Unlogged(baseline or None, [RecordedChange(*change) for change in rows], through)

    def acknowledge(self, through: int) -> None:
        """See `Store.acknowledge`."""
        self._db.execute(
            "UPDATE repositories SET unlogged_from ="
            " (SELECT min(id) FROM changes WHERE id > ? AND repository_id = +repositories.id)"
            " WHERE id = ? AND unlogged_from <= ?",
            (through, self.known.id, through + 1),
        )

    def _in_order(self, at: str, detail: str | None) -> tuple[str, str | None]:
        """When something is recorded, and what the observation says of it.

        Where the clock is behind the record, the time is the next one after the record, and the
        observation keeps what the clock said: such times tell the order, and nothing else.
        """
        last = self.known.last_attempt_at
        if last is None or at >= last:
            return at, detail
        if at >= (self._before.last_attempt_at or at):
            # Another poll, which began and failed meanwhile, was recorded first.
            return last, detail
        behind = f"{_BEHIND}: it said {at} after {last}"
        after = timestamp(parse_timestamp(last) + timedelta(milliseconds=1))
        return after, f"{detail}; {behind}" if detail else behind

    def _id(self, at: str) -> int:
        """The repository's key; one that was never polled gets its row."""
        if self.known.id is not None:
            return self.known.id
        inserted = self._db.execute(
            "INSERT INTO repositories (registry, name, last_attempt_at) VALUES (?, ?, ?)",
            (self._repository.registry, self._repository.name, at),
        )
        assert inserted.lastrowid is not None, "an INSERT that worked has a row"  # noqa: S101  tells the type checker
        return inserted.lastrowid

    def _attempted(
        self, repository_id: int, at: str, assignments: str, values: tuple[Any, ...]
    ) -> None:
        self._db.execute(
            f"UPDATE repositories SET last_attempt_at = ?, {assignments} WHERE id = ?",  # noqa: S608  constants
            (at, *values, repository_id),
        )

    def _check_that_it_follows(self, change: Change) -> None:
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
            (self.known.id, change.tag),
        )
        last = rows.fetchone()
        if last is not None:
            number, *content, digest, before = last
            if link(before or GENESIS, number, self._repository.full_name, *content) != digest:
                raise ValueError(f"change {number} is not what was recorded")
        history = ((row[2], row[5]) for row in chain([last] if last else [], rows))
        if not _follows(change, history):
            raise ValueError(f"tag {change.tag!r} is not what its changes made it")

    def _insert_images(self, entry: Entry, at: str) -> None:
        """Keeps what no tag led to before, and manifests that could not be had with their image."""
        known = self._known_images(entry.images)
        lacking = {
            digest: batch
            for digest, (batch, lacks) in known.items()
            if lacks and entry.images[digest].verified
        }
        filled = [entry.images[digest] for digest in lacking]
        self._db.executemany(_FILL_IN_IMAGE, map(_filling_row, filled))
        new = [entry.images[digest] for digest in entry.names if digest not in known]
        first = self._db.execute("SELECT coalesce(max(rowid), 0) FROM images").fetchone()[0]
        batches = {image.digest: number // BATCH for number, image in enumerate(new, first)}
        insert_rows(
            self._db,
            _INSERT_IMAGES,
            [(*msgspec.structs.astuple(image), at, batches[image.digest]) for image in new],
        )
        names = {**_names_of(filled), **entry.names}
        index_images(self._db, {**batches, **lacking}, names)

    def _known_images(self, digests: Collection[str]) -> dict[str, tuple[int, bool]]:
        """Of those that are recorded, the batch, and whether the manifest may yet come."""
        rows = self._db.execute(
            "SELECT digest, batch, manifest IS NULL AND verified IS NULL FROM images"
            " WHERE digest IN (SELECT value FROM json_each(?))",
            (_encode(list(digests)).decode(),),
        )
        return {digest: (batch, bool(lacking)) for digest, batch, lacking in rows}

    def _append(self, repository_id: int, entry: Entry, at: str) -> int | None:
        """Appends to the history; returns from where on log lines are owed, or null if none are.

        A first listing is owed a line even if it is empty.
        """
        last = _head(self._db)
        head = last.hash
        not_before, name = self.known.not_before, self._repository.full_name
        rows: list[tuple[Any, ...]] = []
        described = zip(entry.changes, entry.fields, strict=True)
        for change_id, (change, fields) in enumerate(described, last.change_id + 1):
            happened = (change.tag, change.kind, change.old_digest, change.new_digest, fields)
            head = link(head, change_id, name, *happened, not_before, at)
            rows.append((change_id, repository_id, *happened, not_before, at, head))
        insert_rows(self._db, _INSERT_CHANGES, rows)
        return last.change_id + 1 if rows or not_before is None else None

    def _mirror(self, repository_id: int, entry: Entry, at: str) -> None:
        insert_rows(self._db, _UPSERT_TAG, [(repository_id, *tag, at, at) for tag in entry.tags])
        self._db.executemany(
            "DELETE FROM tags WHERE repository_id = ? AND tag = ?",
            ((repository_id, change.tag) for change in entry.changes if change.kind == "deleted"),
        )

    def _observe(
        self,
        repository_id: int,
        outcome: ObservedOutcome,
        detail: str | None,
        at: str,
        interval: timedelta,
        tags: int | None,
        newest: dict[str, Any] | None = None,
    ) -> None:
        """Lets the newest observation grow, or begins one after a difference or a hole."""
        last = newest or self._last_observation("")
        if (
            last
            and last["outcome"] == outcome
            and _same_but_for_times(last["detail"], detail)
            and parse_timestamp(at) - parse_timestamp(last["last_at"]) <= 2 * interval
        ):
            self._db.execute(
                "UPDATE observations SET last_at = ?, polls = polls + 1, tags = ? WHERE id = ?",
                (at, tags, last["id"]),
            )
            return
        self._db.execute(
            "INSERT INTO observations (repository_id, outcome, detail, first_at, last_at, polls,"
            " tags) VALUES (?, ?, ?, ?, ?, 1, ?)",
            (repository_id, outcome, detail, at, at, tags),
        )

    def _last_observation(self, condition: str) -> dict[str, Any] | None:
        columns = ("id", "outcome", "detail", "last_at", "tags")
        row = self._db.execute(
            f"SELECT {', '.join(columns)} FROM observations WHERE repository_id = ? {condition}"  # noqa: S608  constants
            " ORDER BY id DESC LIMIT 1",
            (self.known.id,),
        ).fetchone()
        return dict(zip(columns, row, strict=True)) if row else None


def _known(row: Sequence[Any]) -> Known:
    """What a row says, if it is of the form that it was written in.

    Raises:
        ValueError, TypeError, msgspec.ValidationError: it is not.
    """
    known = msgspec.convert(msgspec.structs.asdict(Known(*row)), Known)
    for moment in (known.last_attempt_at, known.last_complete_at, known.not_before):
        _moment(moment)
    return known


def _moment(text: str | None) -> str | None:
    """The same text, if it is one that `timestamp` writes.

    Raises:
        ValueError, TypeError: it is not.
    """
    if text is not None and timestamp(parse_timestamp(text)) != text:
        raise ValueError("no time of ours")
    return text


def _follows(change: Change, history: Iterable[tuple[str, str]]) -> bool:
    """Whether a change's old values are what the changes of its tag before it left.

    Args:
        change: one that is not recorded yet.
        history: the kind and the fields of each, newest first, read no further than needed.
    """
    wanted = {name: old for name, (old, _) in change.fields.items()}
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


def _head(db: Connection) -> Head:
    row = db.execute("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, GENESIS)


def _beginning(listing: Listing | Unchanged) -> str:
    """When a listing began; no later than it ended, if the clock was set back between the two."""
    return min(listing.started_at, listing.finished_at)


def _reason(detail: str | None) -> str | None:
    """What an observation says, without what the clock said."""
    reason, behind, _ = (detail or "").partition(_BEHIND)
    return reason.removesuffix("; ") or None if behind else detail


def _same_but_for_times(one: str | None, other: str | None) -> bool:
    """Whether two observations say the same, the clock being behind in both or in neither."""
    behind = [_BEHIND in (detail or "") for detail in (one, other)]
    return behind[0] == behind[1] and _reason(one) == _reason(other)


_BOOLEANS: Final = tuple(Tag.__struct_fields__.index(name) for name in ("is_trusted", "scanned"))


def _tag(row: Sequence[Any]) -> Tag:
    """A row of ``tags``: SQLite keeps booleans as 0 and 1, and the history should not show that."""
    values = list(row)
    for index in _BOOLEANS:
        if values[index] is not None:
            values[index] = bool(values[index])
    return Tag(*values)


def _names_of(images: Iterable[Image]) -> dict[str, Names]:
    return names_of((image.digest, image.manifest, image.image_id) for image in images)


def _filling_row(image: Image) -> tuple[Any, ...]:
    about = (image.image_id, image.media_type, image.schema, image.size)
    return (image.manifest, *about, image.digest)
