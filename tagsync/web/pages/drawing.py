"""The stylesheet of the drawings."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.drawing import stylesheet


async def page(datasette: Datasette, request: Request) -> Response:  # noqa: ARG001  as all pages
    """Answer ``/assets/drawing.css``."""
    return Response(stylesheet(), content_type="text/css; charset=utf-8")
