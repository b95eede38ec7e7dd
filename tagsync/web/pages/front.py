"""The front page: the freshness of the record, the latest changes, the repositories."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import queries
from tagsync.web.pages.page import read, render, text, url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/``. With ``q`` or ``after``, redirect to the list of repositories."""
    search, after = text(request, "q"), text(request, "after")
    if search or after:
        return Response.redirect(url("/repositories", q=search, after=after))
    return await render(datasette, request, "front.html", await read(datasette, queries.front))
