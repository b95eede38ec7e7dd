"""The pages of ``tagsync web``: one module for each."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web.pages import front, questions, repository, search, tag

Page = Callable[[Datasette, Request], Awaitable[Response]]
"""A function that reads a request's parameters, queries the record and renders a template."""

PAGES: Final[Mapping[str, Page]] = {
    "/": front.page,
    "/repository": repository.page,
    "/tag": tag.page,
    "/questions": questions.page,
    "/search": search.page,
}
"""The page at each path."""
