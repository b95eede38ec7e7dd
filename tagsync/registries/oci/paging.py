"""Read a list of names page by page; a page's header ``Link`` names the next one."""

import re
from collections.abc import Callable
from threading import Lock
from typing import Final

import httpx

from tagsync.errors import InconsistentListing, MalformedResponse, NotFound
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.responses import Answer, decode_body

PAGE: Final = 1000
"""Number of names to request per page. Some registries send fewer, some ignore the number."""

MAX_PAGES: Final = 1000
"""Maximum number of pages of a list."""

_INTERFACE: Final = "the registry's API"


class Cost:
    """A count of the requests and bytes of one listing. Safe to use from many threads."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self._max_bytes = max_bytes
        self.requests = 0
        self.size = 0

    @property
    def bytes_left(self) -> int:
        """Bytes that the listing may still read."""
        return max(0, self._max_bytes - self.size)

    def add(self, answer: Answer) -> Answer:
        """Add the requests and bytes of an answer, and return the answer."""
        with self._lock:
            self.requests += answer.requests
            self.size += len(answer.body)
        return answer


class PagedNames:
    """A list of names, read to its end.

    Attributes:
        names: The names so far, in the order of the registry.
        pages: Number of pages so far.
    """

    def __init__(self, client: Client, cost: Cost, valid: re.Pattern[str]) -> None:
        """Prepare the list. No request is sent yet.

        Args:
            client: Sends the requests.
            cost: Counts and limits the bytes that are read.
            valid: A regular expression that every name must match.
        """
        self._client = client
        self._cost = cost
        self._valid = valid
        self.names: dict[str, None] = {}
        self.pages = 0

    def read(self, path: str, decode: Callable[[bytes], list[str]]) -> None:
        """Read all pages.

        Args:
            path: Path and query of the first page.
            decode: Returns the names in the body of a page.

        Raises:
            InconsistentListing: If a name is listed twice, or a later page is gone.
            MalformedResponse: If a name is invalid, if the next page is on another host or has been
                read before, or if the list has more than `MAX_PAGES` pages.
            RegistryError: If a page cannot be read.
        """
        url: str | None = path
        requested = set()
        while url is not None:
            if url in requested:
                raise MalformedResponse(f"{url} was read before: the pages lead in a circle")
            if self.pages == MAX_PAGES:
                raise MalformedResponse(
                    f"{path} has more than {MAX_PAGES} pages, the most that tagsync accepts"
                )
            requested.add(url)
            answer = self._page(url)
            next_url = _next_page(answer)
            requested.add(answer.url)
            names = decode_body(decode, answer, _INTERFACE)
            self._add(names, answer.url)
            if next_url is not None and not names:
                raise MalformedResponse(f"{answer.url} is an empty page that names a next page")
            url = next_url

    def _page(self, url: str) -> Answer:
        try:
            answer = self._client.get(url, {}, self._cost.bytes_left)
        except NotFound as error:
            if not self.pages:
                raise
            raise InconsistentListing(f"a later page is gone ({error})") from error
        self.pages += 1
        return self._cost.add(answer)

    def _add(self, names: list[str], url: str) -> None:
        for name in names:
            if not self._valid.fullmatch(name):
                raise MalformedResponse(
                    f"{url} lists {truncate(name)!r}, which is not a valid name"
                )
            if name in self.names:
                raise InconsistentListing(f"{truncate(name)!r} is listed twice")
            self.names[name] = None


def _next_page(answer: Answer) -> str | None:
    """Return the absolute URL of the next page (RFC 8288), or None on the last page."""
    for link in answer.headers.get_list("Link"):
        for match in re.finditer(r"<([^>]*)>([^<]*)", link):
            if re.search(r";\s*rel\s*=\s*\"?next\b", match[2], re.IGNORECASE):
                try:
                    return str(httpx.URL(answer.url).join(match[1]))
                except httpx.InvalidURL as error:
                    raise MalformedResponse(
                        f"{answer.url} names a next page that is not a URL"
                    ) from error
    return None
