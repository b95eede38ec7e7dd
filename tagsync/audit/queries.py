"""Read-only queries. The keys of a row are the column names that users see."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from tagsync.audit import at_moment, digest_search, verify
from tagsync.audit.proof import Proof, find_proof
from tagsync.audit.verify_progress import OnRows, rows_to_read
from tagsync.database import migrations
from tagsync.database.connection import Connection, reading
from tagsync.database.decoding import (
    Timestamp,
    check_timestamp,
    check_values,
    decode,
    decode_fields,
)
from tagsync.database.hash_chain import Heads, read_heads
from tagsync.errors import UnknownRepository, UnusableDatabase
from tagsync.models import Repository, Watch, is_glob
from tagsync.schedule import stale

Row = dict[str, Any]

# A poll that finds a repository's row damaged leaves it as it is, so only the observation says so.
_STATUS_SQL: Final = """
    SELECT registry, name, last_complete_at,
           (SELECT count(*) FROM tags WHERE repository_id = r.id) AS tags, outcome,
           iif(reasons = 'damaged', polls, failures) AS failures,
           iif(reasons = 'damaged', detail, last_error) AS last_error
    FROM repositories AS r LEFT JOIN observations AS o
         ON o.id = (SELECT max(id) FROM observations WHERE repository_id = r.id)
"""
_TAGS_SQL: Final = """
    SELECT repository, tag, digest, image_id, size, updated, changed_at FROM current_tags
    WHERE repository = ? ORDER BY tag
"""
_LOG_SQL: Final = """
    SELECT id, observed_at, not_before, repository, tag, kind, old_digest, new_digest, fields
    FROM change_log
"""
_IN_REPOSITORIES_SQL: Final = """
    repository_id IN (SELECT id FROM repositories
                      WHERE full_name IN (SELECT value FROM json_each(?)))
"""
_OBSERVATIONS_SQL: Final = """
    SELECT outcome, first_at, last_at, polls, detail, clock_said, reasons, reason_key, source
    FROM observations
    WHERE repository_id = (SELECT id FROM repositories WHERE full_name = ?)
    ORDER BY first_at, id
"""
_NEVER_POLLED: Final[Row] = {
    "last_complete_at": None,
    "tags": None,
    "outcome": None,
    "failures": 0,
    "last_error": None,
}


class Audit:
    """A read-only view of the database. Safe to use while another process writes."""

    def __init__(self, db: Connection, path: Path) -> None:
        """Query through an open connection. Other modules call `open` instead."""
        self._db = db
        self._path = str(path)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open the database. All queries see the same state of the database.

        Opening creates no file and does not migrate the database.

        Raises:
            UnusableDatabase: If the file is missing, or belongs to another program or to a newer
                tagsync.
            StoreError: If the file cannot be read, or if it changed while it was read.
        """
        if not path.exists():
            raise UnusableDatabase(f"there is no database at {path}: run tagsync sync first")
        with reading(path) as db:
            yield cls(db, path)

    def repositories(self, patterns: Sequence[str]) -> list[Repository]:
        """Return the recorded repositories that match a pattern, sorted by name.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.

        Raises:
            UnknownRepository: If a pattern matches no repository.
        """
        rows = self._db.execute("SELECT registry, name FROM repositories ORDER BY registry, name")
        names = decode(rows.fetchall(), list[tuple[str, str]], "repositories")
        return matching([Repository(*name) for name in names], patterns)

    def status(self, watches: Mapping[Repository, Watch | None], now: datetime) -> list[Row]:
        """Return how fresh the record of each repository is.

        Args:
            watches: The repositories to show, each with its watch. If a repository is no longer
                configured, its watch is None, and so is ``stale`` in its row.
            now: The current time.

        Returns:
            A row for each of these repositories, even if it was never polled.

        Raises:
            DamagedRecord: If a row is not what tagsync wrote.
        """
        rows = self._db.query(_STATUS_SQL)
        recorded = {Repository(row.pop("registry"), row.pop("name")): row for row in rows}
        for repository, row in recorded.items():
            check_values(row, f"repository {repository.full_name}")
            check_timestamp(row["last_complete_at"], f"repository {repository.full_name}")
        return [
            {
                "repository": repository.full_name,
                **(row := recorded.get(repository, _NEVER_POLLED)),
                "stale": None if watch is None else stale(watch, row["last_complete_at"], now),
            }
            for repository, watch in watches.items()
        ]

    def last_attempt_at(self, repositories: Sequence[Repository]) -> str | None:
        """Return the time of the last poll of any of these repositories.

        The result is None if none of the repositories was ever polled.

        Raises:
            DamagedRecord: If a row is not what tagsync wrote.
        """
        wanted = set(repositories)
        rows = self._db.execute("SELECT registry, name, last_attempt_at FROM repositories")
        attempts = (
            check_timestamp(attempt, f"repository {name}")
            for registry, name, attempt in rows
            if Repository(registry, name) in wanted
        )
        return max(filter(None, attempts), default=None)

    def tags(self, patterns: Sequence[str]) -> Iterator[Row]:
        """Yield each tag of the last complete listing, and the image that it points to.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        for repository in self.repositories(patterns):
            for row in self._db.query(_TAGS_SQL, (repository.full_name,)):
                check_values(row, f"a tag of {repository.full_name}")
                yield row

    def tags_at(self, patterns: Sequence[str], moment: str) -> Iterator[Row]:
        """Yield the image that each tag pointed to; see `at_moment.tags_at`.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.
            moment: The time, as `tagsync.clock.timestamp` writes it.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            yield from at_moment.tags_at(self._db, repository, moment)

    def diff(self, patterns: Sequence[str], start: str, end: str | None) -> Iterator[Row]:
        """Yield the net difference between two moments; see `at_moment.diff`.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.
            start: The first moment, as `tagsync.clock.timestamp` writes it.
            end: The second moment in the same form. None means the time of the last complete
                listing of each repository.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
        """
        for repository in self.repositories(patterns):
            yield from at_moment.diff(self._db, repository, start, end)

    def log(
        self,
        patterns: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        kinds: Sequence[str] = (),
        tag: str | None = None,
    ) -> Iterator[Row]:
        """Yield the changes, oldest first.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.
            since: A time, as `tagsync.clock.timestamp` writes it. Changes that certainly happened
                before this time are left out.
            until: A time in the same form. Changes that certainly happened after this time are left
                out, and so are the tags of a repository that was first listed after this time.
            kinds: The kinds of changes to include. If the sequence is empty, all kinds.
            tag: The name of a tag, or a glob over names of tags. None means all tags.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        conditions: list[tuple[str, Any]] = []
        names = [repository.full_name for repository in self.repositories(patterns)]
        if patterns and len(names) < len(self.repositories(())):
            conditions.append((_IN_REPOSITORIES_SQL, json.dumps(names)))
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
            f"{_LOG_SQL} WHERE {where} ORDER BY id", [value for _, value in conditions]
        )
        for row in rows:
            what = f"change {row['id']}"
            check_values(row, what)
            decode_fields(row["fields"], what)
            if tag is None or fnmatchcase(row["tag"], tag):
                yield row

    def coverage(
        self, patterns: Sequence[str], *, since: str | None = None, until: str | None = None
    ) -> Iterator[Row]:
        """Yield each repository's runs of polls and the gaps between them, in time order.

        The state of a row is ``looking`` for a run of complete listings, ``failed`` for a run of
        failed polls, ``held`` for a run of held listings, and ``hole`` for a gap without any poll.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.
            since: A time, as `tagsync.clock.timestamp` writes it. Runs and gaps that ended before
                this time are left out.
            until: A time in the same form. Runs and gaps that began after this time are left out.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        for repository in self.repositories(patterns):
            name = repository.full_name
            rows = self._db.execute(_OBSERVATIONS_SQL, (name,)).fetchall()
            observations = decode(rows, list[_Observation], f"the observations of {name}")
            for row in _timeline(_joined(observations), since, until):
                if (since or "") <= row["to"] and (until is None or row["from"] <= until):
                    yield {"repository": name, **row}

    def find(self, digest: str) -> Iterator[Row]:
        """Yield each interval in which a tag led to a digest; see `digest_search.find`.

        Raises:
            UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return digest_search.find(self._db, digest)

    def heads(self) -> Heads:
        """Return the heads of both hash chains.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        migrations.check_current(self._db, self._path)
        return read_heads(self._db)

    def verify(
        self, heads: Collection[str] = (), on_rows: OnRows = lambda *_: None
    ) -> Iterator[Row]:
        """Verify the database; see `tagsync.audit.verify.verify`.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return verify.verify(self._db, heads, on_rows)

    def rows_to_verify(self) -> int:
        """Return about how many rows `verify` will read."""
        return rows_to_read(self._db)

    def proof(self, heads: Collection[str] = ()) -> Proof:
        """Return what `verify` proves if it finds no fault; see `tagsync.audit.proof.find_proof`.

        Raises:
            DamagedRecord: If a row is not what tagsync wrote.
        """
        return find_proof(self._db, heads)


def matching(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """Return the repositories that match at least one of the globs.

    If ``patterns`` is empty, every repository matches.

    Raises:
        UnknownRepository: If a pattern matches no repository.
    """
    for pattern in patterns:
        if not selected(repositories, [pattern]):
            raise UnknownRepository(pattern, [repository.full_name for repository in repositories])
    return selected(repositories, patterns)


def selected(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """Like `matching`, but patterns without a match are ignored."""
    return [
        repository
        for repository in repositories
        if not patterns or any(fnmatchcase(repository.full_name, p) for p in patterns)
    ]


class _Observation(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``observations``. Each attribute is the column of the same name."""

    outcome: str
    first_at: Timestamp
    last_at: Timestamp
    polls: int
    detail: str | None
    clock_said: str | None
    reasons: str | None
    reason_key: str | None
    source: str | None

    def goes_on_in(self, other: "_Observation") -> bool:
        """Return whether another row only continues this run after midnight (UTC)."""
        result, next_result = (
            (each.outcome, each.reasons, each.reason_key, each.source, each.clock_said is None)
            for each in (self, other)
        )
        return other.first_at == self.last_at and next_result == result

    @property
    def remark(self) -> str | None:
        """The detail, with a note if the clock was behind the last recorded time."""
        if self.clock_said is None:
            return self.detail
        behind = (
            f"the clock was behind the record: it showed {self.clock_said} for the poll that is"
            f" recorded at {self.first_at}"
        )
        return f"{self.detail}; {behind}" if self.detail else behind


_STATES: Final = {"ok": "looking", "failed": "failed", "held": "held"}


def _joined(observations: Iterable[_Observation]) -> Iterator[_Observation]:
    """Yield the observations, with those as one that were only divided by midnight (UTC)."""
    run: _Observation | None = None
    for row in observations:
        if run is not None and run.goes_on_in(row):
            run = msgspec.structs.replace(run, last_at=row.last_at, polls=run.polls + row.polls)
            continue
        if run is not None:
            yield run
        run = row
    if run is not None:
        yield run


def _timeline(
    observations: Iterable[_Observation], since: str | None, until: str | None
) -> Iterator[Row]:
    """Yield a row for each observation and for each gap between two observations.

    If ``since`` is before the first observation, there is also a gap between them. If ``until`` is
    after the last observation, there is also a gap between these two.
    """
    reached: str | None = None
    for row in observations:
        before = since if reached is None else reached
        if before is not None and before < row.first_at:
            yield _hole(before, row.first_at)
        yield {
            "from": row.first_at,
            "to": row.last_at,
            "state": _STATES.get(row.outcome, row.outcome),
            "polls": row.polls,
            "detail": row.remark,
        }
        reached = max(reached or "", row.last_at)
    before = since if reached is None else reached
    if before is not None and until is not None and before < until:
        yield _hole(before, until)


def _hole(start: str, end: str) -> Row:
    return {"from": start, "to": end, "state": "hole", "polls": 0, "detail": None}
