"""The list of all repositories."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import queries
from tagsync.web.pages.page import read, render, text


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/repositories?q=&after=``."""
    search, after = text(request, "q"), text(request, "after")
    context = await read(datasette, lambda record: queries.repositories(record, search, after))
    return await render(
        datasette, request, "repositories.html", {**context, "search": search, "after": after}
    )
