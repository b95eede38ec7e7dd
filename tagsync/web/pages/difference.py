"""The page of the difference between two moments."""

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.audit.moments import check_order
from tagsync.web import moment_queries
from tagsync.web.moment_queries import Cursor
from tagsync.web.pages.page import moment, read, render, repository_names, text


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/difference?pattern=&from=&to=&repository=&tag=``.

    ``repository`` and ``tag`` are the place where the page begins.

    Raises:
        BadRequest: If ``to`` is given without ``from``.
        UnclearQuestion: If a moment or the pattern is invalid, or if the moments are not in order.
        UnknownRepository: If the pattern matches no repository.
        UnknownTag: If the pattern names a tag that was never recorded.
    """
    pattern = text(request, "pattern").strip()
    said_from, said_to = text(request, "from").strip(), text(request, "to").strip()
    start, end = moment(datasette, request, "from"), moment(datasette, request, "to")
    check_order(start, end, said_from, said_to)
    cursor = Cursor(text(request, "repository"), text(request, "tag"))
    context: moment_queries.Row = {
        "pattern": pattern,
        "said_from": said_from,
        "said_to": said_to,
        "start": start,
        "end": end,
        "cursor": cursor,
        "names": await read(datasette, repository_names),
    }
    if start is None:
        if end is not None:
            raise BadRequest("the earlier moment is missing: give both, or only the earlier one")
        return await render(datasette, request, "difference.html", context)
    since = start
    found = await read(
        datasette,
        lambda record: moment_queries.difference(record, pattern, since, end, cursor),
    )
    return await render(datasette, request, "difference.html", {**context, **found})
