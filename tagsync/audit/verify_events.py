"""Verify that the events of the outbox are those of the changes."""

from collections import Counter
from itertools import zip_longest
from typing import Final

from tagsync.audit.faults import VerificationFault
from tagsync.database.connection import Connection

_OF_CHANGES: Final = "('added', 'moved', 'updated', 'deleted')"
_IS_MOVE: Final = "c.kind = 'updated' AND coalesce(c.old_digest <> c.new_digest, 0)"
_FITS: Final = f"""
    CASE e.kind
        WHEN 'moved' THEN {_IS_MOVE}
        WHEN 'updated' THEN c.kind = 'updated' AND NOT ({_IS_MOVE})
        WHEN 'immutable_moved' THEN c.new_digest IS NOT NULL
        WHEN 'immutable_deleted' THEN c.kind = 'deleted'
        ELSE e.kind = c.kind
    END
"""
"""SQL expression: whether the kind of an event fits its change."""

_WRONG_EVENT_SQL: Final = f"""
    SELECT e.id, e.kind, e.change_id, c.id
    FROM events AS e LEFT JOIN changes AS c ON c.id = e.change_id
    WHERE CASE
        WHEN e.kind IN {_OF_CHANGES} OR e.kind IN ('immutable_moved', 'immutable_deleted') THEN
            c.not_before IS NULL OR e.repository_id IS NOT c.repository_id OR e.tag IS NOT c.tag
            OR e.at IS NOT c.observed_at OR NOT ({_FITS})
        ELSE e.change_id IS NOT NULL
    END
    ORDER BY e.id LIMIT 1
"""  # noqa: S608  constants
_CHANGES_SQL: Final = "SELECT id FROM changes WHERE not_before IS NOT NULL ORDER BY id"
_CHANGES_WITH_EVENTS_SQL: Final = (
    f"SELECT change_id FROM events WHERE kind IN {_OF_CHANGES} ORDER BY id"  # noqa: S608  constant
)
_WRONG_ACCEPTANCE_SQL: Final = """
    SELECT change_id FROM acceptances AS a WHERE NOT EXISTS (
        SELECT 1 FROM events
        WHERE kind IN ('immutable_moved', 'immutable_deleted') AND change_id = a.change_id
    ) LIMIT 1
"""


def check_events(db: Connection, read: Counter[str]) -> None:
    """Check that the events have no gap, and that each change has the event that says what it did.

    The changes of the first listing of a repository have none. Events are written in the order of
    their changes.

    Args:
        db: The connection.
        read: Receives the number of events.

    Raises:
        VerificationFault: If an event is missing, or says something else than its change; or if a
            change that has no alarm was accepted.
    """
    first, last, count = db.execute("SELECT min(id), max(id), count(*) FROM events").fetchone()
    read[""] = count
    if count and (first, last) != (1, count):
        raise VerificationFault(
            f"the {count} events are not numbered from 1 to {count}, but from {first} to {last}"
        )
    if row := db.execute(_WRONG_EVENT_SQL).fetchone():
        raise VerificationFault(_about_wrong_event(*row))
    changes = (number for (number,) in db.execute(_CHANGES_SQL))
    reported = (number for (number,) in db.execute(_CHANGES_WITH_EVENTS_SQL))
    for change, event in zip_longest(changes, reported):
        if change != event:
            raise VerificationFault(_about_wrong_order(change, event))
    if row := db.execute(_WRONG_ACCEPTANCE_SQL).fetchone():
        raise VerificationFault(
            f"change {row[0]} is accepted, but it is no change of an immutable tag"
        )


def _about_wrong_event(number: int, kind: str, change_id: int | None, found: int | None) -> str:
    if change_id is None:
        return f"event {number} ({kind}) names no change"
    if found is None:
        return f"event {number} ({kind}) names change {change_id}, which is missing"
    return f"event {number} ({kind}) does not say what change {change_id} did"


def _about_wrong_order(change: int | None, event: int | None) -> str:
    if event is None or (change is not None and change < event):
        return f"change {change} has no event"
    return f"change {event} has more than one event, or its event is not in its place"
