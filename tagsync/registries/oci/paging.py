"""Read a list of names page by page.

A page names the next one in its header ``Link``. Some registries send no ``Link``, although their
page contains only a part of the list. After a page without ``Link``:

=================================  =============================================================
the page has                       tagsync
=================================  =============================================================
fewer or more names than           is done: the list is complete
asked for
exactly as many names as           asks for the names after the last one (``last=``)
asked for
=================================  =============================================================

After the answer to ``last=``:

=================================  =============================================================
the answer has                     tagsync
=================================  =============================================================
no name, or only the last one      is done: the list is complete
only names that are new            goes on as above
a name of an earlier page          asks for `WHOLE` names, because the registry ignores ``last=``
=================================  =============================================================

If the answer to `WHOLE` has as many names as the first page, the registry ignores ``n=``, too, and
the first page was the whole list. If it has more names, it is the whole list, unless it has exactly
`WHOLE` names: then the list may be longer, and the poll fails.
"""

import re
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final
from urllib.parse import urlencode

from tagsync.errors import (
    BadRequest,
    InconsistentListing,
    MalformedResponse,
    NotFound,
    ResponseTooLarge,
)
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.oci.links import next_query
from tagsync.registries.responses import Answer, read_consistently

PAGE: Final = 1000
"""Number of names to ask for per page. Some registries send fewer, some ignore the number."""

SMALL_PAGE: Final = 100
"""Number of names to ask for if a registry refuses a page of `PAGE` names with an unclear error.
Common limits are 100 and 1000."""

_PARAMETER_REFUSED: Final = frozenset({400, 422})
"""Statuses with which registries refuse a parameter."""

WHOLE: Final = 10_000
"""Number of names to ask for if a registry has no second page."""

MAX_NAMES: Final = 1_000_000
"""Maximum number of names of a list."""

MAX_FRUITLESS_PAGES: Final = 1000
"""Maximum number of pages of a list that add no name."""


class Cost:
    """A count of the requests and bytes of one listing. Safe to use from many threads."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self._max_bytes = max_bytes
        self.requests = 0
        self.size = 0

    @property
    def limit(self) -> int:
        """Maximum number of bytes of the listing."""
        return self._max_bytes

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

    def include(self, other: "Cost") -> None:
        """Add the requests and bytes of another count, which has a limit of its own."""
        with self._lock:
            self.requests += other.requests
            self.size += other.size
            self._max_bytes += other.size


class PageSize:
    """The number of names to ask for per page, reduced if a registry refuses it.

    It is shared by all lists of one kind of a registry, so that only the first of them is refused.
    """

    def __init__(self) -> None:
        self.value = PAGE

    def reduce_to(self, accepted: int) -> None:
        """Note the number of names that a registry has accepted."""
        self.value = min(self.value, accepted)


def smaller_page(error: BadRequest, refused: int) -> int:
    """Return the number of names to ask for after a refusal.

    Args:
        error: The refusal.
        refused: The number that was asked for.

    Raises:
        BadRequest: The same error, if the number is not the reason or cannot be reduced.
    """
    if error.code == "PAGINATION_NUMBER_INVALID" and refused > 1:
        return refused // 2
    # Other registries do not say which parameter is wrong.
    if error.status in _PARAMETER_REFUSED and refused > SMALL_PAGE:
        return SMALL_PAGE
    raise error


def read_list(make: Callable[[], "PagedNames"], size: PageSize, name: str) -> "PagedNames":
    """Read a list until its pages are consistent.

    If names are listed on two pages, the list is read again. It is accepted if the same names are
    then repeated, because some registries list a name twice.

    Args:
        make: Returns a list that has not been read yet.
        size: The number of names to ask for.
        name: The name of the list, for an error.

    Raises:
        RegistryError: As for `PagedNames.read`, if the pages contradicted each other in every
            attempt, or if a page cannot be read.
    """
    repeated: set[str] = set()

    def read() -> PagedNames:
        nonlocal repeated
        names = make()
        names.read(size)
        if not names.repeated <= repeated:
            example = min(names.repeated - repeated)
            repeated = names.repeated
            raise InconsistentListing(f"{truncate(example)!r} is listed on two pages")
        return names

    return read_consistently(read, name)


class PagedNames:
    """A list of names, read to its end.

    Attributes:
        names: The valid names so far, in the order of the registry.
        bad_names: Listed texts that are not valid names.
        repeated: Names that are listed on two pages. Such a name may have moved between the two
            requests. The last name of a page does not count if the next page begins with it.
        pages: Number of pages so far.
    """

    def __init__(
        self,
        client: Client,
        cost: Cost,
        valid: re.Pattern[str],
        path: str,
        decode: Callable[[Answer], Sequence[str]],
    ) -> None:
        """Prepare the list. No request is sent yet.

        Args:
            client: Sends the requests.
            cost: Counts and limits the bytes that are read.
            valid: A regular expression that a valid name matches as a whole.
            path: The path of the list below the endpoint.
            decode: Returns the names of a page.
        """
        self._client = client
        self._cost = cost
        self._valid = valid
        self._path = path
        self._decode = decode
        self.names: dict[str, None] = {}
        self.bad_names: dict[str, None] = {}
        self.repeated: set[str] = set()
        self.pages = 0
        self._fruitless = 0
        self._requested: set[str] = set()

    def read(self, size: PageSize) -> None:
        """Read all pages.

        Args:
            size: The number of names to ask for.

        Raises:
            InconsistentListing: If a later page is gone, or two answers contradict each other.
            MalformedResponse: If the next page cannot be read from a ``Link``, is of another list
                or was read before, or if too many pages add no name.
            ResponseTooLarge: If the list has more than `MAX_NAMES` names, or if the registry shows
                `WHOLE` names and has no second page.
            RegistryError: If a page cannot be read.
        """
        asked, page, query = self._first_page(size)
        first = page
        last: str | None = None
        self._add(page, last)
        # A registry that sends Link sends it until the end, so its last page may be a full one.
        is_linked = query is not None
        while query is not None or (not is_linked and len(page) == asked):
            last = page[-1] if page else last
            if query is not None:
                page, query = self._page(query)
            else:
                page, query = self._page({"n": asked, "last": last or ""})
                if self._is_known(page, None if asked == 1 else last):
                    self._read_whole(first)
                    return
            is_linked = is_linked or query is not None
            self._add(page, last)

    def _first_page(self, size: PageSize) -> tuple[int, Sequence[str], str | None]:
        """Return how many names were asked for, the first page, and the query of the next one."""
        asked = size.value
        while True:
            try:
                page, query = self._page({"n": asked})
            except BadRequest as error:
                asked = smaller_page(error, asked)
            else:
                size.reduce_to(asked)
                return asked, page, query

    def _is_known(self, page: Sequence[str], last: str | None) -> bool:
        """Return whether a page has a name of an earlier page, other than the last one."""
        return any(name != last and self._has(name) for name in page)

    def _read_whole(self, first: Sequence[str]) -> None:
        """Read the list in one page, from a registry that ignores ``last=``."""
        page, query = self._page({"n": WHOLE})
        names = {*page}
        if not names >= {*self.names, *self.bad_names} or query is not None:
            raise InconsistentListing(
                f"{self._path} has {len(first)} names with n={len(first)}, and with n={WHOLE} it"
                " lacks some of them or names a next page"
            )
        if len(page) == WHOLE:
            raise ResponseTooLarge(
                f"{self._path} has {WHOLE} names or more, and the registry shows no more of them:"
                " it sends no Link and ignores last="
            )
        self._add(page, None, again=True)

    def _page(self, query: str | dict[str, str | int]) -> tuple[Sequence[str], str | None]:
        """Return the names of a page, and the query of the next page."""
        text = query if isinstance(query, str) else urlencode(query)
        if text in self._requested:
            raise MalformedResponse(
                f"{self._client.endpoint}{self._path}?{truncate(text)} was read before: the pages"
                " lead in a circle"
            )
        try:
            answer = self._client.get(f"{self._path}?{text}", {}, self._cost.bytes_left)
        except NotFound as error:
            if not self.pages:
                raise
            raise InconsistentListing(f"a later page is gone ({error})") from error
        self._requested.add(text)
        self.pages += 1
        self._cost.add(answer)
        return self._decode(answer), next_query(answer, self._path)

    def _add(self, page: Sequence[str], previous: str | None, *, again: bool = False) -> None:
        """Add the names of a page.

        Args:
            page: The names.
            previous: The last name of the page before, with which a page may begin.
            again: Whether the page repeats the names of the pages before it.
        """
        before = len(self.names) + len(self.bad_names)
        known = {name for name in page if self._has(name)}
        if page and page[0] == previous:
            known.discard(page[0])
        if not again:
            self.repeated |= known
        for name in page:
            names = self.names if self._valid.fullmatch(name) else self.bad_names
            names[name] = None
        count = len(self.names) + len(self.bad_names)
        if count > MAX_NAMES:
            raise ResponseTooLarge(
                f"{self._path} lists more than {MAX_NAMES} names, the most that tagsync accepts"
            )
        self._fruitless += count == before
        if self._fruitless > MAX_FRUITLESS_PAGES:
            raise MalformedResponse(
                f"{self._path} has more than {MAX_FRUITLESS_PAGES} pages that add no name"
            )

    def _has(self, name: str) -> bool:
        return name in self.names or name in self.bad_names
