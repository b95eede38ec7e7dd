"""Draw the charts of a report."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec

from tagsync.audit.lanes import PAGE, Lanes
from tagsync.audit.queries import Audit
from tagsync.audit.ranges import Range
from tagsync.models import Repository, is_glob
from tagsync.report import charts
from tagsync.report.content import Report
from tagsync.report.document import Code, Drawing, Inline, text
from tagsync.report.words import moment

_MOST_LANES: Final = 5
"""Maximum number of repositories whose tags are drawn. Of more, only the coverage is drawn."""

_ON_FIRST_SHEET: Final = 4
"""Number of lanes in the first of several drawings, so that it fits below the answer on A4."""

_ON_A_SHEET: Final = 14
"""Maximum number of lanes in a drawing, so that it fits on a sheet of A4."""


def draw(audit: Audit, report: Report) -> list[Drawing]:
    """Return the charts of a report: the lanes of its tags, and the coverage of repositories.

    Args:
        audit: The record from which the report was made, in the same state.
        report: The report.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    listed = {row.repository: row for row in report.repositories if row.from_ and row.to}
    repositories = [
        repository
        for repository in audit.repositories([report.question.repository])
        if repository.full_name in listed
    ]
    drawings: list[Drawing] = []
    if len(repositories) > 1:
        drawings.append(_coverage(audit, report, repositories))
    if len(repositories) <= _MOST_LANES:
        for number, repository in enumerate(repositories):
            row = listed[repository.full_name]
            period = Range(row.from_ or "", row.to or "")
            drawings += _lanes(audit, report, repository, period, f"lanes-{number}")
    return drawings


def _coverage(audit: Audit, report: Report, repositories: list[Repository]) -> Drawing:
    starts = [row.from_ for row in report.repositories if row.from_]
    ends = [row.to for row in report.repositories if row.to]
    chart = charts.coverage_chart(audit.charts, repositories, Range(min(starts), max(ends)))
    shown = len(chart.rows.strips)
    which = "" if shown == chart.rows.total else f", the first {shown:,} of {chart.rows.total:,}"
    return Drawing(chart.svg, text(f"Coverage of the repositories{which}", *_range(chart.range)))


def _lanes(
    audit: Audit, report: Report, repository: Repository, period: Range, prefix: str
) -> Iterator[Drawing]:
    """Yield the lanes of the tags that the question is about, if there are any."""
    tag, name = report.question.tag, repository.full_name
    if tag is not None and not is_glob(tag):
        chart = charts.tag_chart(audit.charts, repository, tag, period, prefix=prefix)
        if chart.rows.lanes:
            words = text("The digests of ", Code(f"{name}:{tag}"), *_range(chart.range))
            yield Drawing(chart.svg, words)
        return
    found, cut = _all_lanes(audit, report, repository, period)
    words = text("The tags of ", Code(name), cut, *_range(found.range))
    for start, end in pairwise(_bounds(len(found.lanes))):
        part = msgspec.structs.replace(found, lanes=found.lanes[start:end])
        chart = charts.lanes_chart(audit.charts, repository, part, prefix=f"{prefix}-{start}")
        yield Drawing(chart.svg, text("The next tags.") if start else words)


def _bounds(lanes: int) -> list[int]:
    """Return where drawings of so many lanes begin, and where the last one ends."""
    if lanes <= _ON_A_SHEET:
        return [0, lanes] if lanes else []
    return [0, *range(_ON_FIRST_SHEET, lanes, _ON_A_SHEET), lanes]


def _all_lanes(
    audit: Audit, report: Report, repository: Repository, period: Range
) -> tuple[Lanes, str]:
    """Return the lanes of a repository, at most `PAGE`, and words that say which."""
    if report.question.tag is None:
        found = audit.charts.lanes(repository, period)
        is_cut = found.before is not None
        return found, f", the {len(found.lanes):,} that moved last" if is_cut else ""
    answers = [answer for answer in report.answers if answer.repository == repository.full_name]
    answers.sort(key=lambda answer: -answer.moves)
    tags = [answer.tag for answer in answers if answer.tag is not None]
    each = [audit.charts.tag_lane(repository, tag, period) for tag in tags[:PAGE]]
    if not each:
        return Lanes(period, (), (), 0, None), ""
    shortest = max(each, key=lambda found: found.range.start)
    lanes = tuple(lane for found in each for lane in found.lanes)
    which = f", the {len(lanes):,} that moved most" if len(tags) > PAGE else " that match"
    return msgspec.structs.replace(shortest, lanes=lanes), which


def _range(period: Range) -> tuple[Inline, ...]:
    words = f", from {moment(period.start)} to {moment(period.end)} UTC"
    note = ". The time before has too many changes to be drawn" if period.shortened else ""
    return (f"{words}{note}.",)
