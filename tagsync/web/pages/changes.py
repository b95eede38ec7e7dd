"""The list of all changes."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import queries
from tagsync.web.pages.page import number, read, render


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/changes?before=``."""
    before = number(request, "before", queries.NO_CHANGE, meaning="the id of a change")
    context = await read(datasette, lambda record: queries.changes(record, before))
    later = before != queries.NO_CHANGE
    return await render(datasette, request, "changes.html", {**context, "later": later})
