"""The record for Python: the same rows as the commands, as the types of `tagsync.audit.rows`.

``import tagsync`` offers `open` as ``tagsync.open``::

    with tagsync.open("/var/lib/tagsync/tagsync.db") as record:
        for change in record.log("swr/team-a/*", moved=True):
            print(change.observed_at, change.repository, change.tag, change.new_digest)

Every error that a caller can expect is a `tagsync.errors.TagsyncError`, whose message is one
sentence:

- `UnclearQuestion`: a pattern, a digest or a time is invalid, ambiguous or in the future.
- `UnknownRepository`, `UnknownTag`: a pattern matches no recorded repository, or names a tag that
  was never recorded.
- `UnusableDatabase`: the file is missing, or this tagsync cannot use it.
- `DamagedRecord`: a row is not what tagsync wrote.
- `StoreError`, the base of all but the first: the file cannot be read for another reason.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import msgspec

from tagsync.audit import coverage_summary, digest_search
from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.moments import check_order, parse_iso, to_recorded
from tagsync.audit.queries import Audit
from tagsync.audit.rows import (
    CoverageRow,
    CoverageSummaryRow,
    DiffRow,
    FindRow,
    FindSummaryRow,
    HeadRow,
    ImmutableLogRow,
    LogRow,
    StatusRow,
    TagsAtRow,
    TagsRow,
    VerifyRow,
    as_rows,
)
from tagsync.audit.selection import without_tags
from tagsync.clock import utc_now
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import UnclearQuestion
from tagsync.models import Kind, Repository, Watch

Moment = str | datetime
"""A time: ISO 8601, in UTC unless it says otherwise, or a datetime with a time zone."""

_Row = TypeVar("_Row", bound=msgspec.Struct)


def open(path: str | PathLike[str]) -> "Record":  # noqa: A001  as in `gzip.open`
    """Open a database to read it. Close the result, or use it as a context manager.

    Opening creates no file and does not migrate the database.

    Raises:
        UnusableDatabase: If the file is missing, or belongs to another program or to a newer
            tagsync.
        StoreError: If the file cannot be read.
    """
    return Record(Path(path))


class Record:
    """A database that is open for reading.

    All methods see the record as it was when it was opened; later polls need another `open`. A
    writer cannot shorten its WAL as long as a record is open, so do not keep it open for hours.
    Each method returns an iterator, which reads rows as they are needed, and so may raise the
    errors of the database while it is used.

    A pattern is a glob over full names, ``registry/namespace/repository``; ``PATTERN:TAG`` narrows
    it to tags. Without patterns, everything matches.
    """

    def __init__(self, path: Path) -> None:
        """Open a database; see `open`."""
        self._path = path
        self._stack = ExitStack()
        self._audit = self._stack.enter_context(Audit.open(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def close(self) -> None:
        """Close the database.

        Raises:
            StoreError: If another process has written to the file in a way that makes what was read
                unreliable.
        """
        self._stack.close()

    def status(self, *patterns: str, interval: timedelta | None = None) -> Iterator[StatusRow]:
        """Return how fresh the record of each repository is, sorted by name.

        Args:
            patterns: Globs over full names.
            interval: The time between two polls, with which ``stale`` is determined. Without it
                ``stale`` is None, because the database does not contain the configuration.
        """

        def watch(repository: Repository) -> Watch | None:
            if interval is None:
                return None
            return Watch(repository.registry, (repository.name,), interval=interval)

        def query(audit: Audit) -> Iterator[dict[str, Any]]:
            found = audit.repositories(without_tags(patterns))
            return iter(audit.status({each: watch(each) for each in found}, utc_now()))

        return self._rows(StatusRow, query)

    @overload
    def tags(self, *patterns: str, at: None = None) -> Iterator[TagsRow]: ...

    @overload
    def tags(self, *patterns: str, at: Moment) -> Iterator[TagsAtRow]: ...

    def tags(
        self, *patterns: str, at: Moment | None = None
    ) -> Iterator[TagsRow] | Iterator[TagsAtRow]:
        """Return what each tag points to, or pointed to at a time, and how certain that is.

        Args:
            patterns: Which repositories and tags.
            at: The time. None means the last complete listing of each repository.
        """
        if at is None:
            return self._rows(TagsRow, lambda audit: audit.tags(patterns), patterns)
        moment = _recorded(at)
        return self._rows(TagsAtRow, lambda audit: audit.tags_at(patterns, moment), patterns)

    def log(
        self,
        *patterns: str,
        since: Moment | None = None,
        until: Moment | None = None,
        kinds: Sequence[Kind] = (),
        tag: str | None = None,
        moved: bool = False,
        baseline: bool = True,
        newest: int | None = None,
        reverse: bool = False,
        after: int | None = None,
    ) -> Iterator[LogRow]:
        """Return the recorded changes, oldest first.

        Args:
            patterns: Which repositories and tags.
            since: Leave out changes that certainly happened before this time.
            until: Leave out changes that certainly happened after this time.
            kinds: Only these kinds of changes. Empty means all.
            tag: Only tags of this name, or that match this glob. None means all.
            moved: Only moves to another digest.
            baseline: Whether to include the tags that existed when their repository was first
                listed.
            newest: Only so many changes, counted from the newest. None means all.
            reverse: Whether to return the newest change first.
            after: Only changes with a higher id. None means all.
        """
        start, end = _span(since, until)
        wanted = ChangeFilter(start, end, kinds, tag, moved, baseline, after)

        def query(audit: Audit) -> Iterator[dict[str, Any]]:
            return audit.log(patterns, wanted, newest=newest, reverse=reverse)

        return self._rows(LogRow, query, patterns, tag)

    def immutable_changes(
        self,
        *patterns: str,
        accepted: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        newest: int | None = None,
        reverse: bool = False,
        after: int | None = None,
    ) -> Iterator[ImmutableLogRow]:
        """Return the changes that moved or deleted a tag that must not move, oldest first.

        Args:
            patterns: Which repositories and tags.
            accepted: Whether to include the changes that were accepted.
            since: Leave out changes that certainly happened before this time.
            until: Leave out changes that certainly happened after this time.
            newest: Only so many changes, counted from the newest. None means all.
            reverse: Whether to return the newest change first.
            after: Only changes with a higher id. None means all.
        """
        start, end = _span(since, until)
        wanted = ChangeFilter(start, end, after=after, immutable="all" if accepted else "open")

        def query(audit: Audit) -> Iterator[dict[str, Any]]:
            return audit.log(patterns, wanted, newest=newest, reverse=reverse)

        return self._rows(ImmutableLogRow, query, patterns)

    def diff(self, *patterns: str, start: Moment, end: Moment | None = None) -> Iterator[DiffRow]:
        """Return the net difference between two times.

        Args:
            patterns: Which repositories and tags.
            start: The earlier time.
            end: The later time. None means the time of the last listing of each repository.
        """
        first, last = _span(start, end)
        return self._rows(DiffRow, lambda audit: audit.diff(patterns, first or "", last), patterns)

    @overload
    def find(
        self, *digests: str, current: bool = False, summary: Literal[False] = False
    ) -> Iterator[FindRow]: ...

    @overload
    def find(self, *digests: str, summary: Literal[True]) -> Iterator[FindSummaryRow]: ...

    def find(
        self, *digests: str, current: bool = False, summary: bool = False
    ) -> Iterator[FindRow] | Iterator[FindSummaryRow]:
        """Return every interval in which a tag led to a digest, or how many tags did.

        Args:
            digests: Digests of manifests, configurations or layers, or unique prefixes of these.
            current: Whether to leave out intervals that have ended. It has no effect on a summary.
            summary: Whether to return a row for each digest, with the number of tags.
        """
        if summary:
            return self._rows(
                FindSummaryRow, lambda audit: digest_search.summarize(audit.find(*digests))
            )
        return self._rows(FindRow, lambda audit: audit.find(*digests, current=current))

    @overload
    def coverage(
        self,
        *patterns: str,
        since: Moment | None = None,
        until: Moment | None = None,
        summary: Literal[False] = False,
    ) -> Iterator[CoverageRow]: ...

    @overload
    def coverage(
        self,
        *patterns: str,
        since: Moment | None = None,
        until: Moment | None = None,
        summary: Literal[True],
    ) -> Iterator[CoverageSummaryRow]: ...

    def coverage(
        self,
        *patterns: str,
        since: Moment | None = None,
        until: Moment | None = None,
        summary: bool = False,
    ) -> Iterator[CoverageRow] | Iterator[CoverageSummaryRow]:
        """Return when tagsync was looking, and the gaps in between, or how much that covers.

        Args:
            patterns: Globs over full names.
            since: Leave out what ended before this time. A summary begins at this time.
            until: Leave out what began after this time. A summary ends at this time.
            summary: Whether to return a row for each repository, with its totals.
        """
        start, end = _span(since, until)

        def query(audit: Audit) -> Iterator[dict[str, Any]]:
            return audit.coverage(without_tags(patterns), since=start, until=end)

        if summary:
            return self._rows(
                CoverageSummaryRow,
                lambda audit: coverage_summary.summarize(
                    coverage_summary.clip(query(audit), start, end)
                ),
            )
        return self._rows(CoverageRow, query)

    def verify(self, *heads: str) -> Iterator[VerifyRow]:
        """Check that the record was not altered; return the result of each check as it ends.

        Args:
            heads: Hashes of either chain that a witness has kept.
        """
        return self._rows(VerifyRow, lambda audit: audit.verify(heads))

    def heads(self) -> Iterator[HeadRow]:
        """Return the heads of both hash chains: of the changes, then of the observations."""
        with translate_sqlite_errors(self._path):
            return iter(self._audit.head_rows())

    def _rows(
        self,
        kind: type[_Row],
        query: Callable[[Audit], Iterator[dict[str, Any]]],
        patterns: Sequence[str] = (),
        tag: str | None = None,
    ) -> Iterator[_Row]:
        """Return the rows of a query, after a check of the tags that were named."""
        with translate_sqlite_errors(self._path):
            self._audit.check_tags(patterns, tag)
            rows = as_rows(query(self._audit), kind)
        return self._translated(rows)

    def _translated(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        with translate_sqlite_errors(self._path):
            yield from rows


def _span(since: Moment | None, until: Moment | None) -> tuple[str | None, str | None]:
    start = None if since is None else _recorded(since)
    end = None if until is None else _recorded(until, clip=True)
    check_order(start, end, str(since), str(until))
    return start, end


def _recorded(moment: Moment, *, clip: bool = False) -> str:
    """Return a time as the database has it.

    Raises:
        UnclearQuestion: If the text is not a time, if the time has no zone, or if it is in the
            future and ``clip`` does not let it mean now.
    """
    try:
        time = parse_iso(moment) if isinstance(moment, str) else moment
        if time.tzinfo is None:
            raise UnclearQuestion(f"the time {moment} has no time zone: add one, such as UTC")
        return to_recorded(time, utc_now(), str(moment), clip=clip)
    except (ValueError, OverflowError):
        raise UnclearQuestion(
            f"invalid time {str(moment)!r}: write it as 2026-05-03, as 2026-05-03T12:00 (UTC) or as"
            " 2026-05-03T12:00+02:00"
        ) from None
