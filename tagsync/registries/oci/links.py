"""The header ``Link``, which names the next page of a list (RFC 8288).

Registries write it in many forms: without ``rel``, without angle brackets, in single quotes, with
the name of an internal host, or without the path prefix under which the registry is reached. Only
the path and the query of its target count. tagsync checks the path, and sends the query to the
configured endpoint.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from tagsync.errors import MalformedResponse
from tagsync.escaping import truncate
from tagsync.registries.responses import Answer

_VALUE: Final = r""""(?:[^"\\]|\\.)*"|'[^']*'|[^\s;,"']*"""
_LINK: Final = re.compile(
    rf"""\s*(?:<([^<>]*)>|([^\s;,<>"'=][^\s;,<>"']*))((?:\s*;\s*[^\s=;,"']+\s*(?:=\s*(?:{_VALUE}))?)*)"""
    r"\s*;?\s*(?:,|\Z)"
)
"""One link of a header: its target with or without brackets, and its parameters."""

_REST: Final = re.compile(r"[ ,]*\Z")
"""The end of a header after its last link."""

_PARAMETER: Final = re.compile(rf"""([^\s=;,"']+)\s*(?:=\s*({_VALUE}))?""")


def next_query(answer: Answer, path: str) -> str | None:
    """Return the query of the next page, or None if the answer names none.

    Args:
        answer: A page of a list.
        path: The path of the list below the endpoint.

    Raises:
        MalformedResponse: If a ``Link`` cannot be read, or if the next page is of another list.
    """
    queries = {_query_of(answer, target, path) for target in _next_targets(answer)}
    if len(queries) > 1:
        raise MalformedResponse(f"{answer.url} names more than one next page")
    return next(iter(queries), None)


def _query_of(answer: Answer, target: str, path: str) -> str:
    """Return the query of a link's target, whose path must be that of the list."""
    try:
        joined = urlsplit(urljoin(answer.url, target))
        found = unquote(joined.path).rstrip("/")
        asked = unquote(urlsplit(answer.url).path).rstrip("/")
    except ValueError as error:
        raise _unreadable(answer, target) from error
    if not target or not joined.query:
        raise _unreadable(answer, target)
    # An internal path has another prefix, or none, sometimes not even "/v2".
    is_same = found in {asked, path.removeprefix("/v2")} or found.endswith(path)
    if not is_same:
        raise MalformedResponse(
            f"{answer.url} names a next page of another list, {truncate(found)}"
        )
    return joined.query


def _next_targets(answer: Answer) -> Iterator[str]:
    """Yield the target of each link to a next page. A link without a relation counts as one."""
    links = [link for header in answer.headers.get_list("Link") for link in _links(answer, header)]
    related = [target for target, relations in links if "next" in relations]
    yield from related or (target for target, relations in links if not relations)


def _links(answer: Answer, header: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the target and the relations of each link of a header."""
    text, position = " ".join(header.split()), 0  # without long spaces, matching is linear
    while not _REST.match(text, position):
        match = _LINK.match(text, position)
        if match is None:
            raise _unreadable(answer, header)
        position = match.end()
        yield (match[1] or match[2] or "").strip(), _relations(match[3])


def _relations(parameters: str) -> frozenset[str]:
    for name, value in _PARAMETER.findall(parameters):
        if name.lower() == "rel":
            return frozenset(value.strip("\"'").lower().split())
    return frozenset()


def _unreadable(answer: Answer, text: str) -> MalformedResponse:
    return MalformedResponse(
        f"{answer.url} names its next page in a header Link that tagsync cannot read,"
        f" {truncate(text)!r}, so the list may not be complete"
    )
