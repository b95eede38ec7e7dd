"""Query the record for a report: the answer to a question, and the evidence for it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from glob import escape
from importlib.metadata import version
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.coverage_summary import clip, summarize
from tagsync.audit.queries import Audit
from tagsync.audit.ranges import Range
from tagsync.audit.rows import CoverageSummaryRow, ImmutableLogRow, LogRow, TagsAtRow, as_rows
from tagsync.audit.selection import Pattern
from tagsync.clock import timestamp
from tagsync.models import Repository, is_glob
from tagsync.report.content import (
    ListName,
    Report,
    ReportAnswer,
    ReportCounts,
    ReportGap,
    ReportProof,
    ReportQuestion,
    ReportRepository,
)
from tagsync.report.how_to_repeat import check_script, in_sql
from tagsync.report.images import images_of
from tagsync.report.shorten import with_lengths
from tagsync.report.verification import last_verification

_PAGE: Final = 1000
"""Number of tags that are read at once to find those that match a glob."""

Row = dict[str, Any]


class Limits(NamedTuple):
    """Maximum number of rows in each list of a report."""

    repositories: int = 100
    answers: int = 1000
    changes: int = 1000
    gaps: int = 200
    images: int = 50
    immutable: int = 200


LIMITS: Final = Limits()


_Tag = tuple[str, str]
"""The full name of a repository, and the name of a tag."""


class _Counts(NamedTuple):
    """The changes between the two times of the question.

    Attributes:
        total: Those of all repositories.
        moves: Number of moves of each tag of the repositories that are shown.
        changes: Number of changes of each of these tags.
        tags: The tags of all repositories, if the question narrows them.
    """

    total: ReportCounts
    moves: Counter[_Tag]
    changes: Counter[_Tag]
    tags: set[str]


class _Part(NamedTuple):
    """A repository of the question, and its two times. They are None if it was never listed."""

    repository: Repository
    start: str | None
    end: str | None
    last_complete_at: str | None


def ask(pattern: str, start: str | None, end: str | None) -> ReportQuestion:
    """Return a question.

    Args:
        pattern: A pattern, see `tagsync.audit.selection`.
        start: The first time, as `tagsync.clock.timestamp` writes it. None means the first complete
            listing of each repository.
        end: The second time in the same form. None means the last complete listing of each.

    Raises:
        UnclearQuestion: If the pattern is invalid.
    """
    parsed = Pattern.parse(pattern)
    return ReportQuestion(pattern, parsed.repository, parsed.tag, start, end)


def collect(
    audit: Audit,
    question: ReportQuestion,
    made_at: datetime,
    proof: ReportProof | None = None,
    limits: Limits = LIMITS,
) -> Report:
    """Return the report on a question. The same record gives the same report.

    Args:
        audit: The record.
        question: The question.
        made_at: The current time.
        proof: A verification of the same state of the record. None if none was run.
        limits: The length of the lists.

    Raises:
        UnknownRepository: If the pattern matches no recorded repository.
        UnknownTag: If the pattern names a tag that was never recorded.
        UnusableDatabase: If an older tagsync wrote the database last.
        DamagedRecord: If a row is not what tagsync wrote.
    """
    audit.check_tags([question.pattern])
    parts = _parts(audit, question, made_at)
    shown = parts[: limits.repositories]
    # The filter has the tag, too, so that SQLite finds the changes of one tag by an index.
    wanted = ChangeFilter(question.from_, question.to, tag=question.tag, baseline=False)
    counts = _count(audit, question, wanted, shown)
    answers = _answers(audit, question, shown, counts, limits.answers + 1)
    changes = list(as_rows(audit.log([question.pattern], wanted, newest=limits.changes), LogRow))
    immutable, all_immutable = _immutable(audit, question, wanted, limits.immutable)
    coverage, gaps, all_gaps = _coverage(audit, shown)
    images = list(islice(images_of(audit.charts, answers, changes), limits.images + 1))
    names = [part.repository.full_name for part in parts]
    heads = audit.heads()
    report = Report(
        made_at=timestamp(made_at),
        version=version("tagsync"),
        question=question,
        repositories=[ReportRepository(part.repository.full_name, *part[1:]) for part in shown],
        answers=answers[: limits.answers],
        counts=counts.total,
        changes=changes,
        coverage=coverage,
        gaps=gaps[: limits.gaps],
        images=images[: limits.images],
        verification=last_verification(audit),
        proof=proof,
        heads=audit.head_rows(),
        queries=list(in_sql(question, names, _tags_of(answers) | counts.tags)),
        check=check_script(heads.changes),
        lists=[],
        immutable=immutable,
    )
    is_whole = len(shown) == len(parts)
    totals: dict[ListName, int | None] = {
        "repositories": len(parts),
        "answers": len(answers) if is_whole and len(answers) <= limits.answers else None,
        "changes": report.counts.total,
        "coverage": len(coverage) if is_whole else None,
        "gaps": len(gaps) if is_whole and all_gaps else None,
        "images": len(images) if len(images) <= limits.images else None,
        "immutable": all_immutable,
    }
    return with_lengths(report, totals)


def _parts(audit: Audit, question: ReportQuestion, now: datetime) -> list[_Part]:
    parts = []
    for repository in audit.repositories([question.repository]):
        last = audit.charts.last_listing(repository)
        if last is None:
            parts.append(_Part(repository, None, None, None))
            continue
        start = question.from_ or audit.charts.range("all", now, repository).start
        parts.append(_Part(repository, start, question.to or max(start, last), last))
    return parts


def _count(
    audit: Audit, question: ReportQuestion, wanted: ChangeFilter, parts: Iterable[_Part]
) -> _Counts:
    """Count the changes of all repositories, and of the tags of those that are shown."""
    shown = {part.repository.full_name for part in parts}
    total: Counter[str] = Counter()
    moves: Counter[_Tag] = Counter()
    changes: Counter[_Tag] = Counter()
    tags: set[str] = set()
    for count in audit.count_changes([question.pattern], wanted):
        total["moved" if count.moved else count.kind] += count.changes
        if question.tag is not None:
            tags.add(count.tag)
        if count.repository in shown:
            moves[count.repository, count.tag] += count.changes * count.moved
            changes[count.repository, count.tag] += count.changes
    kinds = ReportCounts(*(total[kind] for kind in ReportCounts.__struct_fields__))
    return _Counts(kinds, moves, changes, tags)


def _immutable(
    audit: Audit, question: ReportQuestion, wanted: ChangeFilter, limit: int
) -> tuple[list[ImmutableLogRow], int]:
    """Return the newest changes of tags that must not move, and the number of all of them."""
    filtered = msgspec.structs.replace(wanted, immutable="all")
    rows = audit.log([question.pattern], filtered, newest=limit)
    counts = audit.count_changes([question.pattern], filtered)
    return list(as_rows(rows, ImmutableLogRow)), sum(count.changes for count in counts)


def _answers(
    audit: Audit,
    question: ReportQuestion,
    parts: Iterable[_Part],
    counts: _Counts,
    limit: int,
) -> list[ReportAnswer]:
    """Return the answers, at most ``limit``."""
    found: list[ReportAnswer] = []
    for part in parts:
        rest = limit - len(found)
        found += islice(_answers_of(audit, question, part, counts), rest) if rest else ()
    return found


def _answers_of(
    audit: Audit,
    question: ReportQuestion,
    part: _Part,
    counts: _Counts,
) -> Iterator[ReportAnswer]:
    """Yield the answers for a repository, or one about all of it if no tag is known."""
    name, found = part.repository.full_name, False
    tags = _tags(audit, part.repository, question.tag)
    while names := list(islice(tags, _PAGE)):
        first = _states(audit, part, part.start, names, earliest=question.from_ is None)
        second = _states(audit, part, part.end, names)
        for tag in names:
            key = (name, tag)
            if tag in first or tag in second or counts.changes[key]:
                found = True
                before, after = first.get(tag, first[None]), second.get(tag, second[None])
                yield ReportAnswer(name, tag, before, after, counts.moves[key], counts.changes[key])
    if not found:
        before, after = (_states(audit, part, at, ())[None] for at in (part.start, part.end))
        if before or after:
            yield ReportAnswer(name, None, before, after, 0, 0)


def _tags(audit: Audit, repository: Repository, pattern: str | None) -> Iterator[str]:
    """Yield the tags of a repository that match a pattern, and were ever recorded."""
    if pattern is not None and not is_glob(pattern):
        yield pattern
        return
    after = ""
    while names := audit.charts.tag_names(repository, after, _PAGE):
        yield from (name for name in names if pattern is None or fnmatchcase(name, pattern))
        after = names[-1]


def _states(
    audit: Audit,
    part: _Part,
    moment: str | None,
    tags: Sequence[str],
    *,
    earliest: bool = False,
) -> Mapping[str | None, Sequence[TagsAtRow]]:
    """Return the states in which each tag may have been at a moment.

    A tag that is missing did not exist in the listings. How certain that is, the states of None
    say: they are empty if complete listings cover the moment.

    Args:
        audit: The record.
        part: The repository.
        moment: The time. None if the repository was never listed.
        tags: The tags.
        earliest: Whether the moment is the first listing. It took a while, and what it says of a
            tag is certain, although the tag may have changed before it ended.
    """
    found: dict[str | None, list[TagsAtRow]] = {None: []}
    if moment is None:
        return found
    query = audit.charts.tags_at
    found[None] = list(as_rows(query(part.repository, moment, ()), TagsAtRow))
    for row in as_rows(query(part.repository, moment, tags), TagsAtRow) if tags else ():
        if row.tag is not None:
            found.setdefault(row.tag, []).append(row)
    return {tag: _first(rows) for tag, rows in found.items()} if earliest else found


def _first(rows: Sequence[TagsAtRow]) -> Sequence[TagsAtRow]:
    """Return only the first one of the possible states, as certain."""
    return [
        msgspec.structs.replace(row, certainty="certain", unsure_from=None, unsure_until=None)
        for row in rows[:1]
        if row.present is not False
    ]


def _coverage(
    audit: Audit, parts: Iterable[_Part]
) -> tuple[list[CoverageSummaryRow], list[ReportGap], bool]:
    """Return how much of the time is covered, the gaps, the longest first, and if these are all."""
    summaries: list[CoverageSummaryRow] = []
    found: list[ReportGap] = []
    complete = True
    for part in parts:
        if part.start is None or part.end is None:
            continue
        gaps, searched = audit.charts.gaps(part.repository, Range(part.start, part.end))
        complete = complete and not searched.shortened
        found += [
            ReportGap(gap.repository, gap.start, gap.end, gap.seconds, gap.polls, gap.detail)
            for gap in gaps
        ]
        ends_in_gap = bool(gaps) and gaps[-1].lasts
        rows = _watched(audit, part.repository, part.start, part.end, ends_in_gap=ends_in_gap)
        summaries += as_rows(summarize(rows), CoverageSummaryRow)
    found.sort(key=lambda gap: (-gap.seconds, gap.repository, gap.from_))
    return summaries, found, complete


def _watched(
    audit: Audit, repository: Repository, start: str, end: str, *, ends_in_gap: bool
) -> list[Row]:
    """Return the runs of polls of a repository and the gaps between them, within a period.

    The time before the first poll is left out, and that after the last one, unless it is a gap.
    """
    rows = list(audit.coverage([escape(repository.full_name)], since=start, until=end))
    if rows and rows[0]["state"] == "hole" and rows[0]["from"] == start:
        del rows[0]
    if rows and rows[-1]["state"] == "hole" and not ends_in_gap:
        del rows[-1]
    return clip(rows, start, end)


def _tags_of(answers: Iterable[ReportAnswer]) -> set[str]:
    return {answer.tag for answer in answers if answer.tag is not None}
