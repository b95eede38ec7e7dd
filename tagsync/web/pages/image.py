"""The page of an image: its layers, its platforms, and what leads to it."""

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.web import chart_queries
from tagsync.web.pages.page import read, render, text
from tagsync.web.urls import url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/image?digest=&at=``.

    Only what leads to an image depends on the moment, and the search answers that.
    """
    digest, at = text(request, "digest"), text(request, "at")
    if at:
        return Response.redirect(url("/search", q=digest, at=at))
    context = await read(datasette, lambda record: chart_queries.image(record, digest))
    if context is None:
        shown = escape_control_characters(digest[:200])
        raise NotFound(f"no image {shown!r} is recorded: give the whole digest, with its algorithm")
    return await render(datasette, request, "image.html", context)
