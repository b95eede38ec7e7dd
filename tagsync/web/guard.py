"""Checks of every request: whether it is answered, and what a browser may do."""

import csv
import io
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tagsync.escaping import escape_formulas
from tagsync.registries.hosts import is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS: Final = (
    # No script may run, not even our own, so that text from a registry cannot run as code.
    (
        b"content-security-policy",
        (
            b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
            b" base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of every response."""


MAX_PARAMETERS: Final = 100
"""Maximum number of parameters of a request. Datasette's time grows with the square of it."""

MAX_FOREIGN_PARAMETERS: Final = 10
"""Maximum number of parameters of a link on another site."""

_SQL_PARAMETERS: Final = frozenset({"sql", "_where"})
"""The parameters that Datasette runs as SQL."""


class Guard:
    """ASGI middleware that refuses unsafe requests and makes every response safe.

    * The ``Host`` of a request must be a loopback address or ``localhost``. The name of another
      site is refused, even if it resolves to this machine (DNS rebinding).
    * Only GET and HEAD are answered, so that a request cannot change anything.
    * A request has at most `MAX_PARAMETERS` parameters.
    * A request that a page of another origin makes is refused. A link to a page is answered if it
      has at most `MAX_FOREIGN_PARAMETERS` parameters and no SQL. Other sites therefore cannot make
      the browser of a visitor run slow queries here.
    * Every response has `HEADERS`, and formulas in the cells of a CSV file are escaped.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_csv = False

        async def guarded(message: Message) -> None:
            nonlocal is_csv
            if message["type"] == "http.response.start":
                is_csv = scope["path"].endswith(".csv") and _is_text(message)
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            elif is_csv:
                message = {**message, "body": _escape_csv(message.get("body", b""))}
            await send(message)

        if refusal := _refusal(scope):
            await _refuse(guarded, *refusal)
        else:
            await self._app(scope, receive, guarded)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """Return the status and text of a refusal. None if the request may be answered."""
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        return 421, "These pages answer only at localhost and at loopback addresses."
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, "These pages are read-only."
    fields = [field for field in scope["query_string"].split(b"&") if field]
    if len(fields) > MAX_PARAMETERS:
        return 400, f"These pages accept at most {MAX_PARAMETERS} parameters in an address."
    if _is_from_another_origin(scope) and not _is_link_to_a_page(scope, len(fields)):
        return 403, (
            "These pages answer requests from other sites only if they are links to a page, with at"
            f" most {MAX_FOREIGN_PARAMETERS} parameters and without SQL. Copy the address into the"
            " address bar to open it."
        )
    return None


def _header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a request's header, or None if the request does not have it."""
    values = (value for key, value in scope["headers"] if key == name)
    value = next(values, None)
    return None if value is None else value.decode("latin-1")


def _is_from_another_origin(scope: Scope) -> bool:
    """Return whether a page of another origin made a request.

    Browsers say so in ``Sec-Fetch-Site``. Without this header only ``Origin`` can show it. Programs
    such as curl send neither.
    """
    site = _header(scope, b"sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = _header(scope, b"origin")
    return origin is not None and urlsplit(origin).netloc != _header(scope, b"host")


def _is_link_to_a_page(scope: Scope, parameters: int) -> bool:
    """Return whether a browser follows a link to a page that a link may lead to."""
    names = {name.lower() for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), True)}
    return (
        scope["method"] == "GET"
        and _header(scope, b"sec-fetch-mode") == "navigate"
        and _header(scope, b"sec-fetch-dest") == "document"
        and parameters <= MAX_FOREIGN_PARAMETERS
        and not names & _SQL_PARAMETERS
    )


def _host_name(header: str) -> str:
    """Return the host in a ``Host`` header, without the port and a final dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().rstrip(".")


def _is_text(start: Message) -> bool:
    """Return whether a response may be CSV. Datasette also sends CSV as plain text."""
    return any(
        bytes(name).lower() == b"content-type"
        and bytes(value).startswith((b"text/plain", b"text/csv"))
        for name, value in start.get("headers", ())
    )


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{sentence}\n".encode()})


def _escape_csv(body: bytes) -> bytes:
    """Escape formulas in a part of a CSV file. Datasette sends parts of whole rows."""
    rows = csv.reader(io.StringIO(body.decode(), newline=""))
    written = io.StringIO(newline="")
    csv.writer(written).writerows([escape_formulas(cell) for cell in row] for row in rows)
    return written.getvalue().encode()
