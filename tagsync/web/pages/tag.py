"""The page of a tag: its digests and its changes."""

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.web import queries
from tagsync.web.pages.page import read, render, text


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/tag?repository=&tag=``."""
    name, tag = text(request, "repository"), text(request, "tag")
    context = await read(datasette, lambda record: queries.tag(record, name, tag))
    if context is None:
        shown = escape_control_characters(f"{name}:{tag}")
        raise NotFound(f"no change of {shown} is recorded: the page Repositories lists all")
    return await render(datasette, request, "tag.html", context)
