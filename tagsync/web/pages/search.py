"""The search of the pages' header: repositories, tags, digests and image references."""

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.web import search_queries
from tagsync.web.pages.page import moment, read, render, text
from tagsync.web.search_text import LONGEST_SEARCH, Search, parse
from tagsync.web.urls import repository_url, tag_url, url


async def page(datasette: Datasette, request: Request) -> Response:
    """Answer ``/search?q=&at=``.

    If the text is the full name of one repository or tag, the answer is a redirect to its page,
    which shows more than a list of one row would.

    Raises:
        BadRequest: If the text is too long.
        UnclearQuestion: If ``at`` is not a time, or is in the future.
    """
    said = text(request, "q").strip()
    if len(said) > LONGEST_SEARCH:
        raise BadRequest(
            f"the text to search for is longer than {LONGEST_SEARCH:,} characters: search for a"
            " name, a digest or the reference of one image"
        )
    at, search = moment(datasette, request, "at"), parse(said)
    hit = await read(datasette, lambda record: search_queries.exact_hit(record, search))
    if hit:
        return Response.redirect(_page_of(*hit, at=at or ""))
    context = {"search": search, "q": said, "at": at, "said": text(request, "at").strip()}
    if search != Search():
        context |= await read(datasette, lambda record: search_queries.answer(record, search, at))
    return await render(datasette, request, "search.html", context)


def _page_of(repository: str, tag: str | None, at: str) -> str:
    page = repository_url(repository) if tag is None else tag_url(repository, tag)
    return page + url("", at=at).replace("?", "&")
