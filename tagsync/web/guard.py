"""What stands before every page: who may ask, what may be asked, and what a browser may do."""

import csv
import io
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tagsync.escaping import escape_formulas
from tagsync.registries.hosts import is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS: Final = (
    # No script at all, ours included: whatever a registry sends can only ever be text.
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
"""Sent with every answer."""


class Guard:
    """An ASGI application before another one, which it lets answer what it finds harmless.

    * The request has to be made to a loopback address or to ``localhost``: the name of another
      site that was made to point here (DNS rebinding) is refused.
    * Only GET and HEAD are let through, so that nothing can be sent.
    * Every answer has `HEADERS`, and no cell of a CSV file is a formula.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
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
                message = {**message, "body": _without_formulas(message.get("body", b""))}
            await send(message)

        if refusal := _refusal(scope):
            await _refuse(guarded, *refusal)
        else:
            await self._app(scope, receive, guarded)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        return 421, "These pages answer to localhost and to loopback addresses only."
    if scope["method"] not in {"GET", "HEAD"}:
        return 405, "These pages can only be read."
    return None


def _host_name(header: str) -> str:
    """Return the host of a ``Host`` header without its port and an absolute name's final dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")


def _is_text(start: Message) -> bool:
    """Whether an answer is text, as CSV is when a browser should show it, or CSV by name."""
    return any(
        bytes(name).lower() == b"content-type"
        and bytes(value).startswith((b"text/plain", b"text/csv"))
        for name, value in start.get("headers", ())
    )


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{sentence}\n".encode()})


def _without_formulas(body: bytes) -> bytes:
    """A part of a CSV file, which Datasette sends row by row, with inert cells."""
    rows = csv.reader(io.StringIO(body.decode(), newline=""))
    written = io.StringIO(newline="")
    csv.writer(written).writerows([escape_formulas(cell) for cell in row] for row in rows)
    return written.getvalue().encode()
