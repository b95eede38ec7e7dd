"""The pages of ``tagsync web``: one module for each."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from tagsync.web.datasette_database import DATABASE
from tagsync.web.pages import (
    changes,
    coverage,
    difference,
    drawing,
    front,
    gaps,
    image,
    layer,
    questions,
    report,
    repositories,
    repository,
    search,
    tag,
)

Page = Callable[[Datasette, Request], Awaitable[Response]]
"""A function that reads a request's parameters, queries the record and renders a template."""

PAGES: Final[Mapping[str, Page]] = {
    "/": front.page,
    "/changes": changes.page,
    "/repositories": repositories.page,
    "/repository": repository.page,
    "/tag": tag.page,
    "/image": image.page,
    "/coverage": coverage.page,
    "/questions": questions.page,
    "/search": search.page,
    "/assets/drawing.css": drawing.page,
    "/report": report.page,
    "/difference": difference.page,
    "/gaps": gaps.page,
    "/layer": layer.page,
}
"""The page at each path."""

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/changes", "Changes"),
    ("/repositories", "Repositories"),
    ("/coverage", "Coverage"),
    ("/difference", "Difference"),
    ("/questions", "Questions"),
    (f"/{DATABASE}", "Tables and SQL"),
)
"""The addresses and names in the header of each page."""
