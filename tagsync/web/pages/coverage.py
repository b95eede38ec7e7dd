"""The coverage of all repositories by time."""

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web import chart_queries
from tagsync.web.pages.page import number, read, render, text
from tagsync.web.ranges import wanted


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/coverage?range=&until=&registry=&q=&page=``."""
    asked, registry, search = (
        wanted(text(request, "range"), text(request, "until")),
        text(request, "registry"),
        text(request, "q"),
    )
    shown = max(number(request, "page", 1, meaning="the number of a page"), 1)
    context = await read(
        datasette,
        lambda record: chart_queries.coverage(record, asked, registry, search, shown),
    )
    names = {"registry": registry, "search": search, "asked": asked}
    return await render(datasette, request, "coverage.html", {**names, "chart": context})
