"""Read a list of SWR page by page. SWR's servers differ in how they divide a list."""

import re
from collections.abc import Callable
from hashlib import sha256
from itertools import count, islice
from typing import Final, Generic, NoReturn, TypeVar

import httpx
import msgspec

from tagsync.errors import InconsistentListing, ResponseTooLarge
from tagsync.escaping import truncate
from tagsync.registries.responses import READS, Answer, decode_body

PAGE: Final = 1000
"""Number of rows to request per page: the maximum that the vendor documents."""

MAX_ROWS: Final = 1_000_000
"""Maximum number of rows of a list. In memory, a small row takes twenty times the bytes that it
takes in a response."""

MAX_PAGES: Final = 10_000
"""Maximum number of pages of a list. With the limit of bytes alone, millions of pages with one row
each would be read."""

READS_WITHOUT_TOTAL: Final = 5
"""Maximum number of times that a list is read if the server sends no total."""

_FINGERPRINT_VERSION: Final = b"swr 2\n"
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
        sends_total: Whether the server sends the number of rows of the whole list.
        confirmed: Whether the read before this one had the same rows; see `read_list`.
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
        self.sends_total = False
        self.confirmed = False

    @property
    def fingerprint(self) -> str:
        """Hash of all pages that have been read so far."""
        return self._hash.hexdigest()

    @property
    def may_lack_rows(self) -> bool:
        """Whether a row may be missing although the pages do not contradict each other.

        If another row is deleted between the requests for two pages, a row moves from the second
        page to the first one, and is on neither page when it is read. A total would show it.
        """
        return not self.sends_total and self.answers > 1

    def rows_hash(self) -> bytes:
        """Return a hash of all rows, which does not depend on their order."""
        if self.unchanged:
            return self._hash.digest()
        rows = (row for page in self.pages for row in page.rows)
        hashes = sorted(sha256(msgspec.json.encode(row)).digest() for row in rows)
        return sha256(b"".join(hashes)).digest()

    def read(self) -> None:
        """Request pages until the list is complete, or is found to be the recorded one.

        Some servers ignore ``offset`` and ``limit``, some send fewer rows per page than requested,
        and some send no total. The method must never take a part of such a list for the whole.

        Raises:
            InconsistentListing: If the pages contradict each other.
            RegistryError: If a page cannot be read.
        """
        first = self._page(0, PAGE)
        self.sends_total = first.total is not None
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
        if count == total == PAGE:
            self._check_end(total)
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

    def _check_end(self, total: int) -> None:
        """Check that a full page is the last one. Its total may be the size of the page itself.

        Raises:
            InconsistentListing: If the server has a row after it.
        """
        probe = self._page(total, 1)
        self.pages.pop()
        if probe.rows and not self._seen.intersection(map(self._name_of, probe.rows)):
            _contradiction(f"there is a row after the first {total} although the total is {total}")

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


def read_list(new_read: Callable[[], PagedRead[RowT]], name: str) -> PagedRead[RowT]:
    """Read a list until it is consistent, and return the last read.

    A list is read again if its pages contradict each other. A list of several pages without a total
    is also read until two reads in a row have the same rows, because one read may lack a row.

    Args:
        new_read: Returns a read that has sent no request.
        name: The name of the list, for an error.

    Returns:
        The last read. Its numbers of requests and bytes include those of all reads.

    Raises:
        InconsistentListing: If the pages contradicted each other in the last of `READS` reads, or
            if no two reads in a row had the same rows in `READS_WITHOUT_TOTAL` reads.
        RegistryError: If a page cannot be read.
    """
    requests = size = 0
    previous: bytes | None = None
    for reads in count(1):
        pages = new_read()
        error: InconsistentListing | None = None
        rows: bytes | None = None
        try:
            pages.read()
        except InconsistentListing as contradiction:
            error = contradiction
        else:
            rows = pages.rows_hash() if pages.may_lack_rows else None
            pages.confirmed = rows is not None and rows == previous
        requests, size = requests + pages.requests, size + pages.size
        if error is None and (pages.confirmed or not pages.may_lack_rows):
            pages.requests, pages.size = requests, size
            return pages
        if reads >= (READS if pages.sends_total else READS_WITHOUT_TOTAL):
            _give_up(name, reads, error)
        previous = rows
    raise AssertionError("the loop ends with a return or an exception")


def _give_up(name: str, reads: int, error: InconsistentListing | None) -> NoReturn:
    if error is None:
        raise InconsistentListing(
            f"{name} was read {reads} times, and each time it had other rows than before; the"
            " registry sends no total, so a single read may lack some"
        )
    raise InconsistentListing(
        f"{name} was read {reads} times, and each time its pages contradicted each other: {error}"
    ) from error


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
