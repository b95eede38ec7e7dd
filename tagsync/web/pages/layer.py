"""The page of a layer: the images that have it, and the tags that lead to them."""

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.audit.digest_search import is_whole
from tagsync.web.pages.page import read, render, text
from tagsync.web.snapshot import Snapshot
from tagsync.web.urls import url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/layer?digest=``. The beginning of a digest is passed to the search.

    Raises:
        BadRequest: If the digest is missing.
    """
    digest = text(request, "digest").strip().lower()
    if not digest:
        raise BadRequest("the digest of a layer is missing: give one, or search for its beginning")
    if not is_whole(digest) or ":" not in digest:
        return Response.redirect(url("/search", q=digest))

    def query(record: Snapshot) -> dict[str, object]:
        return {"layer": record.audit.charts.layer(digest)}

    return await render(datasette, request, "layer.html", await read(datasette, query))
