"""The front page: the freshness of the record, its alarms, charts, and latest changes."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import chart_queries, queries
from tagsync.web.pages import as_of
from tagsync.web.pages.page import moment, read, render, text
from tagsync.web.urls import url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/``, or ``/?at=``. With ``q`` or ``after``, redirect to the list of repositories."""
    if at := moment(datasette, request, "at"):
        return await as_of.front(datasette, request, at)
    search, after = text(request, "q"), text(request, "after")
    if search or after:
        return Response.redirect(url("/repositories", q=search, after=after))
    context = await read(
        datasette, lambda record: {**queries.front(record), **chart_queries.front(record)}
    )
    return await render(datasette, request, "front.html", context)
