"""The queries behind the search: repositories, tags and digests that a text may mean."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from tagsync.audit.digest_search import leads_there_at
from tagsync.errors import UnclearQuestion
from tagsync.models import Repository
from tagsync.web.moment_queries import coverage_at, has_tag, recorded
from tagsync.web.search_text import Search
from tagsync.web.snapshot import Snapshot

Row = dict[str, Any]

ROWS: Final = 100
"""Maximum number of rows of each part of an answer."""

MOST_READ: Final = 250
"""Maximum number of intervals of a digest, and of images with a layer, that a search reads."""

MOST_STATES: Final = 20
"""Maximum number of tags whose states at a moment are replayed."""

_REPOSITORIES_SQL: Final = """
    SELECT full_name AS repository, last_complete_at FROM repositories
    WHERE instr(lower(full_name), lower(:text)) ORDER BY full_name LIMIT :limit
"""
_EXACT_SQL: Final = "SELECT registry, name FROM repositories WHERE full_name = :name"

_BY_NAME_SQL: Final = """
    SELECT registry, name FROM repositories WHERE name = :name ORDER BY registry
"""
_TAGS_SQL: Final = """
    SELECT r.full_name AS repository, r.registry, r.name, c.tag,
           t.tag IS NOT NULL AS present, t.digest
    FROM repositories AS r
    CROSS JOIN changes AS c ON c.id = (
        SELECT min(id) FROM changes WHERE repository_id = r.id AND tag = :tag)
    LEFT JOIN tags AS t ON t.repository_id = r.id AND t.tag = :tag
    ORDER BY r.full_name LIMIT :limit
"""
# Ordered by repository, so that the key of tags finds the first rows without reading the others.
_BEGINNING_SQL: Final = """
    SELECT r.full_name AS repository, r.registry, r.name, t.tag, 1 AS present, t.digest
    FROM repositories AS r
    CROSS JOIN tags AS t ON t.repository_id = r.id
        AND t.tag > :beginning AND t.tag < :beginning || char(0x10ffff)
    ORDER BY r.full_name, t.tag LIMIT :limit
"""


def registries_by_host(endpoints: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of registries by the host in image references.

    The host is that of the endpoint. Two registries have another one there: images of SWR are
    pulled from ``swr.…`` and listed at ``swr-api.…``, those of Docker Hub are pulled from
    ``docker.io``.

    Args:
        endpoints: The URL of each registry, by name.
    """
    found: dict[str, list[str]] = {}
    for name, endpoint in endpoints.items():
        host = urlsplit(endpoint).netloc.rpartition("@")[2].lower()
        aliases = {host, host.replace("swr-api.", "swr.")}
        if host == "registry-1.docker.io":
            aliases |= {"docker.io", "index.docker.io"}
        for alias in aliases:
            found.setdefault(alias, []).append(name)
    return found


def exact_hit(record: Snapshot, search: Search) -> tuple[str, str | None] | None:
    """Return the only repository, or the only tag, that a text names in full.

    Returns:
        The full name of the repository and the name of the tag, which is None if the text names no
        tag. None if the text names a digest, or something that is not recorded, or several things.
    """
    if search.digest or not search.name:
        return None
    if not search.is_reference and "/" not in search.name:
        return None
    found = repositories_of(record, search)
    if len(found) != 1:
        return None
    (repository,) = found
    if search.tag is not None and not has_tag(record, repository, search.tag):
        return None
    return repository.full_name, search.tag


def repositories_of(record: Snapshot, search: Search) -> list[Repository]:
    """Return the repositories that an image reference, or a full name, may mean.

    If the host is that of a configured registry, only this registry counts; otherwise every
    registry does. Without a host, the first part may be the registry's name in the configuration.
    """
    names = [search.name]
    if "/" not in search.name:
        names.append(f"library/{search.name}")
    found = [
        Repository(row["registry"], row["name"])
        for name in names
        for row in record.query(_BY_NAME_SQL, {"name": name})
    ]
    if not search.host:
        exact = record.query(_EXACT_SQL, {"name": search.name})
        return [Repository(**row) for row in exact] or found
    registries = record.hosts.get(search.host)
    return [each for each in found if registries is None or each.registry in registries]


def answer(record: Snapshot, search: Search, at: str | None) -> Row:
    """Return everything that the text of a search may mean, each part with at most `ROWS` rows.

    Args:
        record: The record.
        search: The parts of the text.
        at: A moment, as `tagsync.clock.timestamp` writes it. If it is not None, the answer is about
            this moment.

    Returns:
        ``reference``: what each repository of an image reference has at its tag, or None.
        ``repositories`` and ``tags_named``: those with the text in their names, or with it as their
        name. ``tags_beginning``: the longer tags that begin with the text and exist now; None
        for a moment. ``digest``: the rows of the command ``find``, or None. Each of the last four
        has ``rows``, and ``more`` if there are more.
    """
    plain = search.name if not search.is_reference else ""
    return {
        "reference": _reference(record, search, at) if search.is_reference else None,
        "repositories": _repositories(record, plain) if plain else None,
        "tags_named": _tags(record, plain, at) if plain else None,
        "tags_beginning": _tags_beginning(record, plain) if plain and at is None else None,
        "digest": _digest(record, search, at) if search.digest else None,
    }


def _repositories(record: Snapshot, text: str) -> Row:
    rows = record.query(_REPOSITORIES_SQL, {"text": text, "limit": ROWS + 1})
    return {"rows": rows[:ROWS], "more": len(rows) > ROWS}


def _tags(record: Snapshot, tag: str, at: str | None) -> Row:
    found = record.query(_TAGS_SQL, {"tag": tag, "limit": ROWS + 1})
    rows = [
        {**row, "states": _states(record, Repository(row["registry"], row["name"]), tag, at)}
        for row in found[: ROWS if at is None else MOST_STATES]
    ]
    return {"rows": rows, "more": len(rows) < len(found)}


def _tags_beginning(record: Snapshot, text: str) -> Row:
    """Return the longer tags that begin with a text. An asterisk at its end changes nothing."""
    beginning = text.removesuffix("*")
    if not beginning:
        return {"rows": [], "more": False}
    rows = record.query(_BEGINNING_SQL, {"beginning": beginning, "limit": ROWS + 1})
    return {"beginning": beginning, "rows": rows[:ROWS], "more": len(rows) > ROWS}


def _states(record: Snapshot, repository: Repository, tag: str, at: str | None) -> list[Row] | None:
    """Return the rows of ``tags --at`` of one tag. None without a moment."""
    return None if at is None else list(record.audit.charts.tags_at(repository, at, [tag]))


def _reference(record: Snapshot, search: Search, at: str | None) -> Row:
    """Return what the repositories of an image reference have at its tag."""
    found = repositories_of(record, search)
    rows = []
    for repository in found[:ROWS]:
        row: Row = {"repository": repository.full_name, "tag": None}
        if search.tag is not None and has_tag(record, repository, search.tag):
            (now,) = record.query(
                "SELECT max(tag) IS NOT NULL AS present, max(digest) AS digest FROM current_tags"
                " WHERE repository = :repository AND tag = :tag",
                {"repository": repository.full_name, "tag": search.tag},
            )
            states = _states(record, repository, search.tag, at)
            row |= {"tag": search.tag, **now, "states": states}
        rows.append(row)
    return {
        "rows": rows,
        "more": len(found) > ROWS,
        "known_host": not search.host or search.host in record.hosts,
    }


def _digest(record: Snapshot, search: Search, at: str | None) -> Row:
    """Return the rows of ``find``, or several digests with the same beginning."""
    text = search.digest or ""
    try:
        candidates = record.audit.digests_beginning(text)
    except UnclearQuestion as error:
        return {"unclear": str(error)}
    if len(candidates) > 1:
        return {"candidates": candidates}
    rows, complete = record.audit.find_some(candidates[0] if candidates else text, MOST_READ)
    query, role = rows[0]["query"], rows[0]["role"]
    rows = [] if role == "unknown" else rows
    if at is not None:
        rows = [row for row in rows if leads_there_at(row, at) != "no"]
    return {
        "query": query,
        "role": role,
        "rows": rows[:ROWS] if at is None else _at(record, rows[:ROWS], at),
        "found": len(rows),
        "complete": complete,
        "more": len(rows) > ROWS or not complete,
    }


def _at(record: Snapshot, rows: Sequence[Row], moment: str) -> list[Row]:
    """Return rows of ``find`` with ``led``, whether the tag led to the digest at a moment.

    ``coverage`` is the certainty of all answers about the repository. It is None if complete
    listings cover the moment; otherwise a tag may always have led elsewhere.
    """
    repositories = {row["repository"] for row in rows}
    coverage = {
        name: coverage_at(record, repository, moment)
        for name in repositories
        if (repository := recorded(record, name))
    }
    return [
        {
            **row,
            "led": "maybe" if coverage[row["repository"]] else leads_there_at(row, moment),
            "coverage": coverage[row["repository"]],
        }
        for row in rows
    ]
