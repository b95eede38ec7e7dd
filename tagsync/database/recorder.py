"""Record one poll: its observation, changes and images, and the mirror.

All functions run within the caller's transaction, so a poll is recorded completely or not at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import astuple, replace

from tagsync.database.before_poll import read_before
from tagsync.database.connection import Connection
from tagsync.database.daily_changes import count_changes
from tagsync.database.decoding import (
    Count,
    Fields,
    Timestamp,
    damaged,
    decode,
    decode_fields,
)
from tagsync.database.digest_index import index_images, unindex_images
from tagsync.database.events import append_events, read_violations
from tagsync.database.hash_chain import GENESIS, REPOSITORY_COLUMNS, Head, link, read_head
from tagsync.database.observations import observe, observe_damage, poll_time, read_newest
from tagsync.database.outcomes import (
    NO_LINES,
    Accepted,
    Damaged,
    Failed,
    Held,
    Outcome,
    PendingLog,
    Violation,
)
from tagsync.database.poll_events import events_of, events_of_damage, find_violations
from tagsync.database.resolution import not_before_of, unresolved_after
from tagsync.database.state import TAG_COLUMNS, RepositoryState, read_state, row_values
from tagsync.models import FIELDS, Change, Image, RecordedChange, Repository, Unchanged

_NEXT_REPOSITORY: Final = "SELECT coalesce(max(id), 0) + 1 FROM repositories"
_INSERT_REPOSITORY: Final = f"""
    INSERT INTO repositories ({", ".join(REPOSITORY_COLUMNS)}, hash)
    VALUES ({", ".join("?" * (len(REPOSITORY_COLUMNS) + 1))})
"""  # noqa: S608  constants
_UPDATE_REPOSITORY: Final = f"""
    UPDATE repositories SET {", ".join(f"{name} = ?" for name in REPOSITORY_COLUMNS[3:])}, hash = ?
    WHERE id = ?
"""  # noqa: S608  constants
_NEXT_PENDING: Final = "SELECT min(id) FROM changes WHERE id > ? AND repository_id = +?"
_INSERT_CHANGE: Final = """
    INSERT INTO changes (repository_id, id, tag, kind, old_digest, new_digest, fields, not_before,
                         observed_at, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PENDING_CHANGES: Final = """
    SELECT id, tag, kind, old_digest, new_digest, fields, not_before, observed_at, hash
    FROM changes WHERE id >= ? AND repository_id = +? ORDER BY id
"""
_CHANGES_OF_TAG: Final = """
    SELECT id, tag, kind, old_digest, new_digest, fields, not_before, observed_at, hash,
           (SELECT hash FROM changes AS b WHERE b.id = c.id - 1)
    FROM changes AS c WHERE repository_id = ? AND tag = ? ORDER BY id DESC
"""
_TIMES: Final = ("changed_at", "unresolved_since")
_UPSERT_TAG: Final = f"""
    INSERT INTO tags (repository_id, {", ".join(TAG_COLUMNS)}, first_observed_at, changed_at,
                      unresolved_since)
    VALUES ({", ".join("?" * (len(TAG_COLUMNS) + 4))})
    ON CONFLICT (repository_id, tag) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in (*FIELDS, *_TIMES))}
"""  # noqa: S608  the names are the attributes of Tag
_UNRESOLVED_TAGS: Final = """
    SELECT tag, unresolved_since FROM tags
    WHERE repository_id = ? AND unresolved_since IS NOT NULL
"""
_MARK_UNRESOLVED: Final = """
    UPDATE tags SET unresolved_since = ? WHERE repository_id = ? AND tag = ?
"""
_DELETE_TAG: Final = "DELETE FROM tags WHERE repository_id = ? AND tag = ?"
_RECORDED_IMAGES: Final = """
    SELECT digest, id, image_id, verified IS 1 FROM images
    WHERE digest IN (SELECT value FROM json_each(?))
"""
_INSERT_IMAGE: Final = """
    INSERT INTO images (id, digest, image_id, media_type, schema, size, manifest, verified,
                        first_observed_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FILL_IN_IMAGE: Final = """
    UPDATE images SET image_id = ?, media_type = ?, schema = ?, size = ?, manifest = ?,
        verified = 1
    WHERE id = ?
"""
_encode = msgspec.json.Encoder().encode


def record(
    db: Connection,
    repository: Repository,
    outcome: Outcome,
    *,
    seen: RepositoryState,
    interval: timedelta,
    immutable: Sequence[str] = (),
) -> PendingLog | None:
    """Record the outcome of one poll, and its events.

    A listing is dropped if it was overtaken; see `is_overtaken`.

    Args:
        db: Within a write transaction.
        repository: The repository that was polled.
        outcome: The outcome of the poll.
        seen: The state that the poll read when it began.
        interval: Planned time between two polls. After more than twice this time there is a gap,
            and a new observation begins.
        immutable: Globs of the tags that must not move.

    Returns:
        The pending log lines of the repository, or None if the listing was dropped.

    Raises:
        DamagedRecord: If the changes do not continue the recorded history, the repository's row
            does not have its checksum, or a row that is read cannot be decoded.
    """
    state = read_state(db, repository)
    if is_overtaken(outcome, state, seen):
        return None
    time = poll_time(outcome, state, seen)
    head = read_head(db) if isinstance(outcome, Accepted) else None
    after = _advance(state, outcome, time.at, head)
    repository_id = _write_repository(db, repository, after)
    newest = None if state.id is None else read_newest(db, repository_id)
    listed = state.not_before is not None
    before = read_before(db, repository_id, outcome, newest, listed=listed)
    changes: list[RecordedChange] = []
    if isinstance(outcome, Accepted) and head is not None:
        began = state.not_before or after.not_before
        assert began is not None, "an accepted listing has a start"  # noqa: S101  tells the type checker
        changes = _record_listing(
            db, repository, repository_id, outcome, head, time.at, began, listed=listed
        )
    violations = find_violations(changes, before.digests, immutable)
    append_events(db, events_of(outcome, changes, violations, before, repository_id, time.at))
    observe(db, repository_id, outcome, time, interval, newest)
    if state.unlogged_from is not None:
        return _still_pending(db, repository_id, state.unlogged_from)
    return _pending(db, outcome, state, changes, violations)


def record_damage(
    db: Connection, repository: Repository, damage: Damaged, interval: timedelta
) -> None:
    """Record that a poll failed because the repository's record is damaged, and its event.

    Without a row for the repository nothing is recorded.

    Args:
        db: Within a write transaction.
        repository: The repository.
        damage: The damage, and when the poll found it.
        interval: As in `record`.

    Raises:
        DamagedRecord: If the newest observation is damaged, too.
    """
    row = db.execute(
        "SELECT id FROM repositories WHERE registry = ? AND name = ?",
        (repository.registry, repository.name),
    ).fetchone()
    if row is None:
        return
    newest = read_newest(db, row[0])
    at = max(damage.finished_at, newest.last_at if newest else "")
    append_events(
        db, events_of_damage(damage, newest.result.outcome if newest else None, row[0], at)
    )
    observe_damage(db, row[0], damage, at, interval, newest)


def is_overtaken(outcome: Outcome, state: RepositoryState, seen: RepositoryState) -> bool:
    """Return whether another listing has been recorded since a poll began.

    The poll's listing may then be older than the recorded one. The check compares versions, not
    times, because a version counts the listings of all processes and a clock may be set back. A
    failed poll has no listing, so it cannot be overtaken.
    """
    return not isinstance(outcome, Failed) and state.version != seen.version


def acknowledge(db: Connection, repository: Repository, through: int) -> None:
    """Record that the log lines of a repository's changes were written.

    Args:
        db: Within a write transaction.
        repository: The repository.
        through: Id of the newest change that was logged. The lines of later changes stay pending.

    Raises:
        DamagedRecord: If the repository's row does not have its checksum.
    """
    state = read_state(db, repository)
    if state.unlogged_from is None or state.unlogged_from > through + 1:
        return
    (pending_from,) = db.execute(_NEXT_PENDING, (through, state.id)).fetchone()
    _write_repository(db, repository, replace(state, unlogged_from=pending_from))


def _advance(
    state: RepositoryState, outcome: Outcome, at: str, head: Head | None
) -> RepositoryState:
    """Return the repository's state after a poll.

    Args:
        state: The state before the poll.
        outcome: The outcome of the poll.
        at: The recorded time of the poll.
        head: The newest change before the poll. Needed only if the outcome is `Accepted`.
    """
    if isinstance(outcome, Failed):
        return replace(
            state, last_attempt_at=at, failures=state.failures + 1, last_error=str(outcome.error)
        )
    listed = replace(
        state, last_attempt_at=at, failures=0, version=state.version + 1, last_error=None
    )
    if isinstance(outcome, Held):
        return replace(listed, last_error=outcome.detail)
    listing = outcome if isinstance(outcome, Unchanged) else outcome.listing
    # If the clock was set back while the listing was read, the start is later than the end. The
    # earlier of the two is then the safe lower limit for the time of the next change.
    began = min(listing.started_at, listing.finished_at)
    complete = replace(listed, last_complete_at=at, not_before=began)
    if isinstance(outcome, Unchanged) or head is None:
        return complete
    pending_from = state.unlogged_from
    if pending_from is None and (outcome.changes or state.not_before is None):
        pending_from = head.change_id + 1
    return replace(
        complete,
        first_observed_at=state.first_observed_at or at,
        listing_hash=outcome.listing.fingerprint,
        unlogged_from=pending_from,
    )


def _record_listing(
    db: Connection,
    repository: Repository,
    repository_id: int,
    accepted: Accepted,
    head: Head,
    at: str,
    began: str,
    *,
    listed: bool,
) -> list[RecordedChange]:
    """Record a listing: its images and changes, and the mirror. Return the changes.

    Args:
        db: Within a write transaction.
        repository: The repository.
        repository_id: The value of ``repositories.id``.
        accepted: The listing, and what it changes.
        head: The newest change before the poll.
        at: The recorded time of the poll.
        began: Start of the last recorded listing, or of this one if it is the first.
        listed: Whether a listing was recorded before.
    """
    _record_images(db, accepted, at)
    if listed:
        _check_continuity(db, repository, repository_id, accepted.changes)
    unresolved = _read_unresolved(db, repository, repository_id)
    not_before = not_before_of(accepted.changes, began if listed else None, unresolved)
    changes = list(_chained(accepted.changes, not_before, repository, head, at))
    db.executemany(_INSERT_CHANGE, ((repository_id, *astuple(row)) for row in changes))
    count_changes(db, repository_id, changes)
    unresolved_now = unresolved_after(accepted.listing, unresolved, began)
    _update_tags(db, repository_id, accepted, at, unresolved_now)
    _mark_unresolved(db, repository_id, unresolved, unresolved_now)
    return changes


def _write_repository(db: Connection, repository: Repository, state: RepositoryState) -> int:
    """Write the repository's row and return its id."""
    if state.id is None:
        (number,) = db.execute(_NEXT_REPOSITORY).fetchone()
        state = replace(state, id=number)
        db.execute(_INSERT_REPOSITORY, row_values(repository, state))
    else:
        number = state.id
        db.execute(_UPDATE_REPOSITORY, (*row_values(repository, state)[3:], number))
    return int(number)


def _record_images(db: Connection, accepted: Accepted, at: str) -> None:
    """Record new images, and the manifests of images that were recorded without the right one.

    An image is new if a change or an index references it and it is not recorded yet. A recorded
    image whose manifest is missing or wrong becomes what it would be if the right one had come
    first.
    """
    listing = accepted.listing
    images = {**listing.images, **listing.children}
    new = {change.new_digest for change in accepted.changes} | listing.children.keys()
    wanted = [digest for digest, image in images.items() if digest in new or image.verified]
    recorded = _recorded_images(db, wanted)
    (last,) = db.execute("SELECT max(0, coalesce(max(id), 0)) FROM images").fetchone()
    added: dict[int, Image] = {}
    filled: dict[int, Image] = {}
    for digest in wanted:
        row = recorded.get(digest)
        if row is None and digest in new:
            added[last + len(added) + 1] = images[digest]
        elif row is not None and not row.verified and images[digest].verified:
            filled[row.id] = images[digest]
    db.executemany(
        _INSERT_IMAGE, ((number, *astuple(image), at) for number, image in added.items())
    )
    db.executemany(_FILL_IN_IMAGE, map(_filling_row, filled, filled.values()))
    unindex_images(db, ((row.id, row.image_id) for row in recorded.values() if row.id in filled))
    index_images(
        db,
        (
            (number, image.manifest, image.image_id, image.verified)
            for number, image in (added | filled).items()
        ),
    )


class _RecordedImage(NamedTuple):
    """The columns of a recorded image that decide whether it is filled in."""

    id: int
    image_id: str | None
    verified: int


def _recorded_images(db: Connection, digests: Sequence[str]) -> dict[str, _RecordedImage]:
    """Return the images that are recorded, by digest."""
    rows = db.execute(_RECORDED_IMAGES, (_encode(digests).decode(),))
    return {digest: _RecordedImage(*columns) for digest, *columns in rows}


def _filling_row(number: int, image: Image) -> tuple[Any, ...]:
    about = (image.image_id, image.media_type, image.schema, image.size)
    return (*about, image.manifest, number)


def _chained(
    changes: Sequence[Change],
    not_before: Sequence[str | None],
    repository: Repository,
    head: Head,
    at: str,
) -> Iterator[RecordedChange]:
    """Yield the changes as the history stores them, each with its id and its hash."""
    digest = head.hash
    rows = zip(changes, not_before, strict=True)
    for number, (change, begins) in enumerate(rows, head.change_id + 1):
        fields = _encode(change.fields).decode()
        content = (change.tag, change.kind, change.old_digest, change.new_digest, fields)
        digest = link(digest, number, repository.full_name, *content, begins, at)
        yield RecordedChange(number, *content, begins, at, digest)


def _read_unresolved(db: Connection, repository: Repository, repository_id: int) -> dict[str, str]:
    """Return ``unresolved_since`` of each unresolved tag, by tag.

    Raises:
        DamagedRecord: If a time does not have the form in which tagsync writes it.
    """
    what = f"the tags of {repository.full_name}"
    rows = db.execute(_UNRESOLVED_TAGS, (repository_id,)).fetchall()
    return dict(decode(rows, list[tuple[str, Timestamp]], what))


def _mark_unresolved(
    db: Connection, repository_id: int, before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Write since when tags are unresolved, for each tag that begins or ends to be so."""
    rows = ((after.get(tag), repository_id, tag) for tag in before.keys() ^ after.keys())
    db.executemany(_MARK_UNRESOLVED, rows)


def _update_tags(
    db: Connection,
    repository_id: int,
    accepted: Accepted,
    at: str,
    unresolved: Mapping[str, str],
) -> None:
    """Make the mirror equal to the listing."""
    tags = accepted.listing.tags
    db.executemany(
        _UPSERT_TAG,
        (
            (repository_id, *astuple(tags[change.tag]), at, at, unresolved.get(change.tag))
            for change in accepted.changes
            if change.kind != "deleted"
        ),
    )
    db.executemany(
        _DELETE_TAG,
        ((repository_id, c.tag) for c in accepted.changes if c.kind == "deleted"),
    )


def _check_continuity(
    db: Connection, repository: Repository, repository_id: int, changes: Iterable[Change]
) -> None:
    """Check that each change continues its tag's history.

    Changes are computed from the mirror, so a damaged row of the mirror would lead to a wrong
    change. The history is append-only, so a wrong change could not be removed from it.

    Raises:
        DamagedRecord: If a change does not continue the history, or the tag's last recorded change
            does not have the hash of its content.
    """
    for change in changes:
        what = f"{repository.full_name} tag {change.tag!r}"
        rows = db.execute(_CHANGES_OF_TAG, (repository_id, change.tag))
        last = rows.fetchone()
        if last is not None:
            number, *content, digest, before = decode(last, _ChangeOfTag, what)
            if link(before or GENESIS, number, repository.full_name, *content) != digest:
                raise damaged(what, f"change {number} does not have the hash of its content")
        history = (
            (row[2], decode_fields(row[5], what)) for row in chain([last] if last else [], rows)
        )
        if not _continues(change, history):
            raise damaged(what, "it differs from the result of its changes")


_ChangeOfTag = tuple[Count, str, str, str | None, str | None, str, str | None, str, str, str | None]
"""The columns of `_CHANGES_OF_TAG`."""


def _continues(change: Change, history: Iterable[tuple[str, Fields]]) -> bool:
    """Return whether a change's old values are those that earlier changes give.

    Args:
        change: A change that is not recorded yet.
        history: Kind and fields of each recorded change of the tag, the newest first. Only as many
            changes as needed are read.
    """
    expected = {name: old for name, (old, _) in change.fields.items()}
    exists = False
    for kind, fields in history:
        if kind == "deleted":
            break
        exists = True
        for name, (_, new) in fields.items():
            if expected.pop(name, new) != new:
                return False
        if not expected or kind == "added":
            break
    # A field that no change has contained since the tag was added is None.
    return exists == (change.kind != "added") and all(old is None for old in expected.values())


def _pending(
    db: Connection,
    outcome: Outcome,
    state: RepositoryState,
    changes: Sequence[RecordedChange],
    violations: Mapping[int, Violation],
) -> PendingLog:
    """Return the log lines of the poll that was just recorded.

    The same transaction marks the lines as pending. If the process is killed after the commit and
    before it has written the lines, the next poll writes them.
    """
    if not isinstance(outcome, Accepted):
        return NO_LINES
    if state.not_before is None:
        return PendingLog(len(changes), (), read_head(db).change_id)
    return PendingLog(None, changes, changes[-1].id, violations) if changes else NO_LINES


def _still_pending(db: Connection, repository_id: int, first: int) -> PendingLog:
    """Return the pending log lines of earlier polls and of this poll."""
    changes = [RecordedChange(*row) for row in db.execute(_PENDING_CHANGES, (first, repository_id))]
    news = [change for change in changes if change.not_before is not None]
    # A pending line without a change is about the first listing of an empty repository.
    baseline = len(changes) - len(news) if changes else 0
    through = read_head(db).change_id
    violations = read_violations(db, repository_id, first) if news else {}
    return PendingLog(baseline if baseline or not changes else None, news, through, violations)
