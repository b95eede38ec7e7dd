"""The search of the pages' header."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web.pages.page import text
from tagsync.web.urls import url


async def page(datasette: Datasette, request: Request) -> Response:  # noqa: ARG001  as all pages
    """Answer ``/search?q=`` with the repositories whose names contain the text."""
    return Response.redirect(url("/repositories", q=text(request, "q")))
