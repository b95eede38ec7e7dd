"""A Datasette plugin that adds tagsync's pages and adapts Datasette's own pages."""

import re
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import structlog
from datasette import hookimpl as _hookimpl
from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Base400, NotFound, Request, Response
from datasette.views.base import DatasetteError
from jinja2 import Environment
from markupsafe import Markup, escape

from tagsync.audit.questions import QUESTIONS
from tagsync.clock import parse_timestamp, utc_now
from tagsync.errors import StoreError
from tagsync.escaping import escape_control_characters, short_digest
from tagsync.web import queries
from tagsync.web.datasette_database import TIME_LIMIT, Query

Function = TypeVar("Function", bound=Callable[..., Any])

DATABASE: Final = "tagsync"
"""Name of the database in URLs, independent of its file name."""

STALE_AFTER: Final = 3600.0
"""Seconds without a complete listing after which a page shows a warning."""

_LONGEST_TEXT: Final = 300
"""Maximum number of characters that a cell shows."""

_NO_CHANGE: Final = 2**62
"""A number that is larger than the id of every change."""

_BUG: Final = 500
"""HTTP status of an exception that tagsync does not expect."""

_BY_SLUG: Final = {question.slug: question for question in QUESTIONS}

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def hookimpl(function: Function) -> Function:
    """Mark a function as a hook of a Datasette plugin, and keep its type."""
    hook: Function = _hookimpl(function)
    return hook


@hookimpl
def register_routes() -> list[tuple[str, Callable[..., Any]]]:
    """Return the routes of tagsync's pages. The front page replaces that of Datasette."""
    return [(f"^{path}$", page) for path, page in _PAGES.items()]


async def front(datasette: Datasette, request: Request) -> Response:
    """Answer ``/``: the freshness of the record, the latest changes, the repositories."""
    search, after = request.args.get("q") or "", request.args.get("after") or ""
    context = await _query(datasette, lambda query: queries.front(query, search, after))
    return await _page(
        datasette, request, "front.html", {**context, "search": search, "after": after}
    )


async def repository(datasette: Datasette, request: Request) -> Response:
    """Answer ``/repository?name=``: the tags and the timeline of a repository."""
    name = request.args.get("name") or ""
    before = request.args.get("before")
    before_id = _change_id(before) if before else _NO_CHANGE
    context = await _query(datasette, lambda query: queries.repository(query, name, before_id))
    if context is None:
        shown = escape_control_characters(name)
        raise NotFound(
            f"no repository {shown!r} was ever polled: the front page lists all repositories"
        )
    context["later"] = before is not None
    return await _page(datasette, request, "repository.html", context)


async def tag(datasette: Datasette, request: Request) -> Response:
    """Answer ``/tag?repository=&tag=``: the digests and the changes of a tag."""
    name, tag_name = request.args.get("repository") or "", request.args.get("tag") or ""
    context = await _query(datasette, lambda query: queries.tag(query, name, tag_name))
    if context is None:
        shown = escape_control_characters(f"{name}:{tag_name}")
        raise NotFound(f"no change of {shown} is recorded: the front page lists all repositories")
    return await _page(datasette, request, "tag.html", context)


async def questions(datasette: Datasette, request: Request) -> Response:
    """Answer ``/questions``: links to the saved questions."""
    return await _page(datasette, request, "questions.html", {})


_PAGES: Final = {"/": front, "/repository": repository, "/tag": tag, "/questions": questions}


@hookimpl
def prepare_jinja2_environment(env: Environment) -> None:
    """Add tagsync's filters, URLs and constants to the templates."""
    env.filters |= {
        "escaped": _escaped,
        "moment": _moment,
        "duration": _duration,
        "short_digest": _short_digest,
        "with_code": _with_code,
    }
    env.globals |= {
        "repository_url": lambda name: _url("repository", name=name),
        "tag_url": lambda name, tag: _url("tag", repository=name, tag=tag),
        "QUESTIONS": _BY_SLUG,
        "DATABASE": DATABASE,
    }


@hookimpl
def render_cell(row: Any, value: object, column: str) -> str | Markup | None:
    """Render a cell of Datasette's own pages.

    Repositories and tags become links to tagsync's pages. If the result is None, Datasette renders
    the cell in its own way.
    """
    if not isinstance(value, str) or not value:
        return None
    shown = _escaped(value)
    if column == "repository":
        return _link(_url("repository", name=value), shown)
    if column == "tag" and "repository" in row.keys():  # noqa: SIM118  a row is not a mapping
        return _link(_url("tag", repository=row["repository"], tag=value), shown)
    return shown


@_hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]  # Datasette has no types
def handle_exception(
    datasette: Datasette, request: Request, exception: Exception
) -> Generator[None, Any, None]:
    """Answer an exception with a page that shows one sentence.

    This replaces Datasette's own handler, which prints a traceback.
    """
    outcome = yield
    outcome.force_result([_error_response(datasette, request, exception)])


async def _error_response(datasette: Datasette, request: Request, exception: Exception) -> Response:
    status, sentence = _explain(request.path, exception)
    if status == _BUG:
        error = f"{type(exception).__name__}: {exception}"
        log.error("web.failed", path=request.path, error=error, exc_info=exception)
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "status": status, "error": sentence}, status=status)
    page = await _page(datasette, request, "error.html", {"error": sentence})
    page.status = status
    return page


def _explain(path: str, exception: Exception) -> tuple[int, str]:
    """Return the HTTP status and the sentence with which to answer an exception."""
    if isinstance(exception, DatasetteError):
        if exception.message_is_html:
            limit = f"The query took longer than {TIME_LIMIT:.0f} s and was interrupted"
            return 400, f"{limit}: narrow the query."
        # Datasette uses 500 by default, even if the URL is wrong.
        status = exception.status if exception.status < _BUG else 400
        return status, str(exception.message)
    if isinstance(exception, Base400):
        sentence = str(exception.args[0]) if exception.args else ""
        return exception.status, "This page does not exist." if sentence in {
            "",
            "404",
        } else sentence
    if isinstance(exception, StoreError):
        return 503, str(exception)
    request = "please report it with the traceback in the log of tagsync web."
    if path in _PAGES:
        return _BUG, f"This is a bug in tagsync: {request}"
    # For some wrong URLs, Datasette raises exceptions that it does not define itself.
    return _BUG, (
        "Datasette cannot answer this URL. If a page links to this URL, this is a bug in tagsync:"
        f" {request}"
    )


def _change_id(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise BadRequest("invalid parameter before: give the id of a change")
    return int(text)


async def _query(datasette: Datasette, fn: Callable[[Query], Any]) -> Any:
    return await datasette.get_database(DATABASE).consistently(fn)


async def _page(
    datasette: Datasette, request: Request, template: str, context: dict[str, Any]
) -> Response:
    """Render a template, with the variables that all pages have in common."""
    now = utc_now()
    context = {**context, "now": now.isoformat(), "stale_after": STALE_AFTER, "age": _age(now)}
    return Response.html(await datasette.render_template(template, context, request=request))


def _url(page: str, **arguments: str) -> str:
    return f"/{page}?{urlencode(arguments)}"


def _link(url: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url, text)


def _escaped(text: str) -> str:
    """Escape the control characters of a cell's text, and truncate a long text."""
    shown = escape_control_characters(text[:_LONGEST_TEXT])
    return f"{shown}…" if len(text) > _LONGEST_TEXT else shown


def _moment(text: str | None) -> str:
    """Return a recorded time as ``2026-05-03 12:00:00``, or an empty text for None."""
    return text[:19].replace("T", " ") if text else ""


def _age(now: datetime) -> Callable[[str], float]:
    """Return a function that returns the age of a recorded time, in seconds."""
    return lambda text: (now - parse_timestamp(text)).total_seconds()


def _duration(seconds: float) -> str:
    """Format a duration for people: ``40 s``, ``5 min``, ``2.7 h``, ``27 days``."""
    for unit, size, least in (("days", 86400, 2 * 86400), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= least:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{max(seconds, 0):.0f} s"


def _short_digest(digest: str | None) -> str:
    """Shorten a digest to 12 digits and an ellipsis. Escape a text of another form."""
    short = short_digest(digest or "")
    return _escaped(short) if short == digest else f"{short}…" if short else ""


def _with_code(text: str) -> Markup:
    """Return a text as HTML. Its parts in backticks become ``<code>`` elements."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped before
