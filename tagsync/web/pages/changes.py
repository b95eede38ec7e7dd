"""The list of all changes."""

from datetime import date, timedelta

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.web import queries
from tagsync.web.pages.page import number, read, render, text
from tagsync.web.urls import url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/changes?before=``. With ``day``, redirect to the changes until its end."""
    before = number(request, "before", queries.NO_CHANGE, meaning="the id of a change")
    if day := text(request, "day"):
        end = _end_of(day)
        following = await read(datasette, lambda record: queries.first_change_from(record, end))
        return Response.redirect(url("/changes", before=following))
    context = await read(datasette, lambda record: queries.changes(record, before))
    later = before != queries.NO_CHANGE
    return await render(datasette, request, "changes.html", {**context, "later": later})


def _end_of(day: str) -> str:
    """Return the day after a day."""
    try:
        return (date.fromisoformat(day) + timedelta(days=1)).isoformat()
    except (ValueError, OverflowError) as error:
        raise BadRequest("invalid parameter day: give a date such as 2026-05-03") from error
