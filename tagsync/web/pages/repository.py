"""The page of a repository: its tags and its timeline."""

from datasette.app import Datasette
from datasette.utils.asgi import NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.models import Repository
from tagsync.web import chart_queries, queries
from tagsync.web.pages import as_of
from tagsync.web.pages.page import moment, number, read, render, text
from tagsync.web.ranges import Wanted, wanted
from tagsync.web.snapshot import Snapshot


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/repository?name=&range=&until=&lanes=&before=``, or ``…&at=&after=``."""
    if at := moment(datasette, request, "at"):
        return await as_of.repository(datasette, request, at)
    name = text(request, "name")
    before = number(request, "before", queries.NO_CHANGE, meaning="the id of a change")
    lanes = number(request, "lanes", queries.NO_CHANGE, meaning="the id of a change")
    asked = wanted(text(request, "range"), text(request, "until"))
    context = await read(datasette, lambda record: _answer(record, name, before, asked, lanes))
    if context is None:
        shown = escape_control_characters(name)
        raise NotFound(f"no repository {shown!r} was ever polled: the page Repositories lists all")
    later = before != queries.NO_CHANGE
    return await render(datasette, request, "repository.html", {**context, "later": later})


def _answer(
    record: Snapshot, name: str, before: int, asked: Wanted, lanes: int
) -> dict[str, object] | None:
    """Return the data of the page, or None if the repository was never polled."""
    context = queries.repository(record, name, before)
    if context is None:
        return None
    row = context["repository"]
    cursor = None if lanes == queries.NO_CHANGE else lanes
    chart = chart_queries.repository(
        record, Repository(row["registry"], row["name"]), asked, cursor
    )
    return {**context, "chart": chart}
