"""A Datasette plugin that adds tagsync's pages and adapts Datasette's own pages."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from datasette import hookimpl as _hookimpl
from datasette.app import Datasette
from datasette.utils.asgi import Request
from jinja2 import Environment
from markupsafe import Markup

from tagsync.audit.questions import QUESTIONS
from tagsync.drawing.layers import show_size
from tagsync.web import formats
from tagsync.web.datasette_database import DATABASE
from tagsync.web.error_pages import error_response
from tagsync.web.pages import NAVIGATION, PAGES
from tagsync.web.pages.page import read
from tagsync.web.saved_questions import context, question_of, values_of
from tagsync.web.urls import image_url, layer_url, report_url, repository_url, tag_url

Function = TypeVar("Function", bound=Callable[..., Any])


def hookimpl(function: Function) -> Function:
    """Mark a function as a hook of a Datasette plugin, and keep its type."""
    hook: Function = _hookimpl(function)
    return hook


@hookimpl
def register_routes() -> list[tuple[str, Callable[..., Any]]]:
    """Return the routes of tagsync's pages. The front page replaces that of Datasette."""
    return [(f"^{path}$", page) for path, page in PAGES.items()]


@hookimpl
def prepare_jinja2_environment(env: Environment) -> None:
    """Add tagsync's filters, URLs and constants to the templates."""
    env.filters |= {
        "escaped": formats.escaped,
        "moment": formats.moment,
        "duration": formats.duration,
        "size": show_size,
        "short_digest": formats.brief_digest,
        "visible": formats.visible,
        "whole": formats.whole,
        "with_code": formats.with_code,
    }
    env.globals |= {
        "report_url": report_url,
        "repository_url": repository_url,
        "tag_url": tag_url,
        "image_url": image_url,
        "layer_url": layer_url,
        "QUESTIONS": {question.slug: question for question in QUESTIONS},
        "DATABASE": DATABASE,
        "NAVIGATION": NAVIGATION,
    }


@hookimpl
def extra_template_vars(
    datasette: Datasette, request: Request | None, template: str
) -> Callable[[], Awaitable[dict[str, object]]]:
    """Return the variables for the page of a saved question, or none for other pages."""

    async def variables() -> dict[str, object]:
        question = question_of(request) if request and template == "query.html" else None
        if request is None or question is None:
            return {}
        values = values_of(question, request)
        return await read(datasette, lambda record: context(record, question, values))

    return variables


@hookimpl
def render_cell(row: Any, value: object, column: str) -> str | Markup | None:
    """Render a cell of Datasette's own pages.

    Repositories and tags become links to tagsync's pages. If the result is None, Datasette renders
    the cell in its own way.
    """
    if not isinstance(value, str) or not value:
        return None
    shown = formats.escaped(value)
    if column == "repository":
        return _link(repository_url(value), shown)
    if column == "tag" and "repository" in row.keys():  # noqa: SIM118  a row is not a mapping
        return _link(tag_url(row["repository"], value), shown)
    return shown


@_hookimpl(hookwrapper=True)  # type: ignore[untyped-decorator]  # Datasette has no types
def handle_exception(
    datasette: Datasette, request: Request, exception: Exception
) -> Generator[None, Any, None]:
    """Answer an exception with a page that shows one sentence.

    This replaces Datasette's own handler, which prints a traceback.
    """
    outcome = yield
    outcome.force_result([error_response(datasette, request, exception)])


def _link(url: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url, text)
