"""The variables of the template of a saved question, beside those of Datasette."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from datasette.utils.asgi import Request

from tagsync.audit.questions import QUESTIONS, Question
from tagsync.web.pages.page import repository_names
from tagsync.web.snapshot import Snapshot


def question_of(request: Request) -> Question | None:
    """Return the question whose page is requested. None if it is the page of another query."""
    slug = request.path.rpartition("/")[2]
    return next((question for question in QUESTIONS if question.slug == slug), None)


def values_of(question: Question, request: Request) -> dict[str, str]:
    """Return the value of each parameter of a question. It is empty if none is given."""
    names = [parameter.name for parameter in question.parameters]
    return {name: request.args.get(name) or "" for name in names}


def context(record: Snapshot, question: Question, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of the template for a question.

    Args:
        record: The record.
        question: The question.
        values: The values of its parameters, as `values_of` returns them.

    Returns:
        ``repository_names``, the suggestions for a parameter that takes one; ``missing``, the
        first parameter that needs a value and has none; ``examined``, how much of the record the
        answer is about; and ``everything``, the query of the URL that asks about the whole record.
        Each of them is missing if it does not apply.
    """
    found: dict[str, Any] = {}
    if any(parameter.repository for parameter in question.parameters):
        found["repository_names"] = repository_names(record)
    for parameter in question.parameters:
        if parameter.required and not values[parameter.name]:
            return {**found, "missing": parameter}
    if question.examined:
        (found["examined"],) = record.query(question.examined, values)
        if any(values[name] != value for name, value in question.all_of_it):
            found["everything"] = urlencode({**values, **dict(question.all_of_it)})
    return found
