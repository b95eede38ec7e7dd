"""The queries of the pages. For each page, a function returns the data."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tagsync.audit.immutable_changes import OPEN, ImmutableFilter
from tagsync.audit.questions import QUESTIONS
from tagsync.models import Repository
from tagsync.web.snapshot import Query, Snapshot

Row = dict[str, Any]

LATEST: Final = 5
"""Maximum number of changes on the front page, those of immutable tags at its top included."""

IMMUTABLE: Final = 5
"""Maximum number of changes of immutable tags at the top of a page of a repository or tag."""

IMMUTABLE_FRONT: Final = 3
"""Maximum number of changes of immutable tags on the front page."""

WORST: Final = 3
"""Maximum number of repositories on the front page."""

PAGE: Final = 100
"""Maximum number of repositories, tags, changes or gaps on a page."""

HISTORY: Final = 1000
"""Maximum number of changes, and of intervals, on the page of a tag."""

NO_CHANGE: Final = 2**62
"""A number that is larger than the id of every change."""

MOST_READ: Final = 50_000
"""Maximum number of changes that one list reads, to find those that are not of first listings."""

_NEVER: Final = "9999"
"""A text that sorts after every recorded time."""

_GAPS_SQL: Final = next(question.sql for question in QUESTIONS if question.slug == "holes")

_REPOSITORIES_SQL: Final = """
    SELECT r.id, r.registry, r.name, r.full_name AS repository, r.first_observed_at,
           r.last_complete_at, r.last_attempt_at, r.failures, o.outcome, o.reasons,
           iif(o.reasons = 'damaged', o.detail, r.last_error) AS last_error,
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1) AS tags
    FROM repositories AS r
    LEFT JOIN observations AS o ON o.id =
        (SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1)
"""

_TOTALS_SQL: Final = """
    SELECT count(*) AS repositories, min(first_observed_at) AS since,
           max(last_complete_at) AS newest,
           coalesce((SELECT max(id) FROM changes), 0) AS changes,
           total((SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
                  ORDER BY id DESC LIMIT 1)) AS tags
    FROM repositories AS r
"""

_STATES_SQL: Final = """
    SELECT r.id, r.registry, r.name, r.last_complete_at, o.outcome, o.reasons
    FROM repositories AS r
    LEFT JOIN observations AS o ON o.id =
        (SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1)
"""

_LAST_CHANGE_SQL: Final = "SELECT coalesce(max(id), 0) FROM changes"

_CHANGES_SQL: Final = """
    SELECT id, repository, tag, kind, moved, old_digest, new_digest, fields, not_before, observed_at
    FROM change_log
"""

_INTERVALS_SQL: Final = """
    SELECT digest, not_before, valid_from, still_at, valid_to FROM tag_history
    WHERE repository_id = :repository_id AND tag = :tag
    ORDER BY valid_from DESC LIMIT :limit
"""


def front(record: Snapshot) -> Row:
    """Return the data of the front page: alarms, freshness, latest changes, some repositories."""
    judged = [_judged(record, row) for row in record.query(_STATES_SQL, {})]
    worst = sorted(judged, key=_severity)[:WORST]
    alarms = immutable(record, limit=IMMUTABLE_FRONT)
    # Each alarm takes the place of a change, so that the page keeps its height.
    latest = LATEST - len(alarms["changes"])
    return {
        "summary": summary(record, judged),
        "immutable": alarms,
        "latest": changes(record, NO_CHANGE, latest)["changes"],
        "repositories": [
            _judged(record, row)
            for each in worst
            for row in record.query(f"{_REPOSITORIES_SQL} WHERE r.id = :id", {"id": each["id"]})
        ],
    }


def summary(record: Snapshot, judged: Iterable[Row]) -> Row:
    """Return the facts of the whole record: its freshness, and how many repositories it has.

    Args:
        record: The record.
        judged: A row for each repository, with its ``state`` and whether it is ``stale``.

    Returns:
        ``counts`` has the number of repositories in each state, and the numbers of those that are
        ``stale`` and of those that are ``watched``.
    """
    counts: Counter[str] = Counter()
    for row in judged:
        counts[row["state"]] += 1
        counts["stale"] += row["stale"] is True
        counts["watched"] += row["stale"] is not None
    (totals,) = record.query(_TOTALS_SQL, {})
    return {**totals, "counts": counts}


def immutable(record: Snapshot, wanted: ImmutableFilter = OPEN, limit: int = IMMUTABLE) -> Row:
    """Return the newest changes of immutable tags, and the number of all that a filter includes."""
    return {
        "changes": record.audit.immutable_changes(wanted, limit),
        "total": record.audit.count_immutable_changes(wanted),
    }


def repositories(record: Snapshot, search: str, after: str) -> Row:
    """Return a page of the list of repositories.

    Args:
        record: The record.
        search: Return only repositories whose full names contain this text; case is ignored.
        after: Return only repositories that come after this full name in alphabetical order.
    """
    found = record.query(
        f"{_REPOSITORIES_SQL} WHERE instr(lower(repository), lower(:search))"
        " AND repository > :after ORDER BY repository LIMIT :limit",
        {"search": search, "after": after, "limit": PAGE + 1},
    )
    return {
        "repositories": [_judged(record, row) for row in found[:PAGE]],
        "next_after": found[PAGE - 1]["repository"] if len(found) > PAGE else None,
    }


def changes(record: Snapshot, before: int, limit: int = PAGE, most_read: int = MOST_READ) -> Row:
    """Return the newest changes, without the tags of first listings.

    Args:
        record: The record.
        before: The id of a change. Only changes before this one are returned.
        limit: Maximum number of changes.
        most_read: Maximum number of changes to read, those of first listings included.

    Returns:
        ``next_before`` is the value of ``before`` for the changes that follow. It is None if there
        are none.
    """
    ((last,),) = (row.values() for row in record.query(_LAST_CHANGE_SQL, {}))
    newest = min(before, last + 1)
    oldest = max(newest - most_read, 1)
    rows = record.query(
        f"{_CHANGES_SQL} WHERE id >= :oldest AND id < :newest AND not_before IS NOT NULL"
        " ORDER BY id DESC LIMIT :limit",
        {"oldest": oldest, "newest": newest, "limit": limit},
    )
    reached = rows[-1]["id"] if len(rows) == limit else oldest
    return {
        "changes": [{**row, "summary": summarize(row)} for row in rows],
        "next_before": reached if reached > 1 else None,
    }


def first_change_from(record: Snapshot, moment: str) -> int | None:
    """Return the id of the first change that was observed at a moment or later, or None."""
    rows = record.query(
        "SELECT id FROM changes WHERE observed_at >= :moment ORDER BY observed_at, id LIMIT 1",
        {"moment": moment},
    )
    return int(rows[0]["id"]) if rows else None


def repository(record: Snapshot, name: str, before: int) -> Row | None:
    """Return the data of a repository's page: its current tags and its timeline.

    Args:
        record: The record.
        name: Full name of the repository.
        before: The id of a change. Only the part of the timeline before this change is returned.

    Returns:
        The data, or None if the repository was never polled.
    """
    found = record.query(f"{_REPOSITORIES_SQL} WHERE repository = :name", {"name": name})
    if not found:
        return None
    parameters = {"repository_id": found[0]["id"], "before": before, "limit": PAGE + 1}
    tags = record.query(
        "SELECT tag, digest, size, changed_at FROM tags WHERE repository_id = :repository_id"
        " ORDER BY tag LIMIT :limit",
        parameters,
    )
    changes = record.query(
        f"{_CHANGES_SQL} WHERE repository_id = :repository_id AND not_before IS NOT NULL"
        " AND id < :before ORDER BY id DESC LIMIT :limit",
        parameters,
    )
    more = len(changes) > PAGE
    above = record.query("SELECT observed_at FROM changes WHERE id = :before", parameters)
    return {
        "repository": _judged(record, found[0]),
        "immutable": immutable(record, ImmutableFilter(repositories=[name])),
        "tags": tags[:PAGE],
        "more_tags": len(tags) > PAGE,
        "timeline": timeline(
            changes[:PAGE],
            coverage_gaps(record.query, name),
            None if more else _baseline(record, found[0]),
            above[0]["observed_at"] if above else None,
        ),
        "next_before": changes[PAGE - 1]["id"] if more else None,
    }


def _baseline(record: Snapshot, repository: Row) -> Row | None:
    """Return the time of a repository's first listing and its number of tags, or None."""
    first = repository["first_observed_at"]
    if first is None:
        return None
    rows = record.query(
        "SELECT baseline AS tags FROM daily_changes"
        " WHERE day = substr(:first, 1, 10) AND repository_id = :id",
        {"first": first, "id": repository["id"]},
    )
    return {"first_observed_at": first, "tags": rows[0]["tags"] if rows else 0}


def tag(record: Snapshot, name: str, tag_name: str) -> Row | None:
    """Return the data of a tag's page: digests, changes, and gaps in coverage.

    Args:
        record: The record.
        name: Full name of the repository.
        tag_name: Name of the tag.

    Returns:
        The data, or None if no change of the tag is recorded.
    """
    found = record.query(f"{_REPOSITORIES_SQL} WHERE repository = :name", {"name": name})
    if not found:
        return None
    parameters = {"repository_id": found[0]["id"], "tag": tag_name, "limit": HISTORY + 1}
    changes = record.query(
        f"{_CHANGES_SQL} WHERE repository_id = :repository_id AND tag = :tag"
        " ORDER BY id DESC LIMIT :limit",
        parameters,
    )
    if not changes:
        return None
    intervals = record.query(_INTERVALS_SQL, parameters)
    shown = changes[:HISTORY]
    since = shown[-1]["observed_at"]
    gaps = [
        gap for gap in coverage_gaps(record.query, name) if (gap["unseen_until"] or _NEVER) > since
    ]
    return {
        "repository": _judged(record, found[0]),
        "tag": tag_name,
        "immutable": immutable(record, ImmutableFilter(True, [name], tag_name)),
        "intervals": intervals[:HISTORY],
        "more_intervals": len(intervals) > HISTORY,
        "changes": [{**row, "summary": summarize(row)} for row in shown],
        "more_changes": len(changes) > HISTORY,
        "gaps": gaps[:PAGE],
        "more_gaps": len(gaps) - len(gaps[:PAGE]),
    }


def coverage_gaps(query: Query, name: str) -> list[Row]:
    """Return the gaps in a repository's coverage, newest first.

    The SQL is that of the saved question ``holes``.
    """
    return query(_GAPS_SQL, {"repository": name, "minutes": None, "days": "0"})


def summarize(change: Row) -> str:
    """Return ``added``, ``deleted``, ``moved``, or the names of the changed fields."""
    if change["kind"] != "updated":
        return str(change["kind"])
    if change["moved"]:
        return "moved"
    return f"fields: {', '.join(json.loads(change['fields']))}"


def _judged(record: Snapshot, row: Row) -> Row:
    """Return a repository's row with its ``state``, and whether it is ``stale``."""
    repository = Repository(row["registry"], row["name"])
    return {
        **row,
        "state": state(row),
        "stale": record.stale(repository, row["last_complete_at"]),
    }


_SEVERITY: Final = ("never listed", "failing", "held", "gone", "ok")
"""The states of a repository, the worst first."""


def _severity(row: Row) -> tuple[bool, bool, int, str, str]:
    """Return the key that sorts repositories, the worst first and unwatched ones last."""
    return (
        row["stale"] is None,
        not row["stale"],
        _SEVERITY.index(row["state"]),
        row["registry"],
        row["name"],
    )


def state(row: Row) -> str:
    """Return a repository's state: ok, gone, held, failing or never listed."""
    if row["outcome"] == "failed":
        return "failing" if row["last_complete_at"] else "never listed"
    if row["outcome"] == "held":
        return "held"
    return "gone" if row["reasons"] == "gone" else "ok"


def timeline(
    changes: Sequence[Row], gaps: Iterable[Row], baseline: Row | None, until: str | None
) -> list[Row]:
    """Merge a repository's changes and the gaps in its coverage, newest first.

    Args:
        changes: The changes of this page, newest first, without the tags that the first listing
            added.
        gaps: All gaps, as `coverage_gaps` returns them.
        baseline: A row with the time of the first listing and its number of tags. None if a later
            page shows the first listing.
        until: Time of the last change on the previous page. None on the first page.

    Returns:
        Rows. The value of the key ``entry`` is ``change``, ``gap`` or ``first listing``, or
        ``more gaps`` in place of the gaps after the first `PAGE`, with their ``number``.
    """
    entries = [{**row, "entry": "change", "summary": summarize(row)} for row in changes]
    oldest = "" if baseline else entries[-1]["observed_at"] if entries else ""
    entries += [
        {**gap, "entry": "gap"}
        for gap in gaps
        if oldest <= (ended := gap["unseen_until"] or _NEVER) and (not until or ended < until)
    ]
    # If a change was observed at the end of a gap, the change is shown above the gap.
    entries.sort(key=_sort_key, reverse=True)
    entries = _shortened(entries)
    if baseline:
        at = baseline["first_observed_at"]
        entries.append({"entry": "first listing", "observed_at": at, "tags": baseline["tags"]})
    return entries


def _shortened(entries: list[Row]) -> list[Row]:
    """Return entries with one row in place of the gaps after the first `PAGE`."""
    left_out = [entry for entry in entries if entry["entry"] == "gap"][PAGE:]
    if not left_out:
        return entries
    at = next(index for index, entry in enumerate(entries) if entry is left_out[0])
    kept = [entry for entry in entries[at:] if entry["entry"] != "gap"]
    return [*entries[:at], {"entry": "more gaps", "number": len(left_out)}, *kept]


def _sort_key(entry: Row) -> tuple[str, int]:
    if entry["entry"] == "gap":
        return entry["unseen_until"] or _NEVER, 0
    return entry["observed_at"], entry["id"]
