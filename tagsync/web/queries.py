"""What the pages show: questions to the record, and what follows from the answers."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tagsync.audit.questions import QUESTIONS
from tagsync.models import GONE
from tagsync.web.datasette_database import Ask

Row = dict[str, Any]

LATEST: Final = 20
"""How many changes the front page shows."""

PAGE: Final = 100
"""How many repositories, tags or changes a page shows."""

HISTORY: Final = 1000
"""How many of a tag's changes its page shows."""

_NEVER: Final = "9999"
"""After every moment."""

_HOLES: Final = next(question.sql for question in QUESTIONS if question.slug == "holes")

_REPOSITORIES: Final = """
    SELECT r.id, r.registry || '/' || r.name AS repository, r.first_observed_at,
           r.last_complete_at, r.last_attempt_at, r.failures, r.last_error, o.outcome, o.detail,
           (SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
            ORDER BY id DESC LIMIT 1) AS tags
    FROM repositories AS r
    LEFT JOIN observations AS o ON o.id =
        (SELECT id FROM observations WHERE repository_id = r.id ORDER BY id DESC LIMIT 1)
"""

_CHANGES: Final = """
    SELECT id, repository, tag, kind, moved, old_digest, new_digest, fields, not_before, observed_at
    FROM change_log
"""


def front(ask: Ask, needle: str, after: str) -> Row:
    """The front page: how fresh the record is, its latest changes, and its repositories.

    Args:
        ask: the record.
        needle: only repositories whose full names contain this, whatever the case.
        after: only repositories that follow this full name.
    """
    (summary,) = ask(
        """
        SELECT count(*) AS repositories, min(first_observed_at) AS since,
               max(last_complete_at) AS newest, total(failures > 0) AS failing,
               total(failures = 0 AND last_error IS NOT NULL) AS held,
               coalesce((SELECT max(id) FROM changes), 0) AS changes,
               total((SELECT tags FROM observations WHERE repository_id = r.id AND outcome = 'ok'
                      ORDER BY id DESC LIMIT 1)) AS tags
        FROM repositories AS r
        """,
        {},
    )
    found = ask(
        f"{_REPOSITORIES} WHERE instr(lower(repository), lower(:needle)) AND repository > :after"
        " ORDER BY repository LIMIT :limit",
        {"needle": needle, "after": after, "limit": PAGE + 1},
    )
    latest = ask(
        f"{_CHANGES} WHERE not_before IS NOT NULL ORDER BY id DESC LIMIT :limit", {"limit": LATEST}
    )
    return {
        "summary": summary,
        "latest": [{**row, "what": what(row)} for row in latest],
        "repositories": [{**row, "state": state(row)} for row in found[:PAGE]],
        "next_after": found[PAGE - 1]["repository"] if len(found) > PAGE else None,
    }


def repository(ask: Ask, name: str, before: int) -> Row | None:
    """A repository's page: its tags now and its timeline, or null if it was never polled.

    Args:
        ask: the record.
        name: its full name.
        before: only the timeline before the change of this id.
    """
    found = ask(f"{_REPOSITORIES} WHERE repository = :name", {"name": name})
    if not found:
        return None
    about = {"name": name, "repository_id": found[0]["id"], "before": before, "limit": PAGE + 1}
    tags = ask(
        "SELECT tag, digest, size, changed_at FROM tags WHERE repository_id = :repository_id"
        " ORDER BY tag LIMIT :limit",
        about,
    )
    changes = ask(
        f"{_CHANGES} WHERE repository_id = :repository_id AND not_before IS NOT NULL"
        " AND id < :before ORDER BY id DESC LIMIT :limit",
        about,
    )
    more = len(changes) > PAGE
    (listed,) = ask(
        "SELECT count(*) AS tags, min(observed_at) AS observed_at FROM changes"
        " WHERE repository_id = :repository_id AND not_before IS NULL",
        about,
    )
    above = ask("SELECT observed_at FROM changes WHERE id = :before", about)
    return {
        "repository": {**found[0], "state": state(found[0])},
        "tags": tags[:PAGE],
        "more_tags": len(tags) > PAGE,
        "timeline": timeline(
            changes[:PAGE],
            holes(ask, name),
            None if more or not found[0]["first_observed_at"] else found[0] | listed,
            above[0]["observed_at"] if above else None,
        ),
        "next_before": changes[PAGE - 1]["id"] if more else None,
    }


def tag(ask: Ask, name: str, tag_name: str) -> Row | None:
    """A tag's page: what it points to, what it pointed to, and when nobody saw it.

    Returns:
        Null if nothing was ever recorded of it.
    """
    changes = ask(
        f"{_CHANGES} WHERE tag = :tag AND repository_id ="  # noqa: S608  constants
        " (SELECT id FROM repositories WHERE registry || '/' || name = :name)"
        " ORDER BY id DESC LIMIT :limit",
        {"name": name, "tag": tag_name, "limit": HISTORY + 1},
    )
    if not changes:
        return None
    (about,) = ask(f"{_REPOSITORIES} WHERE repository = :name", {"name": name})
    shown = changes[:HISTORY]
    since = shown[-1]["observed_at"]
    return {
        "repository": {**about, "state": state(about)},
        "tag": tag_name,
        "intervals": intervals(reversed(shown)),
        "changes": [{**row, "what": what(row)} for row in shown],
        "more_changes": len(changes) > HISTORY,
        "holes": [
            hole
            for hole in holes(ask, name)
            if hole["unseen_until"] is None or hole["unseen_until"] > since
        ],
    }


def holes(ask: Ask, name: str) -> list[Row]:
    """When a repository's tags were not seen, newest first, as the question of that name has it."""
    return ask(_HOLES, {"repository": name, "minutes": None})


def what(change: Row) -> str:
    """What happened, in a word or a few."""
    if change["kind"] != "updated":
        return str(change["kind"])
    if change["moved"]:
        return "moved"
    return f"changed: {', '.join(json.loads(change['fields']))}"


def state(row: Row) -> str:
    """How a repository's last poll ended, in a word: ok, gone, held, failing or never listed."""
    if row["outcome"] == "failed":
        return "failing" if row["last_complete_at"] else "never listed"
    if row["outcome"] == "held":
        return "held"
    return "gone" if (row["detail"] or "").startswith(GONE) else "ok"


def timeline(
    changes: Sequence[Row], unseen: Iterable[Row], listed: Row | None, until: str | None
) -> list[Row]:
    """What happened to a repository and when nobody saw it, newest first.

    Args:
        changes: newest first, without those of the first listing.
        unseen: as `holes` gives them.
        listed: when the repository was first listed and how many tags it had, if this page goes
            back that far.
        until: the moment of the change above the first one of this page, if there is one.

    Returns:
        Rows of which each has ``entry``, which is ``change``, ``hole`` or ``first listing``.
    """
    entries = [{**row, "entry": "change", "what": what(row)} for row in changes]
    oldest = "" if listed else entries[-1]["observed_at"] if entries else ""
    entries += [
        {**hole, "entry": "hole"}
        for hole in unseen
        if oldest <= (ended := hole["unseen_until"] or _NEVER) and (not until or ended < until)
    ]
    # A change that ended a hole is told above it.
    entries.sort(key=_when, reverse=True)
    if listed:
        at = listed["first_observed_at"]
        entries.append({"entry": "first listing", "observed_at": at, "tags": listed["tags"]})
    return entries


def _when(entry: Row) -> tuple[str, int]:
    if entry["entry"] == "hole":
        return entry["unseen_until"] or _NEVER, 0
    return entry["observed_at"], entry["id"]


def intervals(changes: Iterable[Row]) -> list[Row]:
    """What a tag pointed to, from when until when, newest first.

    Args:
        changes: all of the tag's, oldest first.

    Returns:
        Rows of ``digest``, and the two moments around its coming (``after``, ``since``; ``after``
        is null where it was there when first looked) and around its going (``last_seen``,
        ``until``; both null where it lasts).
    """
    found: list[Row] = []
    for change in changes:
        if change["kind"] == "updated" and not change["moved"]:
            continue
        if found and found[-1]["until"] is None:
            found[-1] |= {"last_seen": change["not_before"], "until": change["observed_at"]}
        if change["kind"] != "deleted":
            found.append(
                {
                    "digest": change["new_digest"],
                    "after": change["not_before"],
                    "since": change["observed_at"],
                    "last_seen": None,
                    "until": None,
                }
            )
    return found[::-1]
