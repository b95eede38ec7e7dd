"""The page of all gaps in coverage, the longest first."""

from datetime import timedelta
from typing import Final

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.audit.coverage_strips import PAGE
from tagsync.audit.ranges import SPANS
from tagsync.web.moment_queries import Row
from tagsync.web.pages.page import number, read, render, text
from tagsync.web.snapshot import Snapshot

_MINUTES: Final = 10
"""Default of the shortest gap, in minutes, as in the saved question ``holes``."""


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/gaps?range=&minutes=&page=``.

    Raises:
        BadRequest: If a parameter is invalid.
    """
    span = text(request, "range") or "7d"
    if span not in SPANS:
        raise BadRequest(f"invalid parameter range: give one of {', '.join(SPANS)}")
    minutes = number(request, "minutes", _MINUTES, meaning="a number of minutes")
    this = number(request, "page", 1, meaning="the number of a page")
    if not 1 <= this <= 10**6 or minutes > 10**6:
        raise BadRequest("invalid parameter page or minutes: give a number from 1 to 1000000")

    def query(record: Snapshot) -> Row:
        charts = record.audit.charts
        period = charts.range(span, record.now)
        return {"found": charts.longest_gaps(period, this, longer_than=timedelta(minutes=minutes))}

    context = {"span": span, "spans": SPANS, "minutes": minutes, "this": this, "page_size": PAGE}
    return await render(
        datasette, request, "gaps.html", {**context, **await read(datasette, query)}
    )
