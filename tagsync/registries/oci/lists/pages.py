"""Read a registry's own list from several pages."""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from tagsync.errors import InconsistentListing, MalformedResponse, ResponseTooLarge
from tagsync.escaping import truncate
from tagsync.registries.oci.lists.protocol import Row
from tagsync.registries.oci.paging import MAX_NAMES
from tagsync.registries.responses import Answer, repeat_if_inconsistent

MAX_PAGES: Final = 20_000
"""Maximum number of pages of a list, so that a list that never ends is refused."""

MAX_FRUITLESS_PAGES: Final = 100
"""Maximum number of pages of a list that have no row, for the same reason."""

READS: Final = 2
"""How often a list is read if its pages contradict each other, before the tags are resolved by
HEAD."""

ReadT = TypeVar("ReadT")


class PagedRows:
    """The rows of a list, page by page. It notices pages that shift while they are read.

    Attributes:
        rows: The rows so far.
        pages: Number of pages so far.
    """

    def __init__(self, list_name: str) -> None:
        """Begin without rows.

        Args:
            list_name: The path of the list, for an error.
        """
        self.rows: list[Row] = []
        self.pages = 0
        self._list_name = list_name
        self._names: set[str] = set()
        self._fruitless = 0
        self._total: int | None = None

    def add(self, page: Iterable[Row], total: int | None = None) -> None:
        """Add the rows of a page.

        Args:
            page: The rows.
            total: The number of rows of the list, as the registry states it with this page. None if
                it states none.

        Raises:
            InconsistentListing: If a name was on an earlier page, or if the total changes.
            MalformedResponse: If the list has too many pages, or too many without rows.
            ResponseTooLarge: If the list has too many rows.
        """
        self.pages += 1
        if self.pages > MAX_PAGES:
            raise MalformedResponse(f"{self._list_name} has more than {MAX_PAGES} pages")
        if total is not None:
            if self._total not in {None, total}:
                raise InconsistentListing(
                    f"{self._list_name} has {self._total} rows, and on a later page {total}"
                )
            self._total = total
        rows = list(page)
        self._fruitless += not rows
        if self._fruitless > MAX_FRUITLESS_PAGES:
            raise MalformedResponse(
                f"{self._list_name} has more than {MAX_FRUITLESS_PAGES} pages without rows"
            )
        names = {row.name for row in rows}
        if shifted := names & self._names:
            example = truncate(min(shifted))
            raise InconsistentListing(f"{self._list_name} has {example!r} on two pages")
        self._names |= names
        self.rows += rows
        if len(self.rows) > MAX_NAMES:
            raise ResponseTooLarge(f"{self._list_name} has more than {MAX_NAMES} rows")


def stated_total(answer: Answer, header: str) -> int | None:
    """Return the number of items of a list, as a header states it. None if it does not."""
    text = answer.headers.get(header, "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def read_again_if_inconsistent(read: Callable[[], ReadT]) -> ReadT:
    """Return the result of a read, which is repeated once if its pages contradict each other.

    Raises:
        InconsistentListing: If the pages contradicted each other in both reads.
    """
    return repeat_if_inconsistent(read, READS)
