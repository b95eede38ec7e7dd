"""The front page, and the pages of a repository and of a tag, as of a moment."""

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.models import Repository
from tagsync.web import moment_queries
from tagsync.web.pages.page import read, render, text
from tagsync.web.snapshot import Snapshot


async def front(datasette: Datasette, request: Request, moment: str) -> Response:
    """Answer ``/?at=&after=``."""
    after = text(request, "after")
    context = await read(datasette, lambda record: moment_queries.front_at(record, moment, after))
    return await _render(datasette, request, "front_at.html", moment, context)


async def repository(datasette: Datasette, request: Request, moment: str) -> Response:
    """Answer ``/repository?name=&at=&after=``."""
    name, after = text(request, "name"), text(request, "after")

    def query(record: Snapshot) -> moment_queries.Row:
        found = _recorded(record, name)
        return moment_queries.repository_at(record, found, moment, after)

    context = {"repository": name, **await read(datasette, query)}
    return await _render(datasette, request, "repository_at.html", moment, context)


async def tag(datasette: Datasette, request: Request, moment: str) -> Response:
    """Answer ``/tag?repository=&tag=&at=``."""
    name, tag_name = text(request, "repository"), text(request, "tag")

    def query(record: Snapshot) -> moment_queries.Row:
        found = _recorded(record, name)
        if not moment_queries.has_tag(record, found, tag_name):
            shown = escape_control_characters(f"{name}:{tag_name}")
            raise NotFound(f"no change of {shown} is recorded: the page Repositories lists all")
        return moment_queries.tag_at(record, found, tag_name, moment)

    context = {"repository": name, "tag": tag_name, **await read(datasette, query)}
    return await _render(datasette, request, "tag_at.html", moment, context)


def _recorded(record: Snapshot, name: str) -> Repository:
    found = moment_queries.recorded(record, name)
    if found is None:
        shown = escape_control_characters(name)
        raise NotFound(f"no repository {shown!r} was ever polled: the page Repositories lists all")
    return found


async def _render(
    datasette: Datasette, request: Request, template: str, moment: str, context: moment_queries.Row
) -> Response:
    said = text(request, "at").strip()
    return await render(datasette, request, template, {**context, "at": moment, "said": said})
