"""The page of a tag: its digests and its changes."""

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, NotFound, Request, Response

from tagsync.escaping import escape_control_characters
from tagsync.models import Repository
from tagsync.web import chart_queries, queries
from tagsync.web.pages import as_of
from tagsync.web.pages.page import moment, read, render, text
from tagsync.web.ranges import Wanted, wanted
from tagsync.web.snapshot import Snapshot


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/tag?repository=&tag=&range=&until=``, or ``…&at=``.

    Raises:
        BadRequest: If the repository or the tag is missing.
    """
    name, tag = text(request, "repository"), text(request, "tag")
    if not name or not tag:
        raise BadRequest(
            "parameter repository or tag is missing: give both, or choose a tag on the page of its"
            " repository"
        )
    if at := moment(datasette, request, "at"):
        return await as_of.tag(datasette, request, at)
    asked = wanted(text(request, "range"), text(request, "until"))
    context = await read(datasette, lambda record: _answer(record, name, tag, asked))
    if context is None:
        shown = escape_control_characters(f"{name}:{tag}")
        raise NotFound(f"no change of {shown} is recorded: the page Repositories lists all")
    return await render(datasette, request, "tag.html", context)


def _answer(record: Snapshot, name: str, tag: str, asked: Wanted) -> dict[str, object] | None:
    """Return the data of the page, or None if no change of the tag is recorded."""
    context = queries.tag(record, name, tag)
    if context is None:
        return None
    row = context["repository"]
    repository = Repository(row["registry"], row["name"])
    return {**context, "chart": chart_queries.tag(record, repository, tag, asked)}
