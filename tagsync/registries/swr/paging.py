"""Read a list of SWR page by page. SWR's servers differ in how they divide a list."""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from typing import Final, Generic, NoReturn, TypeVar

import httpx
import msgspec

from tagsync.errors import InconsistentListing, ResponseTooLarge
from tagsync.escaping import truncate
from tagsync.registries.responses import Answer, decode_body

PAGE: Final = 1000
"""Number of rows to request per page: the maximum that the vendor documents."""

MAX_ROWS: Final = 1_000_000
"""Maximum number of rows of a list. In memory, a small row takes twenty times the bytes that it
takes in a response."""

MAX_PAGES: Final = 10_000
"""Maximum number of pages of a list. With the limit of bytes alone, millions of pages with one row
each would be read."""

_FINGERPRINT_VERSION: Final = b"swr 1\n"
"""Part of each fingerprint. Change it when tagsync starts to record more of a response, so that a
list that was recorded before counts as changed and is recorded again."""

_INTERFACE: Final = "SWR's API"

RowT = TypeVar("RowT")
ReadT = TypeVar("ReadT")


class Page(Generic[RowT]):
    """One page of a list. Its rows are decoded on first use."""

    def __init__(self, answer: Answer, decode: Callable[[bytes], list[RowT] | None]) -> None:
        # Drop the headers: each page may have 100 KiB of them, and a list thousands of pages.
        self.answer = msgspec.structs.replace(answer, headers=httpx.Headers())
        self.content_range = answer.headers.get("Content-Range", "")
        self._decode = decode
        self._rows: list[RowT] | None = None

    @property
    def rows(self) -> list[RowT]:
        """The rows of the page. SWR sends an empty list as ``[]`` or ``null``."""
        if self._rows is None:
            self._rows = decode_list(self._decode, self.answer) or []
        return self._rows

    @property
    def total(self) -> int | None:
        """Number of rows of the whole list, or None if the server does not send it.

        The server sends it in the header ``Content-Range: {offset}-{count}/{total}``.
        """
        match = re.fullmatch(r"(?:\w+ )?\d+-\d+/(\d{1,18})", self.content_range.strip())
        return int(match[1]) if match else None


class PagedRead(Generic[RowT]):
    """One attempt to read all pages of a list.

    Attributes:
        pages: The pages that contain rows of the list.
        answers: Number of responses that the list was read from, including an empty last page.
        requests: Number of requests, retries included.
        size: Bytes of all response bodies.
        unchanged: Whether the list is the same as the recorded one.
    """

    def __init__(
        self,
        fetch: Callable[[int, int, int], Answer],
        decode: Callable[[bytes], list[RowT] | None],
        name_of: Callable[[RowT], str | None],
        max_bytes: int,
        known: str | None = None,
    ) -> None:
        """Prepare the read. No request is sent yet.

        Args:
            fetch: Requests a page, given its offset, limit and maximum size in bytes.
            decode: Decodes the body of a page.
            name_of: Returns the name of a row, which must be unique in the list. It returns None
                for a row that need not be unique.
            max_bytes: Maximum size of all response bodies together.
            known: Fingerprint of the recorded list, or None.
        """
        self._fetch = fetch
        self._decode = decode
        self._name_of = name_of
        self._seen: set[str] = set()
        self._rows = 0
        self._known = known
        self._max_bytes = max_bytes
        self._hash = sha256(_FINGERPRINT_VERSION)
        self.pages: list[Page[RowT]] = []
        self.answers = 0
        self.requests = 0
        self.size = 0
        self.unchanged = False

    @property
    def fingerprint(self) -> str:
        """Hash of all pages that have been read so far."""
        return self._hash.hexdigest()

    def read(self) -> None:
        """Request pages until the list is complete, or is found to be the recorded one.

        Some servers ignore ``offset`` and ``limit``, some send fewer rows per page than requested,
        and some send no total. The method must never take a part of such a list for the whole.

        Raises:
            InconsistentListing: If the pages contradict each other.
            RegistryError: If a page cannot be read.
        """
        first = self._page(0, PAGE)
        if self.unchanged:
            return
        if first.total is None:
            self._read_without_total(first)
        else:
            self._read_to_total(first, first.total)

    def _read_to_total(self, first: Page[RowT], total: int) -> None:
        step = count = len(first.rows)
        self._check_rows(first)
        if total > MAX_ROWS:
            _too_many(first.answer, MAX_ROWS, "rows")
        while count < total and not self.unchanged:
            if not step:
                _contradiction(f"the first page is empty although the total is {total}")
            page = self._page(step * len(self.pages), step)
            if page.total != total:
                _contradiction(f"the total was {total}, then {page.total}")
            self._check_rows(page)
            count += len(page.rows)
            if count < total and len(page.rows) != step:
                _contradiction(f"a page has {len(page.rows)} rows although {step} were requested")
        if count > total:
            _contradiction(f"there are {count} rows although the total is {total}")

    def _read_without_total(self, first: Page[RowT]) -> None:
        step = len(first.rows)
        if step == 0 or step > PAGE:
            return
        # Request one row after the first page (the probe). If the list is complete, the answer is
        # empty. A server that ignores paging sends the first page again.
        before = self._hash.copy()
        probe = self._page(step, 1)
        self.pages.pop()
        if not probe.rows or self.unchanged:
            return
        if list(map(self._name_of, probe.rows)) == list(map(self._name_of, first.rows)):
            # Leave the probe out of the fingerprint, so that the next poll can compare the
            # fingerprint after the first page.
            self._hash = before
            self.answers -= 1
            return
        self._check_rows(first)
        ended = False
        while not self.unchanged:
            page = self._page(step * len(self.pages), step)
            if not page.rows:
                self.pages.pop()
                return
            if ended or len(page.rows) > step:
                _contradiction(f"a page that should have {step} rows has more or fewer")
            self._check_rows(page)
            ended = len(page.rows) < step

    def _check_rows(self, page: Page[RowT]) -> None:
        """Check that no row was also on an earlier page.

        A row may move to a later page while the list is read, and a server may repeat a page.

        Raises:
            InconsistentListing: If a row was also on an earlier page.
            ResponseTooLarge: If the list has more than `MAX_ROWS` rows.
        """
        self._rows += len(page.rows)
        if self._rows > MAX_ROWS:
            _too_many(page.answer, MAX_ROWS, "rows")
        names = {name for row in page.rows if (name := self._name_of(row)) is not None}
        if repeated := names & self._seen:
            _contradiction(f"{truncate(min(repeated))!r} is on two pages")
        self._seen |= names

    def _page(self, offset: int, limit: int) -> Page[RowT]:
        answer = self._fetch(offset, limit, self._max_bytes - self.size)
        page = Page(answer, self._decode)
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


def decode_list(decode: Callable[[bytes], ReadT], answer: Answer) -> ReadT:
    """Decode a list. The rows are counted first, because decoding needs much memory.

    Raises:
        MalformedResponse: If the body is not the requested list.
        ResponseTooLarge: If the list has more than `MAX_ROWS` rows.
    """
    # A row has at least ten bytes and begins with {". JSON escapes the quote in a string, so this
    # does not count text.
    if len(answer.body) > 10 * MAX_ROWS:
        rows = sum(1 for _ in islice(re.finditer(rb'\{\s*"', answer.body), MAX_ROWS + 1))
        if rows > MAX_ROWS:
            _too_many(answer, MAX_ROWS, "rows")
    return decode_body(decode, answer, _INTERFACE)


def _contradiction(description: str) -> NoReturn:
    raise InconsistentListing(description)


def _too_many(answer: Answer, limit: int, unit: str) -> NoReturn:
    raise ResponseTooLarge(
        f"{answer.url} lists more than {limit} {unit}, the most that tagsync accepts"
    )
