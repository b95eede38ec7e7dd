"""The queries behind pages about a moment, and about the difference between two."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from tagsync.audit.tag_pages import MOST_TAGS
from tagsync.models import Repository
from tagsync.web import queries
from tagsync.web.snapshot import Snapshot

Row = dict[str, Any]

PAGE: Final = 50
"""Maximum number of repositories on a page of the list at a moment."""

FIRST_REPOSITORIES: Final = 5
"""Maximum number of repositories on the front page at a moment, where the list begins."""

MOST_REPOSITORIES: Final = 50
"""Maximum number of repositories that one page of differences reads."""

MOST_HISTORY: Final = 4_000
"""Number of changes after which a page of differences ends."""


def front_at(record: Snapshot, moment: str, after: str) -> Row:
    """Return the data of the front page as of a moment.

    Args:
        record: The record.
        moment: The time, as `tagsync.clock.timestamp` writes it.
        after: Return only repositories that come after this full name. If it is empty, the list
            is short.
    """
    charts = record.audit.charts
    overview = charts.overview_at(moment)
    listed = charts.repositories_at(moment)
    following = [row for row in listed if row.repository > after]
    size = PAGE if after else FIRST_REPOSITORIES
    newest = (overview.last_change_id or 0) + 1
    latest = queries.changes(record, newest, queries.LATEST)["changes"] if newest > 1 else []
    return {
        "overview": overview,
        "listed": len(listed),
        "covered": sum(row.covered for row in listed),
        "latest": latest,
        "repositories": following[:size],
        "next_after": following[size - 1].repository if len(following) > size else None,
        "after": after,
    }


def repository_at(record: Snapshot, repository: Repository, moment: str, after: str) -> Row:
    """Return the tags of a repository as of a moment, a page at a time.

    Args:
        record: The record.
        repository: A recorded repository.
        moment: The time, as `tagsync.clock.timestamp` writes it.
        after: Return only tags that come after this one.

    Returns:
        ``coverage`` is a row without a tag if complete listings do not cover the moment, else None.
        ``tags`` has a row for each tag that existed then, or may have existed; its ``states`` are
        the rows of the command ``tags --at``.
    """
    charts = record.audit.charts
    page = charts.tags_after(repository, after)
    rows = charts.tags_at(repository, moment, page.tags)
    return {
        "coverage": coverage_at(record, repository, moment),
        "tags": list(_by_tag(rows)),
        "next_after": page.after,
        "after": after,
    }


def tag_at(record: Snapshot, repository: Repository, tag: str, moment: str) -> Row:
    """Return the states in which a tag may have been at a moment, as ``tags --at`` does."""
    rows = record.audit.charts.tags_at(repository, moment, [tag])
    found = next(_by_tag(rows), None)
    return {"coverage": coverage_at(record, repository, moment), "found": found}


def coverage_at(record: Snapshot, repository: Repository, moment: str) -> Row | None:
    """Return how certain answers about a repository are. None if listings cover the moment."""
    return next(iter(record.audit.charts.tags_at(repository, moment, [])), None)


def recorded(record: Snapshot, full_name: str) -> Repository | None:
    """Return a recorded repository by its full name, or None."""
    rows = record.query(
        "SELECT registry, name FROM repositories WHERE full_name = :name", {"name": full_name}
    )
    return Repository(**rows[0]) if rows else None


def has_tag(record: Snapshot, repository: Repository, tag: str) -> bool:
    """Return whether a tag was ever recorded."""
    return bool(
        record.query(
            "SELECT 1 FROM changes WHERE tag = :tag AND repository_id ="
            " (SELECT id FROM repositories WHERE full_name = :name) LIMIT 1",
            {"name": repository.full_name, "tag": tag},
        )
    )


def _by_tag(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a row for each tag, with its states."""
    for tag, group in groupby(rows, key=itemgetter("tag")):
        if tag is not None:
            states = list(group)
            names = ("repository", "tag", "certainty", "unsure_from", "unsure_until")
            yield {**{name: states[0][name] for name in names}, "states": states}


class Cursor(NamedTuple):
    """The place where a page of differences begins.

    Attributes:
        repository: The full name of a repository. Empty at the beginning.
        tag: The last tag of the repository on the page before. Empty if none was there.
    """

    repository: str = ""
    tag: str = ""


def difference(
    record: Snapshot,
    pattern: str,
    start: str,
    end: str | None,
    cursor: Cursor,
    *,
    most_repositories: int = MOST_REPOSITORIES,
) -> Row:
    """Return a page of the net difference between two moments.

    All pages together have the rows of the command ``diff``, in the same order. A page ends after
    `MOST_TAGS` tags or `MOST_HISTORY` changes, or earlier.

    Args:
        record: The record.
        pattern: A pattern of the command line. Empty for all repositories.
        start: The first moment, as `tagsync.clock.timestamp` writes it.
        end: The second moment in the same form. None means each repository's last listing.
        cursor: The place where the page begins.
        most_repositories: Maximum number of repositories to read.

    Raises:
        UnclearQuestion: If the pattern is invalid.
        UnknownRepository: If the pattern matches no repository.
        UnknownTag: If the pattern names a tag that was never recorded.
    """
    patterns = [pattern] if pattern else []
    record.audit.check_tags(patterns)
    selection = record.audit.select(patterns)
    # The order is by registry and name, so a comparison of full names does not find the place.
    names = [each.full_name for each in selection.repositories]
    first = names.index(cursor.repository) if cursor.repository in names else 0
    rows: list[Row] = []
    changes, tags, after = 0, 0, cursor.tag
    remaining = selection.repositories[first:]
    following: Cursor | None = None
    for number, repository in enumerate(remaining):
        if number == most_repositories or changes >= MOST_HISTORY or tags >= MOST_TAGS:
            following = Cursor(repository.full_name)
            break
        page = record.audit.charts.changed_between(repository, start, end, after)
        wanted = [tag for tag in page.tags if selection.has(repository.full_name, tag)]
        found = record.audit.charts.diff(repository, start, end, wanted)
        # The row about the whole repository is on the first of its pages only.
        rows += [row for row in found if row["tag"] is not None or not after]
        changes += page.changes
        tags = len({(row["repository"], row["tag"]) for row in rows})
        after = ""
        if page.after is not None:
            following = Cursor(repository.full_name, page.after)
            break
    return {
        "rows": rows,
        "groups": list(_by_repository(rows)),
        "totals": totals(rows),
        "searched": len(selection.repositories),
        "following": following,
    }


def totals(rows: Sequence[Row]) -> Row:
    """Return the numbers of differences by their words, as the command ``diff`` counts them."""
    named = [row for row in rows if row["tag"] is not None]
    words = Counter(
        word for *_, word in {(row["repository"], row["tag"], change_word(row)) for row in named}
    )
    unsure = {(r["repository"], r["tag"]) for r in named if r["certainty"] != "certain"}
    return {
        "words": {word: words[word] for word in _WORDS if words[word]},
        "differences": words.total(),
        "repositories": len({row["repository"] for row in named}),
        "unsure": len(unsure),
        "unseen": len(rows) - len(named),
    }


_WORDS: Final = ("added", "moved", "updated", "deleted")
"""The words for differences, in the order in which totals show them."""


def change_word(row: Row) -> str:
    """Return ``added``, ``deleted``, ``moved`` or ``updated`` for a row of ``diff``."""
    old, new = row["old_digest"], row["new_digest"]
    return "moved" if row["kind"] == "updated" and old and new and old != new else str(row["kind"])


def _by_repository(rows: Iterable[Row]) -> Iterator[Row]:
    for repository, group in groupby(rows, key=itemgetter("repository")):
        found = list(group)
        yield {
            "repository": repository,
            "unseen": next((row for row in found if row["tag"] is None), None),
            "rows": [{**row, "word": change_word(row)} for row in found if row["tag"] is not None],
        }
