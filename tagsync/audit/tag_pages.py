"""Choose the tags of one page, so that replaying their changes has a bounded cost.

A state at a moment is the sum of the changes before it. A page therefore has as many tags as have
`MOST_CHANGES` changes together, but at least one.
"""

from typing import Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.models import Repository

MOST_TAGS: Final = 100
"""Maximum number of tags on a page."""

MOST_CHANGES: Final = 5_000
"""Maximum number of changes of the tags on a page, if it has more than one tag."""

_NO_ID: Final = 2**62
"""A number that is larger than the id of every change."""

_ID_SQL: Final = "SELECT id FROM repositories WHERE registry = ? AND name = ?"

_TAGS_SQL: Final = """
    SELECT tag, count(*) FROM changes WHERE repository_id = ? AND tag > ?
    GROUP BY tag ORDER BY tag LIMIT ?
"""
_FIRST_SQL: Final = """
    SELECT id, observed_at FROM changes INDEXED BY changes_of_repository
    WHERE repository_id = ? AND id >= ? ORDER BY id LIMIT 1
"""
_LAST_SQL: Final = "SELECT coalesce(max(id), 0) FROM changes WHERE repository_id = ?"

_CHANGED_SQL: Final = """
    SELECT tag FROM changes INDEXED BY changes_of_repository
    WHERE repository_id = ? AND id >= ? AND id < ? LIMIT ?
"""
_POSSIBLE_SQL: Final = """
    SELECT tag FROM changes INDEXED BY changes_of_repository
    WHERE repository_id = ? AND id >= ? AND observed_at = ? AND coalesce(not_before, '') < ?
    LIMIT ?
"""
_COUNT_SQL: Final = "SELECT count(*) FROM changes WHERE repository_id = ? AND tag = ?"


class TagPage(NamedTuple):
    """Some tags of a repository, in alphabetical order.

    Attributes:
        tags: The tags.
        changes: Number of changes that these tags have.
        after: The last tag that was considered. None if no tags follow.
    """

    tags: list[str]
    changes: int
    after: str | None


def tags_after(
    db: Connection, repository: Repository, after: str, most: int = MOST_CHANGES
) -> TagPage:
    """Return a page of the tags that were ever recorded.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        after: Leave out the tags up to this one.
        most: Maximum number of changes of the tags, if there is more than one tag.
    """
    rows = db.execute(_TAGS_SQL, (_number(db, repository), after, MOST_TAGS + 1)).fetchall()
    return _page(rows, most)


def changed_between(
    db: Connection,
    repository: Repository,
    start: str,
    end: str | None,
    after: str,
    most: int = MOST_CHANGES,
) -> TagPage:
    """Return a page of the tags that may have changed between two moments.

    No other tag can differ between them. If the repository has more than `MOST_CHANGES` changes in
    this time, the page is one of all tags.

    Args:
        db: A connection to the database.
        repository: A recorded repository.
        start: The first moment, as `tagsync.clock.timestamp` writes it.
        end: The second moment in the same form. None means the last listing.
        after: Leave out the tags up to this one.
        most: As for `tags_after`.
    """
    number = _number(db, repository)
    limit = MOST_CHANGES + 1
    first, _ = _first_after(db, number, start)
    last, listing = _first_after(db, number, end) if end else (_NO_ID, None)
    rows = db.execute(_CHANGED_SQL, (number, first, last, limit)).fetchall()
    if listing is not None:
        # The changes of the next listing may have happened before the moment.
        rows += db.execute(_POSSIBLE_SQL, (number, last, listing, end, limit)).fetchall()
    if len(rows) > MOST_CHANGES:
        return tags_after(db, repository, after, most)
    tags = sorted({tag for (tag,) in rows if tag > after})[: MOST_TAGS + 1]
    counts = [(tag, db.execute(_COUNT_SQL, (number, tag)).fetchone()[0]) for tag in tags]
    return _page(counts, most)


def _number(db: Connection, repository: Repository) -> int:
    row = db.execute(_ID_SQL, (repository.registry, repository.name)).fetchone()
    return int(row[0])


def _first_after(db: Connection, number: int, moment: str) -> tuple[int, str | None]:
    """Return the id and the time of a repository's first change after a moment.

    The changes of a repository are in the order of time. Without a later change, the id is greater
    than that of each change, and the time is None.
    """
    (newest,) = db.execute(_LAST_SQL, (number,)).fetchone()
    low, high, at = 1, int(newest) + 1, None
    while low < high:
        middle = (low + high) // 2
        # There is one, because the newest change has a greater id.
        identifier, observed_at = db.execute(_FIRST_SQL, (number, middle)).fetchone()
        if observed_at > moment:
            high, at = middle, observed_at
        else:
            low = int(identifier) + 1
    return low, at


def _page(counts: list[tuple[str, int]], most: int) -> TagPage:
    """Return the first tags that have at most so many changes together, but at least one."""
    tags: list[str] = []
    total = 0
    for tag, count in counts[:MOST_TAGS]:
        if tags and total + count > most:
            break
        tags.append(tag)
        total += count
    return TagPage(tags, total, tags[-1] if len(tags) < len(counts) else None)
