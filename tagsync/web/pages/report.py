"""The report on repositories or tags, as a file to download."""

import re
import shlex
from datetime import datetime
from typing import Any, Final, get_args

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.moments import check_order, parse_iso, to_recorded
from tagsync.models import is_glob
from tagsync.report.build import MEDIA_TYPES, Format, build
from tagsync.report.collect import ask, collect
from tagsync.report.content import ReportQuestion
from tagsync.report.drawings import draw
from tagsync.web.datasette_database import TIME_LIMIT
from tagsync.web.pages.page import read, render, text
from tagsync.web.snapshot import Snapshot

_LONGEST_NAME: Final = 80
"""Maximum length of the part of a file's name that comes from the pattern, in characters."""

MOST_CHANGES: Final = 1_500
"""Number of changes up to which a report is made at once, and not only when its button is used."""

_CHANGES_A_SECOND: Final = 35_000
"""Number of changes that a report reads in a second, to say how long it takes."""

_FORMATS: Final = {"html": "HTML", "md": "Markdown", "json": "JSON"}


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/report?pattern=&format=&from=&to=&run=`` with the file of ``tagsync report``.

    A report that has more than `MOST_CHANGES` changes to read is made if ``run`` is 1. Otherwise
    the answer is a page with a form that says how long it takes; with ``run=0`` it always is.
    """
    pattern, chosen = text(request, "pattern"), text(request, "format") or "html"
    start, end = text(request, "from"), text(request, "to")
    formats = {name: name for name in get_args(Format)}
    if chosen not in formats:
        raise BadRequest(f"invalid parameter format: give {', '.join(formats)}")
    if not pattern:
        raise BadRequest("parameter pattern is missing: give REPOSITORY or REPOSITORY:TAG")
    if (run := text(request, "run")) != "1":
        form = await read(datasette, lambda record: _form(record, pattern, start, end))
        if run or form["changes"] > MOST_CHANGES:
            return await render(datasette, request, "report.html", {**form, "chosen": chosen})
    written = await read(
        datasette, lambda record: _report(record, pattern, start, end, formats[chosen])
    )
    name = re.sub("[^A-Za-z0-9._]+", "-", pattern)[:_LONGEST_NAME].strip("-.")
    disposition = f'attachment; filename="report-{name}.{chosen}"'
    return Response(
        written,
        headers={"Content-Disposition": disposition},
        content_type=MEDIA_TYPES[formats[chosen]],
    )


def _question(record: Snapshot, pattern: str, start: str, end: str) -> ReportQuestion:
    """Return the question of the parameters.

    Raises:
        BadRequest: If a time is invalid.
        UnclearQuestion: If the pattern is invalid, or the times are in the wrong order.
    """
    first, last = (_moment(each, record.now) for each in (start, end))
    check_order(first, last, start, end)
    return ask(pattern, first, last)


def _form(record: Snapshot, pattern: str, start: str, end: str) -> dict[str, Any]:
    """Return the data of the page that offers a report."""
    question = _question(record, pattern, start, end)
    record.audit.check_tags([pattern])
    changes = _changes(record, question)
    times = (("--from", question.from_), ("--to", question.to))
    words = [word for option, at in times if at for word in (option, at)]
    return {
        "question": question,
        "changes": changes,
        "seconds": 0 if changes <= MOST_CHANGES else -(-changes // _CHANGES_A_SECOND),
        "limit": int(TIME_LIMIT),
        "formats": _FORMATS,
        "said_from": start,
        "said_to": end,
        "command": shlex.join(["tagsync", "report", pattern, *words, "-o", "report.html"]),
    }


def _changes(record: Snapshot, question: ReportQuestion) -> int:
    """Return the number of changes that a report reads.

    To know the state of a tag at a moment, it reads all changes of the tag, whatever the times are.
    """
    repositories = record.audit.repositories([question.repository])
    if question.tag is None or is_glob(question.tag):
        return record.audit.charts.number_of_changes(repositories)
    wanted = ChangeFilter(tag=question.tag)
    return sum(count.changes for count in record.audit.count_changes([question.pattern], wanted))


def _report(record: Snapshot, pattern: str, start: str, end: str, output_format: Format) -> bytes:
    report = collect(record.audit, _question(record, pattern, start, end), record.now)
    drawings = draw(record.audit, report) if output_format == "html" else ()
    return build(report, output_format, drawings)


def _moment(said: str, now: datetime) -> str | None:
    """Return a time of a parameter as the database has it. None if it is not given.

    Raises:
        BadRequest: If it is not a time.
        UnclearQuestion: If it is in the future.
    """
    if not said:
        return None
    try:
        return to_recorded(parse_iso(said), now, said)
    except (ValueError, OverflowError):
        raise BadRequest(f"invalid time {said!r}: write it as 2026-05-03T12:00 (UTC)") from None
