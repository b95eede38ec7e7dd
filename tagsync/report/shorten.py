"""Pure: how much of each list is in a report, and shorter lists."""

import shlex
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from tagsync.report.content import ListName, Report, ReportList, ReportQuestion

_NAMES: Final[tuple[ListName, ...]] = get_args(ListName)

_IN_TIME: Final = frozenset({"changes", "immutable"})
"""The lists in the order of time, of which the newest rows are the last ones."""


def with_lengths(report: Report, totals: Mapping[ListName, int | None]) -> Report:
    """Return a report that says how much of each list it has.

    Args:
        report: The report.
        totals: The number of all rows of each list. None if the rows that are left out were not
            counted.
    """
    lists = [
        ReportList(name, len(getattr(report, name)), totals[name], _command(name, report.question))
        for name in _NAMES
    ]
    return msgspec.structs.replace(report, lists=lists)


def shorten(report: Report) -> Report:
    """Return a report with half of the rows of each list, the most important half.

    One repository stays, for which the times of the question are shown.
    """
    shorter: dict[str, Any] = {}
    for name in _NAMES:
        rows = getattr(report, name)
        kept = len(rows) // 2 or len(rows) * (name == "repositories")
        shorter[name] = rows[len(rows) - kept :] if name in _IN_TIME else rows[:kept]
    totals = {each.name: each.total for each in report.lists}
    return with_lengths(msgspec.structs.replace(report, **shorter), totals)


def _command(name: ListName, question: ReportQuestion) -> str:
    """Return the command that gives all rows of a list."""
    pattern, repository = shlex.quote(question.pattern), shlex.quote(question.repository)
    since = f" --since {question.from_}" if question.from_ else ""
    until = f" --until {question.to}" if question.to else ""
    moment = f" --at {question.to}" if question.to else ""
    commands: dict[ListName, str] = {
        "repositories": f"tagsync status {repository} --all --format json",
        "answers": f"tagsync tags {pattern}{moment} --format json",
        "changes": f"tagsync log {pattern} --no-baseline{since}{until} --format json",
        "coverage": f"tagsync coverage {repository} --summary{since}{until} --format json",
        "gaps": f"tagsync coverage {repository}{since}{until} --format json",
        "images": "tagsync find DIGEST --format json",
        "immutable": f"tagsync log {pattern} --immutable --accepted{since}{until} --format json",
    }
    return commands[name]
