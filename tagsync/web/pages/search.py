"""The search of the pages' header."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web.pages.page import text, url


async def page(_datasette: Datasette, request: Request) -> Response:
    """Answer ``/search?q=`` with the repositories whose names contain the text."""
    return Response.redirect(f"{url('/', q=text(request, 'q'))}#repositories")
