"""Read-only questions to the database; each answer's keys are the columns that people see."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from tagsync.audit.certainty import CERTAIN, Doubt, Sight, Version, doubt, possible, versions, worst
from tagsync.audit.digest_search import find
from tagsync.audit.verify import verify
from tagsync.database import schema
from tagsync.database.connection import Connection, reading
from tagsync.errors import UnknownRepository, UnusableDatabase
from tagsync.models import FIELDS, Repository, Watch, is_glob
from tagsync.schedule import stale

Row = dict[str, Any]


class Audit:
    """The database, open for reading only, also beside one who writes."""

    def __init__(self, db: Connection, path: Path) -> None:
        """Takes over a connection; use `open`."""
        self._db = db
        self._path = str(path)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Opens the database as it is at this moment; creates no file and migrates nothing.

        Raises:
            UnusableDatabase: there is none, or it is another program's or a newer tagsync's.
            StoreError: it cannot be read.
        """
        if not path.exists():
            raise UnusableDatabase(f"there is no database at {path}: run tagsync sync first")
        with reading(path) as db:
            yield cls(db, path)

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

    def tags_at(self, patterns: Sequence[str], moment: str) -> Iterator[Row]:
        """What each tag pointed to at a moment, and how sure that is.

        A tag that may have been in several states has a row for each, one that was not there
        included: ``present`` tells which. A repository of which nothing is known, or nothing could
        be seen and nothing was known, has a row without a tag.

        Args:
            patterns: globs over full names; none for all.
            moment: as `timestamp` writes it.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            sight = self._sight(repository).at(moment)
            found, seen = False, sight == CERTAIN
            if sight.certainty != "unknown":
                for tag, history in self._histories(repository, moment):
                    states = possible(history, moment)
                    if any(state.fields is not None for state in states):
                        found = True
                        sure = doubt(states) if seen else sight
                        yield from (_state_row(repository, tag, state, sure) for state in states)
            if not found and not seen:
                yield _state_row(repository, None, None, sight)

    def diff(self, patterns: Sequence[str], start: str, end: str | None) -> Iterator[Row]:
        """The net difference between two moments, and how sure that is.

        A tag that may have been in several states has a row for each pair of them that differs. A
        repository that was not seen at one of the moments has a row without a tag, which says so.

        Args:
            patterns: globs over full names; none for all.
            start: as `timestamp` writes it.
            end: null for the last complete listing of each repository.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            sight = self._sight(repository)
            until = end or max(start, sight.last or start)
            seen = worst(sight.at(start), sight.at(until))
            if seen != CERTAIN:
                yield _difference_row(repository, None, None, None, seen)
            if seen.certainty == "unknown":
                continue
            for tag, history in self._histories(repository, until):
                before, after = possible(history, start), possible(history, until)
                sure = worst(seen, doubt(before), doubt(after))
                for old, new in _pairs(before, after):
                    yield _difference_row(repository, tag, old, new, sure)

    def log(
        self,
        patterns: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        kinds: Sequence[str] = (),
        tag: str | None = None,
    ) -> Iterator[Row]:
        """The changes, oldest first.

        Args:
            patterns: globs over full names; none for all.
            since: leaves out what had certainly happened before; as `timestamp` writes it.
            until: leaves out what certainly happened later, and what was there when it was first
                seen, later.
            kinds: only these; none for all.
            tag: only tags of this name, or that match this glob.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        conditions: list[tuple[str, Any]] = []
        chosen = self.repositories(patterns)
        if patterns and chosen != self.repositories(()):
            numbers = [self._id(repository) for repository in chosen]
            conditions.append(
                ("repository_id IN (SELECT value FROM json_each(?))", json.dumps(numbers))
            )
        if since is not None:
            conditions.append(("observed_at >= ?", since))
        if until is not None:
            conditions.append(("coalesce(not_before, observed_at) <= ?", until))
        if kinds:
            conditions.append(("kind IN (SELECT value FROM json_each(?))", json.dumps(kinds)))
        if tag is not None and not is_glob(tag):
            conditions.append(("tag = ?", tag))
        where = " AND ".join(condition for condition, _ in conditions) or "1"
        rows = self._db.query(
            "SELECT id, observed_at, not_before, repository, tag, kind, old_digest, new_digest,"  # noqa: S608  the conditions above
            f" fields FROM change_log WHERE {where} ORDER BY id",
            [value for _, value in conditions],
        )
        return (row for row in rows if tag is None or fnmatchcase(row["tag"], tag))

    def coverage(
        self, patterns: Sequence[str], *, since: str | None = None, until: str | None = None
    ) -> Iterator[Row]:
        """When somebody was looking, and the holes, of each repository in the order of time.

        ``looking`` is a run of complete listings, ``failed`` one of polls that failed, ``held`` one
        of listings that were not believed; in a ``hole`` between them there was no poll at all.

        Args:
            patterns: globs over full names; none for all.
            since: leaves out what ended before; as `timestamp` writes it.
            until: leaves out what began later.

        Raises:
            UnknownRepository: a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            rows = self._db.query(
                "SELECT outcome, first_at, last_at, polls, detail FROM observations"
                " WHERE repository_id = ? ORDER BY first_at, id",
                (self._id(repository),),
            )
            for row in _timeline(rows, since, until):
                if (since or "") <= row["to"] and (until is None or row["from"] <= until):
                    yield {"repository": repository.full_name, **row}

    def find(self, digest: str) -> Iterator[Row]:
        """Every tag that leads to a digest, or ever did: see `tagsync.audit.digest_search.find`.

        Raises:
            UnclearQuestion: it is no digest, or begins more than one.
            UnusableDatabase: an older tagsync wrote it, without what this needs.
        """
        schema.check_current(self._db, self._path)
        return find(self._db, digest)

    def verify(self, heads: Collection[str] = ()) -> Iterator[Row]:
        """Whether the record is what was recorded: see `tagsync.audit.verify.verify`.

        Raises:
            UnusableDatabase: an older tagsync wrote it, without what this needs.
        """
        schema.check_current(self._db, self._path)
        return verify(self._db, heads)

    def _id(self, repository: Repository) -> int:
        (number,) = self._db.execute(
            "SELECT id FROM repositories WHERE registry = ? AND name = ?",
            (repository.registry, repository.name),
        ).fetchone()
        return int(number)

    def _sight(self, repository: Repository) -> Sight:
        return Sight(
            self._db.execute(
                "SELECT first_at, last_at FROM observations"
                " WHERE repository_id = ? AND outcome = 'ok'",
                (self._id(repository),),
            )
        )

    def _histories(
        self, repository: Repository, moment: str
    ) -> Iterator[tuple[str, list[Version]]]:
        """Each tag's states, as far as they may have been reached at a moment, by name."""
        rows = self._db.execute(HISTORIES, (self._id(repository), moment))
        for tag, changes in groupby(rows, key=itemgetter(0)):
            yield tag, versions(change[1:] for change in changes)


HISTORIES: Final = (
    "SELECT tag, kind, fields, not_before, observed_at FROM changes"
    " WHERE repository_id = ? AND coalesce(not_before, '') < ? ORDER BY tag, id"
)
"""Every change of a repository that may have happened before a moment, in the order of its tags."""


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


def _state_row(repository: Repository, tag: str | None, state: Version | None, sure: Doubt) -> Row:
    fields = (state.fields if state else None) or {}
    return {
        "repository": repository.full_name,
        "tag": tag,
        **{name: fields.get(name) for name in ("digest", "image_id", "size", "updated")},
        "changed_at": (state.observed_at if state else None) or None,
        "present": None if state is None else state.fields is not None,
        **_certainty(sure),
    }


def _pairs(
    before: Sequence[Version], after: Sequence[Version]
) -> Iterator[tuple[Version, Version]]:
    """Each pair of states that differ, the second of which may have followed the first."""
    for old in before:
        for new in after:
            if new.observed_at >= old.observed_at and new.fields != old.fields:
                yield old, new


def _difference_row(
    repository: Repository,
    tag: str | None,
    old: Version | None,
    new: Version | None,
    sure: Doubt,
) -> Row:
    before, after = (version.fields if version else None for version in (old, new))
    kind = "added" if before is None else "deleted" if after is None else "updated"
    was, became = before or {}, after or {}
    fields = {
        name: (was.get(name), became.get(name))
        for name in FIELDS
        if was.get(name) != became.get(name)
    }
    return {
        "repository": repository.full_name,
        "tag": tag,
        "kind": None if tag is None else kind,
        "old_digest": was.get("digest"),
        "new_digest": became.get("digest"),
        "fields": None if tag is None else msgspec.json.encode(fields).decode(),
        **_certainty(sure),
    }


def _certainty(sure: Doubt) -> Row:
    return {
        "certainty": sure.certainty,
        "unsure_from": sure.start,
        "unsure_until": sure.end,
    }


_STATES: Final = {"ok": "looking", "failed": "failed", "held": "held"}


def _timeline(
    observations: Iterable[Mapping[str, Any]], since: str | None, until: str | None
) -> Iterator[Row]:
    """The observations and the holes between them; of what is before and after, as is asked."""
    reached: str | None = None
    for row in observations:
        before = since if reached is None else reached
        if before is not None and before < row["first_at"]:
            yield _hole(before, row["first_at"])
        yield {
            "from": row["first_at"],
            "to": row["last_at"],
            "state": _STATES[row["outcome"]],
            "polls": row["polls"],
            "detail": row["detail"],
        }
        reached = max(reached or "", row["last_at"])
    before = since if reached is None else reached
    if before is not None and until is not None and before < until:
        yield _hole(before, until)


def _hole(start: str, end: str) -> Row:
    return {"from": start, "to": end, "state": "hole", "polls": 0, "detail": None}
