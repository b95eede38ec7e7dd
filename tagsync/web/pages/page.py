"""The parts that all pages share: parameters, the record and templates."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from datasette.app import Datasette
from datasette.utils.asgi import BadRequest, Request, Response

from tagsync.config.moments import parse_moment
from tagsync.web.datasette_database import DATABASE, ReadOnlyDatabase
from tagsync.web.formats import age_at
from tagsync.web.snapshot import Snapshot

Result = TypeVar("Result")

NAMES: Final = 500
"""Maximum number of suggestions in a form."""


async def read(datasette: Datasette, fn: Callable[[Snapshot], Result]) -> Result:
    """Return a function's result on the record, in one of Datasette's threads.

    Raises:
        tagsync.errors.StoreError: If the database cannot be read, or if the queries take longer
            than `tagsync.web.datasette_database.TIME_LIMIT`.
    """
    return await _database(datasette).read(fn)


async def render(
    datasette: Datasette, request: Request, template: str, context: dict[str, Any]
) -> Response:
    """Return a template as a page, with the variables that all templates have.

    These are ``now``, a `datetime.datetime`; ``age``, a function from a recorded time to its age in
    seconds; and ``path``, the path of the page.
    """
    now = _database(datasette).clock()
    common = {"now": now, "age": age_at(now), "path": request.path}
    text = await datasette.render_template(template, {**common, **context}, request=request)
    return Response.html(text)


def text(request: Request, name: str) -> str:
    """Return a parameter of a page, or an empty text if it is missing.

    Raises:
        BadRequest: If the parameter is given more than once.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"parameter {name} is given more than once: give it once")
    return str(values[0]) if values else ""


def number(request: Request, name: str, default: int, *, meaning: str) -> int:
    """Return a parameter that is a whole number of at most 18 digits.

    Args:
        request: The request.
        name: Name of the parameter.
        default: The result if the parameter is missing or empty.
        meaning: Meaning of the number, for the message; for instance ``the id of a change``.

    Raises:
        BadRequest: If the parameter is not such a number, or is given more than once.
    """
    value = text(request, name)
    if not value:
        return default
    if not re.fullmatch("[0-9]{1,18}", value):
        raise BadRequest(f"invalid parameter {name}: give {meaning}")
    return int(value)


def moment(datasette: Datasette, request: Request, name: str) -> str | None:
    """Return a parameter that is a time, as `tagsync.clock.timestamp` writes it.

    The forms of a time are those of the command line. The result is None if the parameter is
    missing or empty.

    Raises:
        BadRequest: If the parameter is given more than once.
        UnclearQuestion: If the parameter is not a time, or is in the future.
    """
    said = text(request, name).strip()
    return parse_moment(said, _database(datasette).clock()) if said else None


def repository_names(record: Snapshot) -> list[str]:
    """Return the first `NAMES` full names of repositories, for the suggestions of a form."""
    sql = "SELECT full_name FROM repositories ORDER BY full_name LIMIT :limit"
    return [row["full_name"] for row in record.query(sql, {"limit": NAMES})]


def _database(datasette: Datasette) -> ReadOnlyDatabase:
    database = datasette.get_database(DATABASE)
    assert isinstance(database, ReadOnlyDatabase)  # noqa: S101  narrows Datasette's Any
    return database
