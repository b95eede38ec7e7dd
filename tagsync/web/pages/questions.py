"""The page with links to the saved questions."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web.pages.page import render


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/questions``."""
    return await render(datasette, request, "questions.html", {})
