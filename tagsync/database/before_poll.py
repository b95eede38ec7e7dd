"""Read the record of a repository before a poll, as far as the poll's events depend on it."""

from collections.abc import Iterable, Set
from typing import Final

import msgspec

from tagsync.database.connection import Connection
from tagsync.database.observations import Newest, was_held
from tagsync.database.outcomes import Accepted, Held, Outcome
from tagsync.database.poll_events import Before
from tagsync.models import Change, Listing

_LAST_DIGEST: Final = """
    SELECT coalesce(new_digest, old_digest) FROM changes
    WHERE repository_id = ? AND tag = ? AND coalesce(new_digest, old_digest) IS NOT NULL
    ORDER BY id DESC LIMIT 1
"""
_UNVERIFIED: Final = """
    SELECT tag, json_extract(iif(json_valid(detail), detail, '{}'), '$.digest') FROM events
    WHERE kind = 'unverified' AND repository_id = ? AND tag IN (SELECT value FROM json_each(?))
"""


def read_before(
    db: Connection, repository_id: int, outcome: Outcome, newest: Newest | None, *, listed: bool
) -> Before:
    """Return the record of a repository before a poll.

    Nothing is queried for a poll that returned the recorded listing again.

    Args:
        db: Within the transaction of the poll, before its changes and observation are recorded.
        repository_id: The value of ``repositories.id``.
        outcome: The outcome of the poll.
        newest: The newest observation. None if there is none.
        listed: Whether a listing was recorded before.
    """
    return Before(
        newest.result.outcome if newest else None,
        listed,
        was_held=isinstance(outcome, Held) and was_held(db, repository_id, outcome, newest),
        digests=_last_digests(db, repository_id, outcome.changes)
        if listed and isinstance(outcome, Accepted)
        else {},
        unverified=_reported_unverified(db, repository_id, outcome.listing)
        if isinstance(outcome, Accepted) and outcome.listing.unverified
        else frozenset(),
    )


def _last_digests(db: Connection, repository_id: int, changes: Iterable[Change]) -> dict[str, str]:
    """Return `Before.digests`."""
    found = {}
    for change in changes:
        if change.old_digest is None:
            row = db.execute(_LAST_DIGEST, (repository_id, change.tag)).fetchone()
            if row is not None:
                found[change.tag] = row[0]
    return found


def _reported_unverified(db: Connection, repository_id: int, listing: Listing) -> Set[str]:
    """Return `Before.unverified`."""
    names = msgspec.json.encode(listing.unverified).decode()
    rows = db.execute(_UNVERIFIED, (repository_id, names)).fetchall()
    return frozenset(tag for tag, digest in rows if listing.tags[tag].digest == digest)
