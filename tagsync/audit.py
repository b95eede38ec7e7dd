"""Read-only questions to the database; each answer's keys are the columns that people see."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from sqlite_utils import Database

from tagsync.database import connect_for_reading, in_plain_words
from tagsync.errors import UnknownRepository, UnusableDatabase
from tagsync.models import Repository, Watch
from tagsync.schedule import stale

Row = dict[str, Any]


class Audit:
    """The database, open for reading only, also beside one who writes."""

    def __init__(self, db: Database) -> None:
        """Takes over a connection; use `open`."""
        self._db = db

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Opens the database; never creates or migrates one.

        Raises:
            UnusableDatabase: there is none, or it is another program's or a newer tagsync's.
            StoreError: it cannot be read.
        """
        if not path.exists():
            raise UnusableDatabase(f"there is no database at {path}: run tagsync sync first")
        with in_plain_words(path), closing(connect_for_reading(path)) as db:
            yield cls(db)

    def repositories(self, patterns: Sequence[str]) -> list[Repository]:
        """The recorded repositories whose full names match one of the globs, or all, in order.

        Raises:
            UnknownRepository: a pattern matches none.
        """
        rows = self._db.execute("SELECT registry, name FROM repositories ORDER BY registry, name")
        return matching([Repository(*row) for row in rows], patterns)

    def status(self, watches: Mapping[Repository, Watch | None], now: datetime) -> list[Row]:
        """How fresh each repository is.

        Args:
            watches: the repositories in question, and the watch that has each; none where it is no
                longer configured, which is neither stale nor fresh.
            now: the present.

        Returns:
            A row each, also for those that were never polled.
        """
        rows = self._db.query(
            "SELECT registry, name, last_complete_at,"
            " (SELECT count(*) FROM tags WHERE repository_id = r.id) AS tags,"
            " (SELECT outcome FROM observations WHERE repository_id = r.id"
            "  ORDER BY id DESC LIMIT 1) AS outcome,"
            " failures, last_error FROM repositories AS r"
        )
        recorded = {Repository(row.pop("registry"), row.pop("name")): row for row in rows}
        never: Row = {
            "last_complete_at": None,
            "tags": None,
            "outcome": None,
            "failures": 0,
            "last_error": None,
        }
        return [
            {
                "repository": repository.full_name,
                **(row := recorded.get(repository, never)),
                "stale": None if watch is None else stale(watch, row["last_complete_at"], now),
            }
            for repository, watch in watches.items()
        ]

    def last_attempt_at(self, repositories: Sequence[Repository]) -> str | None:
        """When one of these was polled last, successfully or not; null where none ever was."""
        rows = self._db.execute("SELECT registry, name, last_attempt_at FROM repositories")
        attempts = {Repository(*row[:2]): str(row[2]) for row in rows}
        return max((attempts[each] for each in repositories if each in attempts), default=None)

    def tags(self, patterns: Sequence[str]) -> Iterator[Row]:
        """What each tag points to now.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            yield from self._db.query(
                "SELECT r.registry || '/' || r.name AS repository, tag, t.digest,"
                " coalesce(t.image_id, i.image_id) AS image_id, coalesce(t.size, i.size) AS size,"
                " updated, changed_at FROM tags AS t JOIN repositories AS r"
                " ON r.id = t.repository_id LEFT JOIN images AS i ON i.digest = t.digest"
                " WHERE r.registry = ? AND r.name = ? ORDER BY tag",
                (repository.registry, repository.name),
            )

    def log(self, patterns: Sequence[str]) -> Iterator[Row]:
        """The changes, oldest first.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        wanted = {repository.full_name for repository in self.repositories(patterns)}
        rows = self._db.query(
            "SELECT id, observed_at, not_before, repository, tag, kind, old_digest, new_digest,"
            " fields FROM change_log ORDER BY id"
        )
        return (row for row in rows if row["repository"] in wanted)


def matching(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """The repositories whose full names match one of the globs, or all without any.

    Raises:
        UnknownRepository: a pattern matches none.
    """
    for pattern in patterns:
        if not selected(repositories, [pattern]):
            raise UnknownRepository(pattern, [repository.full_name for repository in repositories])
    return selected(repositories, patterns)


def selected(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """As `matching`, but a pattern may match none."""
    return [
        repository
        for repository in repositories
        if not patterns or any(fnmatchcase(repository.full_name, p) for p in patterns)
    ]
