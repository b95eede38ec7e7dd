"""The report on repositories or tags, as a file to download."""

import re
from datetime import datetime
from typing import Final, get_args

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.audit.moments import check_order, parse_iso, to_recorded
from tagsync.report.build import MEDIA_TYPES, Format, build
from tagsync.report.collect import ask, collect
from tagsync.report.drawings import draw
from tagsync.web.pages.page import read, text
from tagsync.web.snapshot import Snapshot

_LONGEST_NAME: Final = 80
"""Maximum length of the part of a file's name that comes from the pattern, in characters."""


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/report?pattern=&format=&from=&to=`` with the file of ``tagsync report``."""
    pattern, chosen = text(request, "pattern"), text(request, "format") or "html"
    start, end = text(request, "from"), text(request, "to")
    formats = {name: name for name in get_args(Format)}
    if chosen not in formats:
        raise BadRequest(f"invalid parameter format: give {', '.join(formats)}")
    if not pattern:
        raise BadRequest("parameter pattern is missing: give REPOSITORY or REPOSITORY:TAG")
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


def _report(record: Snapshot, pattern: str, start: str, end: str, output_format: Format) -> bytes:
    first, last = (_moment(each, record.now) for each in (start, end))
    check_order(first, last, start, end)
    report = collect(record.audit, ask(pattern, first, last), record.now)
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
