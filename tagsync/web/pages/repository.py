"""The page of a repository: its tags and its timeline."""

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.web import queries
from tagsync.web.pages.page import number, read, render, text


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/repository?name=&before=``."""
    name = text(request, "name")
    before = number(request, "before", queries.NO_CHANGE, meaning="the id of a change")
    context = await read(datasette, lambda record: queries.repository(record, name, before))
    if context is None:
        shown = escape_control_characters(name)
        raise NotFound(f"no repository {shown!r} was ever polled: the page Repositories lists all")
    later = before != queries.NO_CHANGE
    return await render(datasette, request, "repository.html", {**context, "later": later})
