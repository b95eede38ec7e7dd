"""Pages of SWR's lists, from servers that differ in how they page."""

from collections.abc import Callable, Sequence
from contextlib import closing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.clock import timestamp
from tagsync.emulator import Emulator
from tagsync.errors import (
    BadRequest,
    InconsistentListing,
    MalformedResponse,
    RepositoryNotFound,
    ResponseTooLarge,
)
from tagsync.models import Listing, Unchanged
from tagsync.registries.responses import READS
from tagsync.registries.swr.api import Swr
from tagsync.registries.swr.paging import PAGE, READS_WITHOUT_TOTAL
from tests.support.clock import FakeClock
from tests.support.swr import (
    BOUND,
    REPOSITORY,
    Row,
    ask,
    ask_emulator,
    client_of,
    copies,
    in_order,
    listing,
    response,
    rows_of,
    sentence_of,
)

# Paging, over real connections.


def pushed(emulator: Emulator, tags: int) -> set[str]:
    names = {f"v{number}" for number in range(tags)}
    emulator.create_repository(REPOSITORY)
    for name in names:
        emulator.push(REPOSITORY, name, name)
    return names


@pytest.mark.parametrize(
    "answers",
    [
        [response(rows_of(range(10))), response([])],
        [response(rows_of(range(10))), response(rows_of([10])), response([])],
    ],
    ids=["to the probe", "after the probe"],
)
def test_listing_without_total_counts_all_answers(
    answers: Sequence[httpx.Response],
) -> None:
    """Without a total, the last answer counts as a page: tags may have moved before."""
    handler, _ = in_order(*copies([*answers, *answers]))
    found = listing(ask(handler))
    assert len(found.tags) == 10
    assert found.pages == len(answers)
    assert found.requests == 2 * len(answers)
    assert found.size == 2 * sum(len(answer.content) for answer in answers)


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("tags", [0, 1, 99, 100, 101, 200, 250])
def test_small_pages_are_read_to_the_end(tags: int, sends_total: bool) -> None:
    """A server that sends 100 rows at a time is read to the end."""
    with Emulator(max_page=100, sends_total=sends_total) as emulator:
        names = pushed(emulator, tags)
        assert listing(ask_emulator(emulator)).tags.keys() == names


@pytest.mark.parametrize("tags", [30, 1000, 1500])
def test_paging_may_be_ignored(tags: int) -> None:
    """A server that always sends all rows is understood, also with a full page."""
    with Emulator(ignores_paging=True) as emulator:
        names = pushed(emulator, tags)
        found = listing(ask_emulator(emulator))
        assert found.tags.keys() == names
        assert found.pages == 1
        assert len(emulator.requests) <= 2


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("tags", [1000, 2000, 2500])
def test_exact_multiples_of_a_page(tags: int, sends_total: bool) -> None:
    """All tags are read, also if their number is a multiple of the page."""
    with Emulator(sends_total=sends_total) as emulator:
        names = pushed(emulator, tags)
        assert listing(ask_emulator(emulator)).tags.keys() == names


@pytest.mark.parametrize("max_page", [7, 100, 1000])
@pytest.mark.parametrize("sends_total", [True, False])
def test_parameters_of_a_page(max_page: int, sends_total: bool) -> None:
    """Parameters are sent in pairs, and the offset is a multiple of the limit."""
    with Emulator(max_page=max_page, sends_total=sends_total) as emulator:
        pushed(emulator, 150)
        ask_emulator(emulator)
    for request in emulator.requests:
        assert request.query.keys() == {"offset", "limit", "order_column", "order_type"}
        assert int(request.query["offset"]) % int(request.query["limit"]) == 0
        assert 1 <= int(request.query["limit"]) <= PAGE


def test_total_saves_a_request() -> None:
    """With a total, no request is sent after the last page."""
    with Emulator(max_page=100) as emulator:
        pushed(emulator, 200)
        found = listing(ask_emulator(emulator))
    assert (found.requests, found.pages, len(emulator.requests)) == (2, 2, 2)


@pytest.mark.parametrize("requests_of", ["capped", "no total", "ignoring"])
def test_unchanged_listing_is_recognized(requests_of: str) -> None:
    """Equal bytes are `Unchanged`, however the server pages."""
    emulator = Emulator(
        max_page=100,
        sends_total=requests_of == "capped",
        ignores_paging=requests_of == "ignoring",
    )
    with emulator:
        pushed(emulator, 250)
        first = listing(ask_emulator(emulator))
        again = ask_emulator(emulator, first.fingerprint)
        assert isinstance(again, Unchanged)
        assert again.fingerprint == first.fingerprint
        assert isinstance(ask_emulator(emulator, "another"), Listing)
        emulator.push(REPOSITORY, "v7", "moved")
        moved = listing(ask_emulator(emulator, first.fingerprint))
        assert moved.fingerprint != first.fingerprint
        assert moved.tags["v7"].digest == emulator.tags(REPOSITORY)["v7"]


@pytest.mark.parametrize("ignores_paging", [True, False])
def test_unchanged_page_costs_one_request(ignores_paging: bool) -> None:
    """An unchanged listing of one page costs one request."""
    with Emulator(ignores_paging=ignores_paging) as emulator:
        pushed(emulator, 30)
        first = listing(ask_emulator(emulator))
        before = len(emulator.requests)
        again = ask_emulator(emulator, first.fingerprint)
    assert isinstance(again, Unchanged)
    assert again.requests == len(emulator.requests) - before == 1
    assert again.size > 0


@pytest.mark.parametrize("sends_total", [True, False])
def test_change_on_a_later_page_is_detected(sends_total: bool) -> None:
    """A change on a later page is detected although the first page is unchanged."""
    with Emulator(max_page=100, sends_total=sends_total) as emulator:
        pushed(emulator, 250)
        first = listing(ask_emulator(emulator))
        last = list(first.tags)[-1]
        emulator.set_fields(REPOSITORY, last, is_trusted=True)
        found = listing(ask_emulator(emulator, first.fingerprint))
    assert found.tags[last].is_trusted is True


@pytest.mark.parametrize("other", [response(rows_of([2]), 1), response(rows_of([1]), 2)])
def test_fingerprint_includes_bytes_and_total(other: httpx.Response) -> None:
    """Other bytes of the same length, or another total, are not unchanged."""
    page = response(rows_of([1]), 1)
    handler, _ = in_order(*copies([page, other]), response(rows_of([2]), 2))
    known = listing(ask(handler)).fingerprint
    assert isinstance(ask(handler, known), Listing)


def test_total_of_a_full_page_is_checked() -> None:
    """A total that is the size of a full page may be that of the page, not of the list."""
    first = rows_of(range(PAGE))
    handler, requests = in_order(response(first, PAGE), response([], PAGE))
    known = listing(ask(handler))
    assert (len(known.tags), len(requests)) == (PAGE, 2)
    handler, _ = in_order(response(first, PAGE), response([], PAGE))
    assert isinstance(ask(handler, known.fingerprint), Unchanged)
    more = [response(first, PAGE), response(rows_of([PAGE]), 1)] * READS
    with pytest.raises(InconsistentListing, match="a row after the first 1000"):
        ask(in_order(*copies(more))[0])
    handler, _ = in_order(response(first, PAGE), response(first, PAGE))
    assert len(listing(ask(handler)).tags) == PAGE, "the server ignores paging"


# Pages that contradict each other.


def test_repeated_page_is_inconsistent() -> None:
    """A page that repeats the first one short of the total is a contradiction."""

    def handler(request: httpx.Request) -> httpx.Response:
        limit = int(request.url.params["limit"])
        return response(rows_of(range(1500))[: min(limit, 100)], 1500)

    with pytest.raises(InconsistentListing) as caught:
        ask(handler)
    assert REPOSITORY in sentence_of(caught.value)


CONTRADICTIONS = {
    "the total changes": [
        response(rows_of(range(100)), 150),
        response(rows_of(range(100, 150)), 151),
    ],
    "the total vanishes": [response(rows_of(range(100)), 150), response(rows_of(range(100, 150)))],
    "the total is too big": [response(rows_of(range(100)), 150), response([], 150)],
    "the total is too big for none": [response([], 1)],
    "the total is too small": [response(rows_of(range(100)), 99)],
    "the last page is too long": [
        response(rows_of(range(100)), 150),
        response(rows_of(range(100, 160)), 150),
    ],
    "a row on two pages": [
        response(rows_of(range(100)), 150),
        response(rows_of(range(99, 149)), 150),
    ],
    "a row on two pages, no total": [
        response(rows_of(range(100))),
        response(rows_of(range(100, 101))),
        response(rows_of(range(99, 149))),
    ],
    "a short page amid": [
        response(rows_of(range(100)), 250),
        response(rows_of(range(100, 150)), 250),
    ],
    "a page longer than asked for": [
        response(rows_of(range(100))),
        response(rows_of(range(100, 101))),
        response(rows_of(range(100, 250))),
    ],
}


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradiction_is_read_again(pages: Sequence[httpx.Response]) -> None:
    """Pages that contradict each other are read again."""
    whole = response(rows_of(range(150)), 150)
    handler, requests = in_order(*copies(pages), whole)
    found = listing(ask(handler))
    assert len(found.tags) == 150
    assert found.pages == 1
    assert found.requests == len(requests) == len(pages) + 1
    assert found.size == sum(len(page.content) for page in [*pages, whole])


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_lasting_contradiction_fails_the_poll(pages: Sequence[httpx.Response]) -> None:
    """After the allowed number of reads, the poll fails."""
    reads = READS if "Content-Range" in pages[0].headers else READS_WITHOUT_TOTAL
    handler, requests = in_order(*copies(list(pages) * reads))
    with pytest.raises(InconsistentListing, match=f"read {reads} times") as caught:
        ask(handler)
    assert REPOSITORY in sentence_of(caught.value)
    assert len(requests) == reads * len(pages)


def test_missing_later_page_is_inconsistent() -> None:
    """Only a 404 for the first page means that the repository is gone."""
    first, gone = response(rows_of(range(100)), 150), httpx.Response(404)
    handler, _ = in_order(*copies([first, gone, first]), response(rows_of(range(100, 150)), 150))
    assert len(listing(ask(handler)).tags) == 150
    handler, _ = in_order(*copies([first, gone] * READS))
    with pytest.raises(InconsistentListing, match="a later page is gone") as caught:
        ask(handler)
    sentence_of(caught.value)
    handler, _ = in_order(*copies([first, gone, gone]))
    with pytest.raises(RepositoryNotFound):
        ask(handler)


def test_failed_page_fails_the_poll() -> None:
    """A page that cannot be read fails the poll."""
    handler, _ = in_order(response(rows_of(range(100)), 150), httpx.Response(400))
    with pytest.raises(BadRequest):
        ask(handler)


def test_body_size_is_bounded() -> None:
    """One body may be as large as the limit, and no larger."""
    page = response(rows_of(range(30)), 30)
    size = len(page.content)
    handler, _ = in_order(*copies([page, page]))
    assert listing(ask(handler, bound=size)).size == size
    with pytest.raises(ResponseTooLarge) as caught:
        ask(handler, bound=size - 1)
    sentence_of(caught.value)


def test_total_size_is_bounded() -> None:
    """The limit holds for all pages of a listing together."""
    pages = [response(rows_of(range(100)), 200), response(rows_of(range(100, 200)), 200)]
    size = sum(len(page.content) for page in pages)
    handler, _ = in_order(*copies(pages * 2))
    assert listing(ask(handler, bound=size)).size == size
    with pytest.raises(ResponseTooLarge) as caught:
        ask(handler, bound=size - 1)
    sentence_of(caught.value)


@given(text=st.text(max_size=30))
def test_any_content_range(text: str) -> None:
    """A ``Content-Range`` that cannot be parsed is ignored."""

    def handler(request: httpx.Request) -> httpx.Response:
        rows = rows_of(range(3)) if request.url.params["offset"] == "0" else []
        headers = [(b"Content-Range", text.encode())]
        return httpx.Response(200, json=rows, headers=headers)

    try:
        assert len(listing(ask(handler)).tags) == 3
    except InconsistentListing as error:
        sentence_of(error)


@given(
    first=st.integers(0, 60),
    cap=st.integers(1, 25),
    sends_total=st.booleans(),
    ignores_paging=st.booleans(),
)
def test_any_paging_is_read_to_the_end(
    first: int,
    cap: int,
    sends_total: bool,
    ignores_paging: bool,
) -> None:
    """However a server pages, all of its tags are read, each once."""

    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[key]) for key in ("offset", "limit"))
        rows = rows_of(range(first))
        if ignores_paging:
            return response(rows)
        page = rows[offset : offset + min(limit, cap)]
        return response(page, first if sends_total else None)

    assert len(listing(ask(handler)).tags) == first


def test_ignored_offset_ends_the_read() -> None:
    """Repeated pages end the read early, however large the limit is."""
    rows = rows_of(range(30))
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return response(rows[: int(request.url.params["limit"])])

    with pytest.raises(InconsistentListing):
        ask(handler)
    assert len(asked) <= 4 * READS_WITHOUT_TOTAL


def test_change_during_the_probe_is_read_again() -> None:
    """If a server that ignores paging changes between two answers, it is read again."""
    answers: list[httpx.Response] = []

    def handler(_: httpx.Request) -> httpx.Response:
        rows = rows_of(range(30))
        if not answers:
            rows[0]["updated"] = "2018-07-06T06:18:55Z"
        answers.append(response(rows))
        return answers[-1]

    assert len(listing(ask(handler)).tags) == 30
    assert len(answers) < 8


def test_short_page_is_not_the_end() -> None:
    """Without a total, only an empty page ends a list of several pages."""
    pages = {0: range(100), 100: range(100, 150), 200: range(150, 160)}

    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        return response(rows_of(list(pages.get(offset, ()))[:limit]))

    with pytest.raises(InconsistentListing):
        ask(handler)


# Without a total, a row can move to a page that was read before.


class ChangingRows:
    """A server without a total that sends three rows per page, and changes between requests.

    Attributes:
        rows: The current rows.
        requests: Number of requests so far.
    """

    def __init__(self, tags: str, change: Callable[[list[Row], int], None]) -> None:
        """Prepare the server. It calls `change` before each answer, with the request's number."""
        self.rows: list[Row] = [{"Tag": tag, "digest": f"sha256:{ord(tag):064}"} for tag in tags]
        self.requests = 0
        self._change = change

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        self._change(self.rows, self.requests)
        offset, limit = (int(request.url.params[key]) for key in ("offset", "limit"))
        return response(self.rows[offset : offset + min(limit, 3)])


def test_row_that_moves_between_two_pages_is_found() -> None:
    """A deletion between two requests hides a row from one read, but not from two equal ones."""

    def change(rows: list[Row], request: int) -> None:
        if request == 2:
            del rows[0]

    server = ChangingRows("ABCDEFG", change)
    found = listing(ask(server))
    assert found.tags.keys() == set("BCDEFG")


def test_order_of_rows_does_not_matter() -> None:
    """Two reads agree if they have the same rows, also in another order."""

    def change(rows: list[Row], request: int) -> None:
        if request == 5:
            rows[3:] = reversed(rows[3:])

    server = ChangingRows("ABCDEF", change)
    assert listing(ask(server)).tags.keys() == set("ABCDEF")
    assert server.requests == 8


def test_rows_that_keep_changing_fail_the_poll() -> None:
    """If no two reads in a row have the same rows, the poll fails after five reads."""

    def change(rows: list[Row], _: int) -> None:
        rows[-1]["size"] = rows[-1].get("size", 0) + 1

    server = ChangingRows("ABCD", change)
    with pytest.raises(InconsistentListing, match="read 5 times, and each time it had other rows"):
        ask(server)
    assert server.requests == 5 * 4


def test_unchanged_list_without_total_is_read_twice() -> None:
    """One read that equals the recorded list may lack a new row, so it is confirmed, too."""
    server = ChangingRows("ABCDEF", lambda *_: None)
    known = listing(ask(server)).fingerprint

    def change(rows: list[Row], request: int) -> None:
        if request == 1:
            rows.insert(3, {"Tag": "N"})
        if request == 2:
            del rows[0]

    changed = listing(ask(ChangingRows("ABCDEF", change), known))
    assert changed.tags.keys() == set("BCNDEF")


def test_coverage_begins_with_the_first_of_two_equal_reads() -> None:
    """The times of a confirmed listing include both reads."""
    clock = FakeClock()

    def handler(request: httpx.Request) -> httpx.Response:
        clock.advance(seconds=1)
        return response(rows_of(range(2)) if request.url.params["offset"] == "0" else [])

    client = client_of("http://127.0.0.1", transport=httpx.MockTransport(handler))
    began = timestamp(clock())
    with closing(Swr(client, BOUND, clock)) as registry:
        found = listing(registry.list_tags(REPOSITORY))
    assert (found.started_at, found.finished_at) == (began, timestamp(clock()))


# Pages of another repository.


def addressed(repository: str, **fields: object) -> list[Row]:
    return [
        {**row, "path": f"swr.example.com/{repository}:{row['Tag']}", **fields}
        for row in rows_of(range(3))
    ]


@pytest.mark.parametrize("other", ["team/other", "other/api", "team/api/x", "team/xapi"])
def test_list_of_another_repository_is_refused(other: str) -> None:
    """A page whose rows have the address of another repository is not a listing."""
    with pytest.raises(MalformedResponse, match=f"listed the tags of swr.example.com/{other}"):
        ask(lambda _: response(addressed(other), 3))


@pytest.mark.parametrize("path", ["team/api", "Team/API", "mirror/team/api", "x"])
def test_address_of_the_repository_is_accepted(path: str) -> None:
    """Capitals, a prefix, and a text in another form than an address are accepted."""
    assert len(listing(ask(lambda _: response(addressed(path), 3))).tags) == 3


def test_slash_as_dollar_sign_in_an_address() -> None:
    """A slash of the name may be written as in the request."""
    rows = addressed("team/a$b")
    assert len(listing(ask(lambda _: response(rows, 3), repository="team/a/b")).tags) == 3


def test_later_page_of_another_repository_is_refused() -> None:
    """Two pages with different ids of a repository are not one listing."""
    pages = [
        [{**row, "repo_id": number} for row in rows_of(range(3 * number, 3 * number + 3))]
        for number in range(2)
    ]
    handler, _ = in_order(*(response(rows, 6) for rows in pages))
    with pytest.raises(MalformedResponse, match="the repository 1 on a later page"):
        ask(handler)
