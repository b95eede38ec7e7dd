"""Lists of several pages: totals, shifted rows, and bounds."""

import pytest

from tagsync.emulator.oci import OciEmulator
from tagsync.errors import InconsistentListing, MalformedResponse, ResponseTooLarge
from tagsync.registries.oci.lists.pages import MAX_FRUITLESS_PAGES, MAX_PAGES, PagedRows
from tagsync.registries.oci.lists.protocol import Row
from tagsync.registries.oci.paging import MAX_NAMES
from tests.support.calls import raised_by
from tests.support.lists import REPOSITORY, Open, digests, fill
from tests.support.plain_list import LIST, Plain, PlainList


def lists(emulator: OciEmulator) -> list[str]:
    """Return the pages that were requested."""
    return [r.query["page"] for r in emulator.requests if LIST.fullmatch(r.path)]


def test_all_pages_are_read(listed: Open) -> None:
    """The pages are put together, and the names come from ``tags/list``."""
    with OciEmulator(Plain(size=10)) as emulator:
        fill(emulator, 31)
        registry = listed(emulator, lists=[PlainList])
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "plain")
        assert lists(emulator) == ["0", "1", "2", "3"]


def test_total_that_changes_is_read_again_and_then_not_used(listed: Open) -> None:
    """A push between two pages changes the total; then the pages may lack a row."""

    class Moving(Plain):
        changes = 1

        def total(self, rows: int, start: int) -> int:
            if start and self.changes:
                self.changes -= 1
                return rows + 1
            return rows

    for changes, source, pages in ((1, "plain", "010123"), (2, "head", "0101")):
        vendor = Moving(size=10)
        vendor.changes = changes
        with OciEmulator(vendor) as emulator:
            fill(emulator, 31)
            listing = listed(emulator, lists=[PlainList]).poll()
            assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), source)
            assert "".join(lists(emulator)) == pages


def test_name_on_two_pages_is_inconsistent() -> None:
    """A name may repeat on one page, which the guard judges, and not on two."""
    rows = PagedRows("/list")
    rows.add([Row("v1", None), Row("v1", "a")])
    error = raised_by(lambda: rows.add([Row("v2", None), Row("v1", None)]))
    assert isinstance(error, InconsistentListing)
    assert "'v1'" in str(error)


def test_pages_are_bounded() -> None:
    """A list whose pages never end is refused."""
    rows = PagedRows("/list")
    for number in range(MAX_PAGES):
        rows.add([Row(f"v{number}", None)])
    with pytest.raises(MalformedResponse, match=str(MAX_PAGES)):
        rows.add([])


def test_pages_without_rows_are_bounded() -> None:
    """A list that goes on without rows is refused much earlier."""
    rows = PagedRows("/list")
    for _ in range(MAX_FRUITLESS_PAGES):
        rows.add([])
    with pytest.raises(MalformedResponse, match="without rows"):
        rows.add([])


def test_rows_are_bounded() -> None:
    """A list with more rows than a repository may have tags is refused."""
    rows = PagedRows("/list")
    rows.add([Row("v1", None)] * MAX_NAMES)
    with pytest.raises(ResponseTooLarge, match=str(MAX_NAMES)):
        rows.add([Row("v2", None)])


def test_pages_share_a_budget_that_is_not_that_of_the_names(listed: Open) -> None:
    """All pages together fit `max_listing_size`; the names have as many bytes again."""
    with OciEmulator(Plain(size=10)) as emulator:
        fill(emulator, 40)
        body = sum(len(f'["{tag}","{d}"],') for tag, d in emulator.tags(REPOSITORY).items())
        names = sum(len(f'"{tag}",') for tag in emulator.tags(REPOSITORY))
        fits = body + names // 2 + 300
        assert listed(emulator, lists=[PlainList], bound=fits).poll().source == "plain"
        assert listed(emulator, lists=[PlainList], bound=body - 500).poll().source == "head"
