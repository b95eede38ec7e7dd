"""A front server: a proxy or load balancer that sometimes answers instead of the registry."""

import re
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from random import Random
from threading import Lock, Thread
from typing import Final, Self
from urllib.parse import unquote

from tagsync.clock import utc_now
from tagsync.emulator import Request
from tagsync.emulator.http import COMPLETE, Answer, Delivery, Server
from tests.support.docker_registry import OCI_MANIFEST

OK: Final = 200

LASTS: Final = 4
"""The maximum number of requests on which a random trick is played in a row, where possible."""

HTML: Final = b"<!doctype html><html><body><h1>We will be back soon</h1></body></html>"
LOGIN: Final = b"<!doctype html><html><body><form action=/login><input name=user></form></html>"

_TAGS: Final = re.compile(r"/v2/(?:manage/namespaces/)?(.+)/tags(?:/list)?")
_MANIFEST: Final = re.compile(r"/v2/.+/manifests/")
_EMPTY: Final = re.compile(rb'\[\]|null|.*"(?:tags|repositories)": \[\].*|\{\}|')


class Trick(StrEnum):
    """How a front server answers instead of the registry, or spoils the registry's answer.

    =====================  =========================================================================
    ``html_page``          200 with a page in HTML
    ``html_as_json``       200 with a page in HTML, declared to be what the registry would send
    ``login_page``         200 with a page that asks for a login, and a cookie
    ``login_redirect``     a redirect to that page
    ``gateway_error``      502, 503 or 504 with a page in HTML
    ``empty_body``         200 without a body
    ``other_url``          an earlier answer of the registry to a request for something else
    ``other_repository``   an earlier answer with the tags of another repository
    ``cut_off``            the right answer, but the connection is closed before its end
    ``left_over``          the right answer, and right after it bytes that look like another one
    =====================  =========================================================================
    """

    HTML_PAGE = "html_page"
    HTML_AS_JSON = "html_as_json"
    LOGIN_PAGE = "login_page"
    LOGIN_REDIRECT = "login_redirect"
    GATEWAY_ERROR = "gateway_error"
    EMPTY_BODY = "empty_body"
    OTHER_URL = "other_url"
    OTHER_REPOSITORY = "other_repository"
    CUT_OFF = "cut_off"
    LEFT_OVER = "left_over"


class Front:
    """A server on loopback in front of a registry, from ``__enter__`` to ``__exit__``.

    Attributes:
        on: Whether tricks are played. It may be set at any time.
        counts: How often each trick was played.
    """

    def __init__(
        self, respond: Callable[[Request], Answer], *, rate: float = 0.0, seed: str = ""
    ) -> None:
        """Prepare the server.

        Args:
            respond: The registry: returns the answer to a request.
            rate: The probability that a trick begins with a request.
            seed: The seed of the tricks.
        """
        self.on = True
        self.counts: Counter[Trick] = Counter()
        self._upstream = respond
        self._rate = rate
        self._random = Random(seed)
        self._requested: Trick | None = None
        self._times = 0
        self._skip = 0
        self._drawn: Trick | None = None
        self._lasts = 0
        self._remembered: dict[tuple[str, str], Answer] = {}
        self._lock = Lock()
        self._server = Server(("127.0.0.1", 0), self._respond, utc_now)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The address to use as an endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def next(self, trick: Trick, *, times: int = 1, skip: int = 0) -> None:
        """Play a trick on the next requests for which it is possible.

        Args:
            trick: The trick. It replaces one that was requested before.
            times: The number of requests on which it is played.
            skip: The number of requests that are passed on before.
        """
        with self._lock:
            self._requested, self._times, self._skip = trick, times, skip

    def _respond(self, request: Request) -> Answer:
        if request.path == "/login":
            return _page(200, LOGIN)
        with self._lock:
            trick = self._play(request) if self.on else None
        if isinstance(trick, Answer):
            return trick
        answer = self._upstream(request)
        if answer.delivery != COMPLETE:
            return answer
        self._remember(request, answer)
        return answer if trick is None else answer._replace(delivery=trick)

    def _remember(self, request: Request, answer: Answer) -> None:
        # An empty list of another repository could not be told from the right one.
        if request.method == "GET" and answer.status == OK and not _EMPTY.fullmatch(answer.body):
            with self._lock:
                self._remembered[_resource(request)] = answer

    def _play(self, request: Request) -> Answer | Delivery | None:
        """Return what the next trick sends, or how it sends the right answer.

        None if no trick is played.
        """
        trick = self._draw()
        if trick is None:
            return None
        effect = self._own_answer(trick, request) or self._effect(trick, request)
        if effect is not None:
            self.counts[trick] += 1
            self._times -= 1
        return effect

    def _draw(self) -> Trick | None:
        """Return the requested trick, or else a random one, or None.

        A random trick lasts for a few requests, as a front server's trouble does.
        """
        if self._requested is not None and self._times > 0:
            self._skip -= 1
            return self._requested if self._skip < 0 else None
        self._lasts -= 1
        if self._lasts < 0:
            is_due = self._random.random() < self._rate
            self._drawn = self._random.choice(list(Trick)) if is_due else None
            self._lasts = self._random.randint(0, LASTS - 1) if is_due else 0
        return self._drawn

    def _own_answer(self, trick: Trick, request: Request) -> Answer | None:
        """Return the front server's own answer, or None if the trick needs the registry's."""
        return {
            Trick.HTML_PAGE: _page(OK, HTML),
            Trick.HTML_AS_JSON: Answer(OK, HTML, {"Content-Type": _expected_type(request)}),
            Trick.LOGIN_PAGE: _page(OK, LOGIN, **{"Set-Cookie": "session=none"}),
            Trick.LOGIN_REDIRECT: _page(302, LOGIN, Location="/login?from=registry"),
            Trick.GATEWAY_ERROR: _page(self._random.choice((502, 503, 504)), HTML),
            Trick.EMPTY_BODY: Answer(OK, b"", {}),
        }.get(trick)

    def _effect(self, trick: Trick, request: Request) -> Answer | Delivery | None:
        """Return another answer of the registry, or how the right one is sent.

        None if the registry has not sent such an answer yet.
        """
        kind, name = _resource(request)
        match trick:
            case Trick.CUT_OFF:
                return Delivery(self._random.uniform(0.5, 0.95))
            case Trick.LEFT_OVER:
                others = [_page(OK, HTML), *self._remembered.values()]
                return Delivery(leftover=_as_sent(self._random.choice(others)))
            case Trick.OTHER_REPOSITORY:
                wanted = [key for key in self._remembered if kind == key[0] == "tags"]
                wanted = [key for key in wanted if key[1] != name]
            case _:
                wanted = [key for key in self._remembered if key[0] != kind]
        return self._remembered[self._random.choice(wanted)] if wanted else None


def _resource(request: Request) -> tuple[str, str]:
    """Return the kind of what a request is for, and the repository if it is for tags."""
    path = unquote(request.path)
    if match := _TAGS.fullmatch(path):
        return "tags", match[1]
    return ("manifest", "") if _MANIFEST.match(path) else ("other", "")


def _expected_type(request: Request) -> str:
    return OCI_MANIFEST if _resource(request)[0] == "manifest" else "application/json"


def _page(status: int, body: bytes, **headers: str) -> Answer:
    return Answer(status, body, {"Content-Type": "text/html", **headers})


def _as_sent(answer: Answer) -> bytes:
    fields = {"Content-Length": len(answer.body), **answer.headers}
    head = [f"HTTP/1.1 {answer.status} OK", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*head, "", ""]).encode() + answer.body
