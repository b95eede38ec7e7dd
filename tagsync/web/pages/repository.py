"""The page of a repository: its tags and its timeline."""

from typing import Final

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.web import queries
from tagsync.web.pages.page import number, read, render, text

_NO_CHANGE: Final = 2**62
"""A number that is larger than the id of every change."""


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/repository?name=&before=``."""
    name = text(request, "name")
    before = number(request, "before", _NO_CHANGE, meaning="the id of a change")
    context = await read(datasette, lambda record: queries.repository(record, name, before))
    if context is None:
        shown = escape_control_characters(name)
        raise NotFound(
            f"no repository {shown!r} was ever polled: the front page lists all repositories"
        )
    later = before != _NO_CHANGE
    return await render(datasette, request, "repository.html", {**context, "later": later})
