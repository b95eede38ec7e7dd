"""Names in the database that begin with a prefix, for the completion of command lines.

Only names of letters, digits and ``._/-`` are returned. A name with any other character does not
come from a registry that follows its specification, and might mean something to a shell.
"""

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tagsync.audit.immutable_changes import immutable_changes
from tagsync.database.connection import Connection, reading

LIMIT: Final = 500
"""Maximum number of names that are returned at once."""

MOST_REPOSITORIES: Final = 100
"""Maximum number of repositories whose tags are searched, so that an answer is immediate."""

_USUAL: Final = re.compile(r"[A-Za-z0-9_.:/-]+")

_REPOSITORIES_SQL: Final = "SELECT full_name AS name FROM repositories"

_TAGS_SQL: Final = """
    SELECT DISTINCT tag AS name FROM tags WHERE repository_id IN (
        SELECT id FROM repositories WHERE full_name IN (SELECT value FROM json_each(:repositories)))
"""
_FILTER_SQL: Final = """
    WHERE name >= :prefix AND name < :prefix || char(0x10ffff) AND typeof(name) = 'text'
      AND name GLOB '[A-Za-z0-9_]*' AND name NOT GLOB '*[^A-Za-z0-9_./-]*'
"""


def repository_names(path: Path, prefix: str) -> list[str]:
    """Return the full names that begin with a prefix, in order.

    If there are more than `LIMIT`, the result has the first ones and the last one, so that their
    longest common prefix is that of all.

    Raises:
        StoreError: If the database cannot be read.
    """
    with reading(path) as db:
        return _names(db, _REPOSITORIES_SQL, {"prefix": prefix})


def tag_names(path: Path, patterns: Sequence[str], prefix: str) -> list[str]:
    """Return the tags that begin with a prefix, limited as by `repository_names`.

    Args:
        path: The database.
        patterns: Globs over the full names of repositories. If the sequence is empty, every
            repository matches. If more than `MOST_REPOSITORIES` match, the result is empty.
        prefix: The beginning of the tags.

    Raises:
        StoreError: If the database cannot be read.
    """
    with reading(path) as db:
        repositories = [
            name
            for (name,) in db.execute(_REPOSITORIES_SQL)
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        if len(repositories) > MOST_REPOSITORIES:
            return []
        return _names(db, _TAGS_SQL, {"prefix": prefix, "repositories": json.dumps(repositories)})


def open_alarms(path: Path, prefix: str) -> list[tuple[int, str]]:
    """Return the newest changes of immutable tags that were not accepted, at most `LIMIT`.

    Args:
        path: The database.
        prefix: The beginning of the ids of the changes.

    Returns:
        The id of each change, and its tag. The second text is empty if a name has other characters
        than those above.

    Raises:
        StoreError: If the database cannot be read.
    """
    with reading(path) as db:
        found = immutable_changes(db, newest=LIMIT)
    return [
        (change.change_id, name if _USUAL.fullmatch(name) else "")
        for change in found
        if str(change.change_id).startswith(prefix)
        for name in [f"{change.repository}:{change.tag}"]
    ]


def _names(db: Connection, sql: str, parameters: Mapping[str, str]) -> list[str]:
    if not all(map(str.isprintable, parameters.values())):
        return []
    found = f"FROM ({sql}) {_FILTER_SQL}"
    rows = db.execute(f"SELECT name {found} ORDER BY name LIMIT {LIMIT + 1}", parameters)
    names = [name for (name,) in rows]
    if len(names) > LIMIT:
        (last,) = db.execute(f"SELECT max(name) {found}", parameters).fetchone()
        names[LIMIT - 1 :] = [last]
    return names
