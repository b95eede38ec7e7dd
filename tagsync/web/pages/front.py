"""The front page: the freshness of the record, the latest changes, the repositories."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import queries
from tagsync.web.pages.page import read, render, text


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/``."""
    search, after = text(request, "q"), text(request, "after")
    context = await read(datasette, lambda record: queries.front(record, search, after))
    return await render(
        datasette, request, "front.html", {**context, "search": search, "after": after}
    )
