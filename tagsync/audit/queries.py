"""Read-only queries. The keys of a row are the column names that users see."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from tagsync.audit import at_moment, change_log, digest_search, immutable_changes, verify
from tagsync.audit.change_log import EVERYTHING, ChangeFilter
from tagsync.audit.charts import Charts
from tagsync.audit.coverage_summary import seconds
from tagsync.audit.immutable_changes import OPEN, ImmutableChange, ImmutableFilter
from tagsync.audit.proof import Proof, find_proof
from tagsync.audit.rows import HeadRow, head_rows
from tagsync.audit.selection import Selection, matching, select, selected
from tagsync.audit.timeline import read_observations, timeline
from tagsync.audit.verify_progress import OnRows, rows_to_read
from tagsync.database import migrations
from tagsync.database.connection import Connection, reading
from tagsync.database.decoding import check_timestamp, check_values, decode
from tagsync.database.hash_chain import Heads, read_heads
from tagsync.database.outbox import Outbox
from tagsync.database.verifications import Verification, read_last_verification
from tagsync.errors import UnknownTag, UnusableDatabase
from tagsync.models import Repository, Watch, is_glob
from tagsync.schedule import stale

Row = dict[str, Any]

# A poll that finds a repository's row damaged leaves it as it is, so only the observation says so.
_STATUS_SQL: Final = """
    SELECT registry, name, last_complete_at,
           (SELECT count(*) FROM tags WHERE repository_id = r.id) AS tags, outcome,
           iif(reasons = 'damaged', polls, failures) AS failures,
           iif(reasons = 'damaged', detail, last_error) AS last_error,
           iif(outcome = 'ok' AND instr(reasons, 'list_distrusted'), detail, NULL) AS distrust
    FROM repositories AS r LEFT JOIN observations AS o
         ON o.id = (SELECT max(id) FROM observations WHERE repository_id = r.id)
"""
_TAGS_SQL: Final = """
    SELECT repository, tag, digest, image_id, size, updated, changed_at FROM current_tags
    WHERE repository = ? ORDER BY tag
"""
_NUMBERS_SQL: Final = """
    SELECT id FROM repositories WHERE full_name IN (SELECT value FROM json_each(?))
"""
_HAS_TAG_SQL: Final = "SELECT 1 FROM changes WHERE repository_id = ? AND tag = ? LIMIT 1"
_SOME_TAGS_SQL: Final = """
    SELECT DISTINCT tag FROM changes
    WHERE repository_id IN (SELECT value FROM json_each(?)) LIMIT 5000
"""
_NEVER_POLLED: Final[Row] = {
    "last_complete_at": None,
    "tags": None,
    "outcome": None,
    "failures": 0,
    "last_error": None,
    "distrust": None,
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

    @property
    def charts(self) -> Charts:
        """The queries for charts and pages.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        return Charts(self._db, self._path)

    @property
    def outbox(self) -> Outbox:
        """The events and destinations of notifications, for reading only.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return Outbox(lambda: nullcontext(self._db), _refuse_to_write)

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
        selection = self.select(patterns)
        for repository in selection.repositories:
            for row in self._db.query(_TAGS_SQL, (repository.full_name,)):
                check_values(row, f"a tag of {repository.full_name}")
                if selection.has(repository.full_name, row["tag"]):
                    yield row

    def tags_at(self, patterns: Sequence[str], moment: str) -> Iterator[Row]:
        """Yield the image that each tag pointed to; see `at_moment.tags_at`.

        Args:
            patterns: Globs over full names. If the sequence is empty, every repository matches.
            moment: The time, as `tagsync.clock.timestamp` writes it.

        Raises:
            UnknownRepository: If a pattern matches no recorded repository.
        """
        selection = self.select(patterns)
        for repository in selection.repositories:
            for row in at_moment.tags_at(self._db, repository, moment):
                if selection.has(repository.full_name, row["tag"]):
                    yield row

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
        selection = self.select(patterns)
        for repository in selection.repositories:
            for row in at_moment.diff(self._db, repository, start, end):
                if selection.has(repository.full_name, row["tag"]):
                    yield row

    def log(
        self,
        patterns: Sequence[str],
        wanted: ChangeFilter = EVERYTHING,
        *,
        newest: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Row]:
        """Yield the changes, oldest first; see `change_log.changes`.

        Args:
            patterns: Patterns, see `tagsync.audit.selection`. Without any, everything matches.
            wanted: Which changes to yield.
            newest: The number of changes to yield, counted from the newest. None means all.
            reverse: Whether to yield the newest change first.

        Raises:
            UnclearQuestion: If a pattern is invalid.
            UnknownRepository: If a pattern matches no recorded repository.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        return change_log.changes(
            self._db, self._narrowed(patterns), wanted, newest=newest, reverse=reverse
        )

    def count_changes(
        self, patterns: Sequence[str], wanted: ChangeFilter
    ) -> Iterator[change_log.ChangeCount]:
        """Yield how many changes each tag had, by kind; see `change_log.count_changes`.

        Raises:
            UnclearQuestion: If a pattern is invalid.
            UnknownRepository: If a pattern matches no recorded repository.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        return change_log.count_changes(self._db, self._narrowed(patterns), wanted)

    def count_baseline(self, patterns: Sequence[str], wanted: ChangeFilter) -> tuple[int, int]:
        """Return how many tags of the baseline match, and of how many repositories.

        Raises:
            UnclearQuestion: If a pattern is invalid.
            UnknownRepository: If a pattern matches no recorded repository.
        """
        return change_log.count_baseline(self._db, self._narrowed(patterns), wanted)

    def immutable_changes(
        self, wanted: ImmutableFilter = OPEN, newest: int | None = None
    ) -> list[ImmutableChange]:
        """Return changes of immutable tags; see `immutable_changes.immutable_changes`.

        Raises:
            DamagedRecord: If a row is not what tagsync wrote.
        """
        return immutable_changes.immutable_changes(self._db, wanted, newest)

    def count_immutable_changes(self, wanted: ImmutableFilter = OPEN) -> int:
        """Return the number of changes of immutable tags that a filter includes."""
        return immutable_changes.count_immutable_changes(self._db, wanted)

    def immutable_change(self, change_id: int) -> ImmutableChange | None:
        """Return a change by its id, or None if it moved or deleted no immutable tag.

        Raises:
            DamagedRecord: If its row is not what tagsync wrote.
        """
        return immutable_changes.immutable_change(self._db, change_id)

    def last_change_id(self) -> int:
        """Return the id of the newest change, or 0 if there is none."""
        (number,) = self._db.execute("SELECT coalesce(max(id), 0) FROM changes").fetchone()
        return int(number)

    def select(self, patterns: Sequence[str]) -> Selection:
        """Return the recorded repositories, and the tags, that match a pattern.

        Raises:
            UnclearQuestion: If a pattern is invalid.
            UnknownRepository: If a pattern matches no recorded repository.
        """
        return select(self.repositories(()), patterns)

    def check_tags(self, patterns: Sequence[str], tag: str | None = None) -> None:
        """Check that the tags that patterns name were ever recorded. Globs may match nothing.

        Args:
            patterns: As in `select`.
            tag: The name of a tag in any of the matching repositories, or a glob. None means that
                only the patterns name tags.

        Raises:
            UnclearQuestion: If a pattern is invalid.
            UnknownRepository: If a pattern matches no recorded repository.
            UnknownTag: If one of the tags was never recorded.
        """
        selection = self.select(patterns)
        for pattern in selection.patterns:
            self._check_tag(pattern.tag, selected(selection.repositories, [pattern.repository]))
        self._check_tag(tag, selection.repositories)

    def _check_tag(self, tag: str | None, repositories: Sequence[Repository]) -> None:
        if tag is None or is_glob(tag):
            return
        names = [repository.full_name for repository in repositories]
        numbers = [
            number for (number,) in self._db.execute(_NUMBERS_SQL, (json.dumps(names),)).fetchall()
        ]
        for number in numbers:
            if self._db.execute(_HAS_TAG_SQL, (number, tag)).fetchone():
                return
        known = self._db.execute(_SOME_TAGS_SQL, (json.dumps(numbers),)).fetchall()
        raise UnknownTag(tag, names, [str(each) for (each,) in known])

    def _narrowed(self, patterns: Sequence[str]) -> Selection | None:
        """Return what patterns select, or None if that is everything."""
        selection = self.select(patterns)
        everything = not patterns or len(selection.repositories) == len(self.repositories(()))
        return None if everything and not selection.narrowed else selection

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
            for row in timeline(read_observations(self._db, repository), since, until):
                if (since or "") <= row["to"] and (until is None or row["from"] <= until):
                    for moment in (row["from"], row["to"]):
                        check_timestamp(moment, f"the observations of {name}")
                    yield {"repository": name, **row, "seconds": seconds(row["from"], row["to"])}

    def find(self, *digests: str, current: bool = False) -> Iterator[Row]:
        """Yield each interval in which a tag led to a digest; see `digest_search.find`.

        Raises:
            UnclearQuestion: If a text is not a digest, or is the prefix of several digests.
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return digest_search.find(self._db, digests, current=current)

    def find_some(self, digest: str, most: int) -> tuple[list[Row], bool]:
        """Return rows of `find` at a bounded cost; see `digest_search.find_some`.

        Raises:
            UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return digest_search.find_some(self._db, digest, most)

    def digests_beginning(self, text: str) -> list[str]:
        """Return digests that begin with a text; see `digest_search.digests_beginning`.

        Raises:
            UnclearQuestion: If the text is not a digest.
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return digest_search.digests_beginning(self._db, text)

    def heads(self) -> Heads:
        """Return the heads of both hash chains.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
            DamagedRecord: If a row is not what tagsync wrote.
        """
        migrations.check_current(self._db, self._path)
        return read_heads(self._db)

    def head_rows(self) -> list[HeadRow]:
        """Return the heads of both hash chains as rows; the errors are those of `heads`."""
        return head_rows(self.heads())

    def verify(
        self, heads: Collection[str] = (), on_rows: OnRows = lambda *_: None
    ) -> Iterator[Row]:
        """Verify the database; see `tagsync.audit.verify.verify`.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(self._db, self._path)
        return verify.verify(self._db, heads, on_rows)

    def last_verification(self) -> Verification | None:
        """Return the daemon's last verification, or None if there was none.

        Raises:
            DamagedRecord: If its row is not what tagsync wrote.
        """
        return read_last_verification(self._db)

    def rows_to_verify(self) -> int:
        """Return about how many rows `verify` will read."""
        return rows_to_read(self._db)

    def proof(self, heads: Collection[str] = ()) -> Proof:
        """Return what `verify` proves if it finds no fault; see `tagsync.audit.proof.find_proof`.

        Raises:
            DamagedRecord: If a row is not what tagsync wrote.
        """
        return find_proof(self._db, heads)


def _refuse_to_write(_: object) -> None:
    raise TypeError("the database is open for reading only")
