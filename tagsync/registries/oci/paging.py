"""Read a list of names page by page."""

import re
from collections.abc import Callable
from threading import Lock
from typing import Final

import httpx

from tagsync.errors import (
    InconsistentListing,
    MalformedResponse,
    NotFound,
)
from tagsync.escaping import truncate
from tagsync.registries import client as http
from tagsync.registries import responses as answers

PAGE: Final = 1000
"""Names asked for at a time; registries cap it, or ignore it."""

MAX_PAGES: Final = 1000
"""How many pages a list may have."""

_INTERFACE: Final = "the registry's"


class _Cost:
    """What a listing has cost so far; added to by many threads."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self._max_bytes = max_bytes
        self.requests = 0
        self.size = 0

    @property
    def left(self) -> int:
        """How many bytes more the listing may cost."""
        return max(0, self._max_bytes - self.size)

    def add(self, answer: http.Answer) -> http.Answer:
        """Counts an answer, and gives it back."""
        with self._lock:
            self.requests += answer.requests
            self.size += len(answer.body)
        return answer


class _Names:
    """A list of names that is read page by page, each page naming the next in ``Link``."""

    def __init__(self, client: http.Client, cost: _Cost, valid: re.Pattern[str]) -> None:
        self._client = client
        self._cost = cost
        self._valid = valid
        self.names: dict[str, None] = {}
        self.pages = 0

    def read(self, path: str, decode: Callable[[bytes], list[str]]) -> None:
        """Reads the list to its end.

        Raises:
            InconsistentListing: a name comes twice, or a later page is gone.
            MalformedResponse: a name is none, or the pages lead elsewhere or have no end.
            RegistryError: a page could not be had.
        """
        url: str | None = path
        asked = set()
        while url is not None:
            if url in asked:
                raise MalformedResponse(f"{url} is a page that leads to itself")
            if self.pages == MAX_PAGES:
                raise MalformedResponse(f"{path} has no end after {MAX_PAGES} pages")
            asked.add(url)
            answer = self._page(url)
            following = _next_page(answer)
            asked.add(answer.url)
            fresh = self._take(answers.decoded(decode, answer, _INTERFACE), answer.url)
            if following is not None and not fresh:
                raise MalformedResponse(f"{answer.url} is a page without names that names another")
            url = following

    def _page(self, url: str) -> http.Answer:
        try:
            answer = self._client.get(url, {}, self._cost.left)
        except NotFound as error:
            if not self.pages:
                raise
            raise InconsistentListing(f"a later page is gone ({error})") from error
        self.pages += 1
        return self._cost.add(answer)

    def _take(self, names: list[str], url: str) -> int:
        for name in names:
            if not self._valid.fullmatch(name):
                raise MalformedResponse(f"{url} lists {truncate(name)!r}, which is no name of one")
            if name in self.names:
                raise InconsistentListing(f"{truncate(name)!r} is listed twice")
            self.names[name] = None
        return len(names)


def _next_page(answer: http.Answer) -> str | None:
    """The URL of the page that follows, if there is one (RFC 8288; often relative)."""
    for link in answer.headers.get_list("Link"):
        for match in re.finditer(r"<([^>]*)>([^<]*)", link):
            if re.search(r";\s*rel\s*=\s*\"?next\b", match[2], re.IGNORECASE):
                try:
                    return str(httpx.URL(answer.url).join(match[1]))
                except httpx.InvalidURL as error:
                    raise MalformedResponse(
                        f"{answer.url} names a page to follow that is no URL"
                    ) from error
    return None
