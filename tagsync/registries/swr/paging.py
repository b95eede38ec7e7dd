"""Read a list of SWR page by page."""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from typing import Final, Generic, NoReturn, TypeVar

import httpx
import msgspec

from tagsync.errors import (
    InconsistentListing,
    ResponseTooLarge,
)
from tagsync.escaping import truncate
from tagsync.registries import client as http
from tagsync.registries import responses as answers

PAGE: Final = 1000
"""Rows asked for at a time: the most that the vendor documents."""

MAX_ROWS: Final = 1_000_000
"""Rows that one list may have: in memory a small row takes twenty times its bytes on the wire."""

MAX_PAGES: Final = 10_000
"""Pages that one list may have: of pages with a row each, bytes alone would allow millions."""

_DECODING: Final = b"swr 1\n"
"""Part of each fingerprint: to be changed when more is taken from the same bytes than before."""

_INTERFACE: Final = "SWR's API"

RowT = TypeVar("RowT")

ReadT = TypeVar("ReadT")


class _Page(Generic[RowT]):
    """One answer of a list; its rows are decoded when they are first asked for."""

    def __init__(self, answer: http.Answer, decode: Callable[[bytes], list[RowT] | None]) -> None:
        # A thousand pages need not keep a thousand heads, each of which may have 100 KiB.
        self.answer = msgspec.structs.replace(answer, headers=httpx.Headers())
        self.content_range = answer.headers.get("Content-Range", "")
        self._decode = decode
        self._rows: list[RowT] | None = None

    @property
    def rows(self) -> list[RowT]:
        """The rows; an empty list is ``[]`` or ``null``."""
        if self._rows is None:
            self._rows = _decoded(self._decode, self.answer) or []
        return self._rows

    @property
    def total(self) -> int | None:
        """How many rows all pages have, from ``Content-Range: {offset}-{count}/{total}``."""
        match = re.fullmatch(r"(?:\w+ )?\d+-\d+/(\d{1,18})", self.content_range.strip())
        return int(match[1]) if match else None


class _Reading(Generic[RowT]):
    """One attempt to read all pages of a list.

    Attributes:
        pages: those that have rows of it.
        answers: how many it rests on, an empty one that says "that was all" among them.
        requests: how many were sent, those tried again included.
        size: bytes of all bodies.
        unchanged: whether it is the recorded one.
    """

    def __init__(
        self,
        fetch: Callable[[int, int, int], http.Answer],
        decode: Callable[[bytes], list[RowT] | None],
        name_of: Callable[[RowT], str | None],
        max_bytes: int,
        known: str | None = None,
    ) -> None:
        self._fetch = fetch
        self._decode = decode
        self._name_of = name_of
        self._seen: set[str] = set()
        self._rows = 0
        self._known = known
        self._max_bytes = max_bytes
        self._hash = sha256(_DECODING)
        self.pages: list[_Page[RowT]] = []
        self.answers = 0
        self.requests = 0
        self.size = 0
        self.unchanged = False

    @property
    def fingerprint(self) -> str:
        """Of every page so far."""
        return self._hash.hexdigest()

    def read(self) -> None:
        """Fetches pages until the listing is complete or known to be the recorded one.

        Servers differ: some ignore ``offset`` and ``limit``, some cap the page below what was
        asked, some send no total. None of that may make a part look like the whole.

        Raises:
            InconsistentListing: the pages contradict each other.
            RegistryError: a page could not be had.
        """
        first = self._page(0, PAGE)
        if self.unchanged:
            return
        if first.total is None:
            self._read_without_total(first)
        else:
            self._read_to_total(first, first.total)

    def _read_to_total(self, first: _Page[RowT], total: int) -> None:
        step = count = len(first.rows)
        self._take(first)
        if total > MAX_ROWS:
            _too_many(first.answer, MAX_ROWS, "rows")
        while count < total and not self.unchanged:
            if not step:
                _contradict(f"there is no row where the total is {total}")
            page = self._page(step * len(self.pages), step)
            if page.total != total:
                _contradict(f"the total was {total}, then {page.total}")
            self._take(page)
            count += len(page.rows)
            if count < total and len(page.rows) != step:
                _contradict(f"a page has {len(page.rows)} rows where {step} were asked for")
        if count > total:
            _contradict(f"there are {count} rows where the total is {total}")

    def _read_without_total(self, first: _Page[RowT]) -> None:
        step = len(first.rows)
        if step == 0 or step > PAGE:
            return
        # One row after the first page tells the three kinds of server apart: it is missing where
        # the listing is complete, and it is the whole first page again where paging is ignored.
        before = self._hash.copy()
        probe = self._page(step, 1)
        self.pages.pop()
        if not probe.rows or self.unchanged:
            return
        if list(map(self._name_of, probe.rows)) == list(map(self._name_of, first.rows)):
            # What is ignored tells nothing new: the next poll needs the first page only.
            self._hash = before
            self.answers -= 1
            return
        self._take(first)
        ended = False
        while not self.unchanged:
            page = self._page(step * len(self.pages), step)
            if not page.rows:
                self.pages.pop()
                return
            if ended or len(page.rows) > step:
                _contradict(f"a page that should have {step} rows has more or fewer")
            self._take(page)
            ended = len(page.rows) < step

    def _take(self, page: _Page[RowT]) -> None:
        """Makes sure that no row was on a page before: rows moved, or the same page came again.

        Raises:
            InconsistentListing: one was.
            ResponseTooLarge: there are more rows than any list has.
        """
        self._rows += len(page.rows)
        if self._rows > MAX_ROWS:
            _too_many(page.answer, MAX_ROWS, "rows")
        names = {name for row in page.rows if (name := self._name_of(row)) is not None}
        if repeated := names & self._seen:
            _contradict(f"{truncate(min(repeated))!r} is on two pages")
        self._seen |= names

    def _page(self, offset: int, limit: int) -> _Page[RowT]:
        answer = self._fetch(offset, limit, self._max_bytes - self.size)
        page = _Page(answer, self._decode)
        if len(self.pages) == MAX_PAGES:
            _too_many(answer, MAX_PAGES, "pages")
        self.answers += 1
        self.requests += answer.requests
        self.size += len(answer.body)
        self._hash.update(f"{len(answer.body)} {page.content_range}\n".encode())
        self._hash.update(answer.body)
        self.pages.append(page)
        self.unchanged = self.fingerprint == self._known
        return page


def _decoded(decode: Callable[[bytes], ReadT], answer: http.Answer) -> ReadT:
    # No row is shorter than ten bytes, and each begins with this, which no text within it holds: it
    # counts them before there are objects.
    if len(answer.body) > 10 * MAX_ROWS:
        begun = sum(1 for _ in islice(re.finditer(rb'\{\s*"', answer.body), MAX_ROWS + 1))
        if begun > MAX_ROWS:
            _too_many(answer, MAX_ROWS, "rows")
    return answers.decoded(decode, answer, _INTERFACE)


def _contradict(what: str) -> NoReturn:
    raise InconsistentListing(what)


def _too_many(answer: http.Answer, limit: int, what: str) -> NoReturn:
    raise ResponseTooLarge(f"{answer.url} lists more than the {limit} {what} that are believed")
