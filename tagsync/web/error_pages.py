"""Answers to requests that fail: one sentence, as a page or as JSON."""

from typing import Final

import structlog
from datasette.app import Datasette
from datasette.utils.asgi import Base400, Request, Response
from datasette.views.base import DatasetteError

from tagsync.errors import StoreError, UnclearQuestion, UnknownRepository, UnknownTag
from tagsync.web.datasette_database import TIME_LIMIT
from tagsync.web.pages import PAGES
from tagsync.web.pages.page import render

_BUG: Final = 500
"""HTTP status of an exception that tagsync does not expect."""

_MISSING: Final = {
    **dict.fromkeys(("", "404", "Database not found"), "This page does not exist."),
    "Table not found": "No table, view or question has this name: Tables and SQL lists them.",
    "Record not found": "The table has no row with this key.",
}
"""Sentences for those that Datasette has for a page that is missing."""

_STATUSES: Final = {UnclearQuestion: 400, UnknownRepository: 404, UnknownTag: 404, StoreError: 503}
"""HTTP status of each error of tagsync. The first class that matches decides."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


async def error_response(datasette: Datasette, request: Request, exception: Exception) -> Response:
    """Return the answer to a request that raised an exception. A bug is also logged."""
    status, sentence = explain(request.path, exception)
    if status == _BUG:
        error = f"{type(exception).__name__}: {exception}"
        log.error("web.failed", path=request.path, error=error, exc_info=exception)
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "status": status, "error": sentence}, status=status)
    page = await render(datasette, request, "error.html", {"error": sentence, "status": status})
    page.status = status
    return page


def explain(path: str, exception: Exception) -> tuple[int, str]:
    """Return the HTTP status and the sentence with which to answer an exception."""
    if isinstance(exception, DatasetteError):
        return _explain_datasette(exception)
    if isinstance(exception, Base400):
        sentence = str(exception.args[0]) if exception.args else ""
        return exception.status, _MISSING.get(sentence, sentence)
    for kind, status in _STATUSES.items():
        if isinstance(exception, kind):
            return status, str(exception)
    request = "please report it with the traceback in the log of tagsync web."
    if path in PAGES:
        return _BUG, f"This is a bug in tagsync: {request}"
    # For some wrong URLs, Datasette raises exceptions that it does not define itself.
    return _BUG, (
        "Datasette cannot answer this URL. If a page links to this URL, this is a bug in tagsync:"
        f" {request}"
    )


def _explain_datasette(exception: DatasetteError) -> tuple[int, str]:
    if exception.message_is_html:
        limit = f"The query took longer than {TIME_LIMIT:.0f} s and was interrupted"
        return 400, f"{limit}: narrow the query."
    # Datasette uses 500 by default, even if the URL is wrong.
    status = exception.status if exception.status < _BUG else 400
    return status, str(exception.message)
