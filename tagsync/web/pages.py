"""The pages: a Datasette plugin with routes of its own and its own looks for Datasette's."""

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
from tagsync.escaping import escape_control_characters
from tagsync.web import queries
from tagsync.web.datasette_database import TIME_LIMIT, Ask

Function = TypeVar("Function", bound=Callable[..., Any])

DATABASE: Final = "tagsync"
"""The database's name in addresses, whatever its file is called."""

STALE_AFTER: Final = 3600.0
"""Seconds without a complete listing after which a page warns."""

_SHOWN: Final = 300
"""How many characters of a text a cell shows."""

_BY_SLUG: Final = {question.slug: question for question in QUESTIONS}

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def hookimpl(function: Function) -> Function:
    """Datasette's decorator, with a type."""
    hook: Function = _hookimpl(function)
    return hook


@hookimpl
def register_routes() -> list[tuple[str, Callable[..., Any]]]:
    """Puts our pages before Datasette's, of which the front page takes the place of one."""
    return [
        (r"^/$", front),
        (r"^/repository$", repository),
        (r"^/tag$", tag),
        (r"^/questions$", questions),
    ]


async def front(datasette: Datasette, request: Request) -> Response:
    """``/``: how fresh the record is, the latest changes, the repositories."""
    needle, after = request.args.get("q") or "", request.args.get("after") or ""
    context = await _ask(datasette, lambda ask: queries.front(ask, needle, after))
    return await _page(
        datasette, request, "front.html", {**context, "needle": needle, "after": after}
    )


async def repository(datasette: Datasette, request: Request) -> Response:
    """``/repository?name=``: a repository's tags and its timeline."""
    name = request.args.get("name") or ""
    try:
        before = int(request.args.get("before") or 2**62)
    except ValueError as error:
        raise BadRequest("before is the number of a change") from error
    context = await _ask(datasette, lambda ask: queries.repository(ask, name, before))
    if context is None:
        shown = escape_control_characters(name)
        raise NotFound(f"no repository {shown!r} was ever polled: the front page has all")
    context["later"] = "before" in request.args
    return await _page(datasette, request, "repository.html", context)


async def tag(datasette: Datasette, request: Request) -> Response:
    """``/tag?repository=&tag=``: what a tag points to and pointed to."""
    name, tag_name = request.args.get("repository") or "", request.args.get("tag") or ""
    context = await _ask(datasette, lambda ask: queries.tag(ask, name, tag_name))
    if context is None:
        raise NotFound(f"nothing is recorded of {escape_control_characters(f'{name}:{tag_name}')}")
    return await _page(datasette, request, "tag.html", context)


async def questions(datasette: Datasette, request: Request) -> Response:
    """``/questions``: the questions, to be clicked."""
    return await _page(datasette, request, "questions.html", {})


@hookimpl
def prepare_jinja2_environment(env: Environment) -> None:
    """Gives the templates their words for moments, spans, digests and addresses."""
    env.filters |= {
        "harmless": _shown,
        "moment": _moment,
        "span": _span,
        "short": _short,
        "codes": _codes,
    }
    env.globals |= {
        "repository_url": lambda name: _url("repository", name=name),
        "tag_url": lambda name, tag: _url("tag", repository=name, tag=tag),
        "QUESTIONS": _BY_SLUG,
        "DATABASE": DATABASE,
    }


@hookimpl
def render_cell(row: Any, value: object, column: str) -> str | Markup | None:
    """Shows a cell of Datasette's own pages: repositories and tags as links, text as harmless."""
    if not isinstance(value, str) or not value:
        return None
    shown = _shown(value)
    if column == "repository":
        return _link(_url("repository", name=value), shown)
    if column == "tag" and "repository" in row.keys():  # noqa: SIM118  a row is no mapping
        return _link(_url("tag", repository=row["repository"], tag=value), shown)
    return shown


@_hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]  # Datasette has no types
def handle_exception(
    datasette: Datasette, request: Request, exception: Exception
) -> Generator[None, Any, None]:
    """Answers with one sentence, in place of Datasette's handler, which prints a traceback."""
    outcome = yield
    outcome.force_result([_failure(datasette, request, exception)])


async def _failure(datasette: Datasette, request: Request, exception: Exception) -> Response:
    status, sentence = _explanation(exception)
    if status == 500:  # noqa: PLR2004  ours to mend
        log.error("web.failed", path=request.path, error=f"{type(exception).__name__}: {exception}")
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "status": status, "error": sentence}, status=status)
    page = await _page(datasette, request, "error.html", {"error": sentence})
    page.status = status
    return page


def _explanation(exception: Exception) -> tuple[int, str]:
    if isinstance(exception, DatasetteError):
        if exception.message_is_html:
            return (
                400,
                f"The query took longer than {TIME_LIMIT:.0f} s and was ended: ask for less.",
            )
        return exception.status, str(exception.message)
    if isinstance(exception, Base400):
        sentence = str(exception.args[0]) if exception.args else ""
        return exception.status, "There is no such page." if sentence in {"", "404"} else sentence
    if isinstance(exception, StoreError):
        return 503, str(exception)
    return 500, "The page could not be made; the log of tagsync web says why."


async def _ask(datasette: Datasette, question: Callable[[Ask], Any]) -> Any:
    return await datasette.get_database(DATABASE).consistently(question)


async def _page(
    datasette: Datasette, request: Request, template: str, context: dict[str, Any]
) -> Response:
    now = utc_now()
    context = {**context, "now": now.isoformat(), "stale_after": STALE_AFTER, "age": _age(now)}
    return Response.html(await datasette.render_template(template, context, request=request))


def _url(page: str, **arguments: str) -> str:
    return f"/{page}?{urlencode(arguments)}"


def _link(url: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url, text)


def _shown(text: str) -> str:
    """A text without what changes how others are read, and no longer than a cell can be."""
    return (
        f"{escape_control_characters(text[:_SHOWN])}…"
        if len(text) > _SHOWN
        else escape_control_characters(text)
    )


def _moment(text: str | None) -> str:
    """``2026-05-03 12:00:00`` of a moment that tagsync took."""
    return text[:19].replace("T", " ") if text else ""


def _age(now: datetime) -> Callable[[str], float]:
    return lambda text: (now - parse_timestamp(text)).total_seconds()


def _span(seconds: float) -> str:
    """A length of time as people say it: ``40 s``, ``5 min``, ``2.7 h``, ``27 days``."""
    for unit, size, least in (("days", 86400, 2 * 86400), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= least:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{max(seconds, 0):.0f} s"


def _short(digest: str | None) -> str:
    """The beginning of a digest, by which people know it."""
    match = re.fullmatch(r"((?:sha\d+:)?[0-9a-f]{12})[0-9a-f]{20,}", digest or "")
    return f"{match[1]}…" if match else _shown(digest or "")


def _codes(text: str) -> Markup:
    """A text in which what stands in backticks is code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped before
