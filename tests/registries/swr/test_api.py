import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import httpx
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from tagsync.emulator import Emulator
from tagsync.errors import (
    BadRequest,
    Busy,
    EndpointNotFound,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    NamespaceNotFound,
    RegistryError,
    RepositoryNotFound,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.models import Listing, Tag, Unchanged
from tagsync.registries.responses import READS, Answer, refusal_error
from tagsync.registries.swr.api import REFUSALS, Swr
from tagsync.registries.swr.paging import PAGE
from tagsync.secrets import Secret
from tests.support.swr import BOUND, REPOSITORY, SECRET, Handler, Row, ask, client_of, rows_of


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Takes each refusal as final: what is tried again is HTTP's affair."""
    with stamina.set_testing(True, attempts=1):
        yield


def ask_emulator(
    emulator: Emulator, known: str | None = None, repository: str = REPOSITORY
) -> Listing | Unchanged:
    with closing(Swr(client_of(emulator.url), BOUND)) as registry:
        return registry.list_tags(repository, known)


def listing(answer: Listing | Unchanged) -> Listing:
    assert isinstance(answer, Listing)
    return answer


def response(rows: object, total: int | None = None) -> httpx.Response:
    headers = {} if total is None else {"Content-Range": f"0-0/{total}"}
    return httpx.Response(200, json=rows, headers=headers)


def sends(body: bytes | str, status: int = 200) -> Handler:
    return lambda _: httpx.Response(status, content=body)


def in_order(*responses: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    """Gives these answers one after another, and nothing more; and what it was asked."""
    requests: list[httpx.Request] = []
    left = list(responses)

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return left.pop(0)

    return handler, requests


def sentence_of(error: RegistryError) -> str:
    text = str(error)
    assert text
    assert len(text.splitlines()) == 1
    assert SECRET not in text
    return text


def refusal(status: int, body: object, headers: Mapping[str, str] | None = None) -> RegistryError:
    """The error that a registry's answer becomes, all the way through the client."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RegistryError) as caught:
        ask(lambda _: httpx.Response(status, content=content, headers=headers))
    assert caught.value.status == status
    assert str(status) in sentence_of(caught.value)
    return caught.value


# Paging, over real HTTP.


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
def test_an_end_that_a_further_answer_tells_is_no_snapshot(
    answers: Sequence[httpx.Response],
) -> None:
    """Without a total the end is known from another answer, between which tags may have moved."""
    handler, _ = in_order(*answers)
    found = listing(ask(handler))
    assert len(found.tags) == 10
    assert found.pages == len(answers)


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("tags", [0, 1, 99, 100, 101, 200, 250])
def test_a_server_that_caps_the_page(tags: int, sends_total: bool) -> None:
    """A page of 100 whatever is asked for never passes for the whole, with and without a total."""
    with Emulator(max_page=100, sends_total=sends_total) as emulator:
        names = pushed(emulator, tags)
        assert listing(ask_emulator(emulator)).tags.keys() == names


@pytest.mark.parametrize("tags", [30, 1000, 1500])
def test_a_server_that_ignores_paging(tags: int) -> None:
    """A server that always sends everything is understood, also at exactly a page."""
    with Emulator(ignores_paging=True) as emulator:
        names = pushed(emulator, tags)
        found = listing(ask_emulator(emulator))
        assert found.tags.keys() == names
        assert found.pages == 1
        assert len(emulator.requests) <= 2


@pytest.mark.parametrize("sends_total", [True, False])
@pytest.mark.parametrize("tags", [1000, 2000, 2500])
def test_pages_as_documented(tags: int, sends_total: bool) -> None:
    """So many tags are so many tags, also at an exact multiple of the page."""
    with Emulator(sends_total=sends_total) as emulator:
        names = pushed(emulator, tags)
        assert listing(ask_emulator(emulator)).tags.keys() == names


@pytest.mark.parametrize("max_page", [7, 100, 1000])
@pytest.mark.parametrize("sends_total", [True, False])
def test_what_each_page_is_asked_with(max_page: int, sends_total: bool) -> None:
    """Parameters go in pairs, and an offset is a multiple of its limit."""
    with Emulator(max_page=max_page, sends_total=sends_total) as emulator:
        pushed(emulator, 150)
        ask_emulator(emulator)
    for request in emulator.requests:
        assert request.query.keys() == {"offset", "limit", "order_column", "order_type"}
        assert int(request.query["offset"]) % int(request.query["limit"]) == 0
        assert 1 <= int(request.query["limit"]) <= PAGE


def test_a_total_spares_requests() -> None:
    """With a total, no request is sent beyond the last page."""
    with Emulator(max_page=100) as emulator:
        pushed(emulator, 200)
        found = listing(ask_emulator(emulator))
    assert (found.requests, found.pages, len(emulator.requests)) == (2, 2, 2)


@pytest.mark.parametrize("requests_of", ["capped", "no total", "ignoring"])
def test_an_unchanged_listing_is_known(requests_of: str) -> None:
    """Equal bytes are `Unchanged`, other bytes a listing, whatever the server's paging."""
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
def test_an_unchanged_page_is_one_request(ignores_paging: bool) -> None:
    """What is unchanged costs one request where the first answer is the whole."""
    with Emulator(ignores_paging=ignores_paging) as emulator:
        pushed(emulator, 30)
        first = listing(ask_emulator(emulator))
        before = len(emulator.requests)
        again = ask_emulator(emulator, first.fingerprint)
    assert isinstance(again, Unchanged)
    assert again.requests == len(emulator.requests) - before == 1
    assert again.size > 0


@pytest.mark.parametrize("sends_total", [True, False])
def test_a_change_beyond_the_first_page_is_seen(sends_total: bool) -> None:
    """An unchanged first page does not vouch for the pages after it."""
    with Emulator(max_page=100, sends_total=sends_total) as emulator:
        pushed(emulator, 250)
        first = listing(ask_emulator(emulator))
        last = list(first.tags)[-1]
        emulator.set_fields(REPOSITORY, last, is_trusted=True)
        found = listing(ask_emulator(emulator, first.fingerprint))
    assert found.tags[last].is_trusted is True


@pytest.mark.parametrize("other", [response(rows_of([2]), 1), response(rows_of([1]), 2)])
def test_the_fingerprint_is_of_all_that_counts(other: httpx.Response) -> None:
    """Other bytes of the same length, and another total of the same bytes, are not unchanged."""
    page = response(rows_of([1]), 1)
    handler, _ = in_order(*copies([page, other]), response(rows_of([2]), 2))
    known = listing(ask(handler)).fingerprint
    assert isinstance(ask(handler, known), Listing)


@pytest.mark.parametrize("name", ["library/busybox", "a/b/c", "odd name/with+%/#?"])
def test_slashes_in_a_repository(name: str) -> None:
    """A slash in the repository's own name is sent as ``$``, all else quoted."""
    with Emulator() as emulator:
        emulator.push(f"team/{name}", "v1", "content")
        assert listing(ask_emulator(emulator, repository=f"team/{name}")).tags.keys() == {"v1"}
    assert emulator.requests[0].path.count("/") == 7
    assert name.count("/") == emulator.requests[0].path.count("$")


# Pages that contradict each other.


def test_a_server_that_ignores_the_offset() -> None:
    """The same page again, short of the total, is a contradiction and no listing."""

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


def copies(responses: Sequence[httpx.Response]) -> list[httpx.Response]:
    return [
        httpx.Response(each.status_code, headers=each.headers, content=each.content)
        for each in responses
    ]


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_is_read_again(pages: Sequence[httpx.Response]) -> None:
    """Pages that contradict each other are read again, and the listing is the consistent read."""
    whole = response(rows_of(range(150)), 150)
    handler, requests = in_order(*copies(pages), whole)
    found = listing(ask(handler))
    assert len(found.tags) == 150
    assert found.pages == 1
    assert found.requests == len(requests) == len(pages) + 1
    assert found.size == sum(len(page.content) for page in [*pages, whole])


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_lasting_contradiction_is_a_failure(pages: Sequence[httpx.Response]) -> None:
    """After as many reads as allowed there is no listing."""
    handler, requests = in_order(*copies(list(pages) * READS))
    with pytest.raises(InconsistentListing, match=f"read {READS} times") as caught:
        ask(handler)
    assert REPOSITORY in sentence_of(caught.value)
    assert len(requests) == READS * len(pages)


def test_a_repository_that_goes_away_amid_its_pages() -> None:
    """A later page that is not found is a contradiction; only the first one's 404 is believed."""
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


def test_a_failure_amid_the_pages_is_no_listing() -> None:
    """A page that cannot be had fails the poll; what was read before it is not a listing."""
    handler, _ = in_order(response(rows_of(range(100)), 150), httpx.Response(400))
    with pytest.raises(BadRequest):
        ask(handler)


# Rows.

FULL: Row = {
    "id": 5,
    "repo_id": 6,
    "Tag": "v1",
    "image_id": "c0",
    "manifest": "{}",
    "digest": "sha256:1",
    "schema": 2,
    "path": "swr.example.com/team/api:v1",
    "internal_path": "10.0.0.1:20202/team/api:v1",
    "size": 2**63 - 1,
    "is_trusted": True,
    "created": "2018-07-06T06:18:55Z",
    "updated": "2024-01-01T00:00:00.123456789+08:00",
    "deleted": None,
    "scanned": True,
    "tag_type": 1,
    "domain_id": "d0",
}


def test_every_documented_field_arrives() -> None:
    """Each field of a row is taken as it was sent."""
    found = listing(ask(sends(json.dumps([{**FULL, "novelty": [1]}]))))
    assert found.tags["v1"] == Tag(
        tag="v1",
        digest="sha256:1",
        image_id="c0",
        schema=2,
        size=2**63 - 1,
        path="swr.example.com/team/api:v1",
        internal_path="10.0.0.1:20202/team/api:v1",
        is_trusted=True,
        tag_type=1,
        scanned=True,
        registry_id=5,
        registry_repo_id=6,
        domain_id="d0",
        created="2018-07-06T06:18:55Z",
        updated="2024-01-01T00:00:00.123456789+08:00",
    )
    image = found.images["sha256:1"]
    assert (image.image_id, image.schema, image.size, image.manifest) == ("c0", 2, 2**63 - 1, "{}")


@pytest.mark.parametrize("row", [{"Tag": "v1"}, {**dict.fromkeys(FULL), "Tag": "v1"}])
def test_only_the_name_is_needed(row: Row) -> None:
    """A key that is missing or null is a field that is not known."""
    found = listing(ask(sends(json.dumps([row]))))
    assert found.tags == {"v1": Tag("v1")}
    assert found.images == {}


@pytest.mark.parametrize("key", sorted(FULL.keys() - {"Tag"}))
def test_any_key_may_be_null(key: str) -> None:
    """One null does not cost the row."""
    assert listing(ask(sends(json.dumps([{**FULL, key: None}])))).tags.keys() == {"v1"}


def test_an_empty_digest_is_none() -> None:
    """A tag without a digest is listed and not resolved."""
    found = listing(ask(sends(json.dumps([{"Tag": "v1", "digest": "", "manifest": ""}]))))
    assert found.tags["v1"].digest is None
    assert found.images == {}


def test_images_are_shared() -> None:
    """Two tags on one digest are one image."""
    found = listing(ask(sends(json.dumps([FULL, {**FULL, "Tag": "v2"}]))))
    assert found.tags.keys() == {"v1", "v2"}
    assert found.images.keys() == {"sha256:1"}


def test_a_deleted_row_is_no_tag() -> None:
    """A row that says when it was deleted is gone, and may stand beside the tag that is there."""
    gone = {**FULL, "deleted": "2024-01-01T00:00:00Z"}
    assert listing(ask(sends(json.dumps([gone, {"Tag": "v1"}])))).tags == {"v1": Tag("v1")}
    assert listing(ask(sends(json.dumps([gone])))).tags == {}


@pytest.mark.parametrize("body", ["null", "[]", " [ ] \n"])
def test_an_empty_listing(body: str) -> None:
    """A repository without tags is complete, in either of its forms."""
    found = listing(ask(sends(body)))
    assert found.tags == {}
    assert found.exists
    assert (found.requests, found.pages, found.size) == (1, 1, len(body))


# Bodies that are no list of tags.

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "truncated": json.dumps([FULL, FULL]).encode()[:-1],
    "truncated in a row": json.dumps([FULL]).encode()[:40],
    "two values": b"[][]",
    "not UTF-8": b'[{"Tag": "\xff"}]',
    "a lone surrogate": rb'[{"Tag": "\ud800"}]',
    "deeply nested": b"[" * 200_000,
    "deeply nested in a row": b'[{"Tag": "v1", "x": ' + b"[" * 200_000,
    "an object": b"{}",
    "an error with 200": b'{"errors": [{"errorCode": "SVCSTG.SWR.5000000"}]}',
    "a number": b"7",
    "a text": b'"v1"',
    "a list of lists": b"[[]]",
    "a list of names": b'["v1"]',
    "a list of null": b"[null]",
    "no name": b'[{"digest": "sha256:1"}]',
    "the name of sibling calls": b'[{"tag": "v1"}]',
    "a null name": b'[{"Tag": null}]',
    "a numeric name": b'[{"Tag": 1}]',
    "an empty name": b'[{"Tag": ""}]',
    "a numeric digest": b'[{"Tag": "v1", "digest": 1}]',
    "two rows of one name": b'[{"Tag": "v1"}, {"Tag": "v1"}]',
    "a size beyond 64 bits": b'[{"Tag": "v1", "size": 9223372036854775808}]',
    "an id of 5000 digits": b'[{"Tag": "v1", "id": ' + b"1" * 5000 + b"}]",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_list_of_tags(body: bytes) -> None:
    """A body that is not what the reference promises is an error in one sentence, no listing."""
    with pytest.raises(MalformedResponse) as caught:
        ask(sends(body))
    assert "/repos/api/tags" in sentence_of(caught.value)
    assert len(str(caught.value)) < 500


def test_a_malformed_later_page_is_no_listing() -> None:
    """A good first page does not make up for a later one."""
    handler, _ = in_order(response(rows_of(range(100)), 150), response({}, 150))
    with pytest.raises(MalformedResponse):
        ask(handler)


def test_a_body_beyond_the_bound() -> None:
    """One body may be as large as the bound, and no larger."""
    page = response(rows_of(range(30)), 30)
    size = len(page.content)
    handler, _ = in_order(*copies([page, page]))
    assert listing(ask(handler, bound=size)).size == size
    with pytest.raises(ResponseTooLarge) as caught:
        ask(handler, bound=size - 1)
    sentence_of(caught.value)


def test_pages_beyond_the_bound() -> None:
    """The bound holds for all pages of a listing together."""
    pages = [response(rows_of(range(100)), 200), response(rows_of(range(100, 200)), 200)]
    size = sum(len(page.content) for page in pages)
    handler, _ = in_order(*copies(pages * 2))
    assert listing(ask(handler, bound=size)).size == size
    with pytest.raises(ResponseTooLarge) as caught:
        ask(handler, bound=size - 1)
    sentence_of(caught.value)


# Refusals.

CODE, MESSAGE = "SVCSTG.SWR.4001072", "offset and limit go together"
CAMEL = {"errorCode": CODE, "errorMessage": MESSAGE, "detail": "x"}
SNAKE = {"error_code": CODE, "error_msg": MESSAGE, "request_id": "y"}


@pytest.mark.parametrize(
    "body",
    [{"errors": [CAMEL]}, {"errors": [SNAKE]}, [CAMEL], [SNAKE], CAMEL, SNAKE],
    ids=["errors", "errors, gateway's keys", "array", "array, gateway's keys", "top", "gateway"],
)
def test_every_shape_of_error(body: object) -> None:
    """The sentence holds the status, the code and the message, wherever a server puts them."""
    error = refusal(400, body)
    assert type(error) is BadRequest
    assert error.code == CODE
    assert f"400 ({CODE}: {MESSAGE})" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"\xff\xfe",
        b"[" * 200_000,
        b"null",
        b"[]",
        b"{}",
        b'"no"',
        b"[[]]",
        b'{"errors": []}',
        b'{"errors": {}}',
        b'{"errorCode": null}',
    ],
    ids=range(12),
)
def test_an_error_without_a_code(body: bytes) -> None:
    """A proxy's page, or nothing at all, still is an error that names the status."""
    error = refusal(400, body)
    assert type(error) is BadRequest
    assert error.code is None
    assert "no readable message" in str(error)


def test_an_error_that_is_long_or_has_lines() -> None:
    """A server's message is shortened and put on one line."""
    error = refusal(400, {"errorCode": "a\nb\u2028c", "errorMessage": "first\r\nsecond " * 1000})
    assert error.code == "a b c"
    assert len(str(error)) < 600


def test_an_error_without_a_message() -> None:
    """A code alone is told."""
    assert f"400 ({CODE})" in str(refusal(400, {"errorCode": CODE}))


KINDS: list[tuple[int, str | None, type[RegistryError]]] = [
    (400, "SVCSTG.SWR.4001072", BadRequest),
    (400, None, BadRequest),
    (401, "APIGW.0301", Unauthorized),
    (401, None, Unauthorized),
    (403, "SVCSTG.SWR.4030170", Forbidden),
    (403, None, Forbidden),
    (403, "SVCSTG.SWR.4031032", Throttled),
    (403, "SVCSTG.SWR.4031042", Throttled),
    (404, "SVCSTG.SWR.4040010", RepositoryNotFound),
    (404, "SVCSTG.SWR.4040113", RepositoryNotFound),
    (404, "SVCSTG.SWR.4041057", RepositoryNotFound),
    (404, "SVCSTG.SWR.4049999", RepositoryNotFound),
    (404, None, RepositoryNotFound),
    (404, "SVCSTG.SWR.4040058", NamespaceNotFound),
    (404, "SVCSTG.SWR.4041061", NamespaceNotFound),
    (404, "APIGW.0101", EndpointNotFound),
    (409, "SVCSTG.SWR.4090023", Busy),
    (429, "APIG.0308", Throttled),
    (429, None, Throttled),
    (500, "SVCSTG.SWR.5000000", Busy),
    (502, None, Busy),
    (503, None, Busy),
    (204, None, BadRequest),
    (302, None, BadRequest),
    (418, None, BadRequest),
]


@pytest.mark.parametrize(("status", "code", "kind"), KINDS)
def test_every_kind_of_refusal(status: int, code: str | None, kind: type[RegistryError]) -> None:
    """Each status and code is the error that it means, and no other."""
    error = refusal(status, {"errors": [{"errorCode": code, "errorMessage": "m"}]} if code else b"")
    assert type(error) is kind
    assert error.code == code
    assert code is None or f"({code}: m)" in str(error)


def test_a_wrong_endpoint_is_told_to_be_checked() -> None:
    """What the gateway does not know is a fault of the configuration, not a deletion."""
    body = {"error_msg": "The API does not exist", "error_code": "APIGW.0101", "request_id": "z"}
    assert "check the endpoint" in str(refusal(404, body))


def test_a_redirect_names_its_target() -> None:
    """Where a redirect points is told, without its query that may hold a key, and not followed."""
    error = refusal(302, b"", {"Location": "https://example.com/login?key=made-up"})
    assert "it points to https://example.com/login" in str(error)
    assert "made-up" not in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_when_to_try_again_is_kept(status: int) -> None:
    """An error knows how long the registry asked to be left alone."""
    assert refusal(status, b"", {"Retry-After": "12"}).retry_after == 12.0


@pytest.mark.parametrize("key", ["errorCode", "errorMessage"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_an_echoed_secret_is_not_told(status: int, key: str) -> None:
    """A server that repeats a credential in its error does not make us repeat it."""
    error = refusal(status, {"errors": [{**CAMEL, key: f"bad token {SECRET}!"}]})
    assert "bad token ***!" in str(error)
    assert SECRET not in repr(error)


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
OTHERS = sorted(FULL.keys() - {"Tag"})
ROWS = st.lists(
    st.dictionaries(st.sampled_from(sorted(FULL)), JSON)
    | st.fixed_dictionaries({"Tag": st.text(max_size=3)}, optional=dict.fromkeys(OTHERS, JSON)),
    max_size=5,
)
ERRORS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["errors", "errorCode", "error_code", "errorMessage"], JSON)
)
BODIES = st.binary() | (JSON | ROWS | ERRORS).map(lambda value: json.dumps(value).encode())


@given(body=BODIES)
def test_any_body_is_a_listing_or_an_error(body: bytes) -> None:
    """No body whatever is anything but a listing or an error of ours in one sentence."""
    try:
        found = ask(sends(body))
    except RegistryError as error:
        sentence_of(error)
    else:
        assert set(listing(found).tags) <= {row.get("Tag") for row in json.loads(body) or []}


@given(body=BODIES, status=st.integers(201, 599))
def test_any_refusal_is_an_error(body: bytes, status: int) -> None:
    """No answer but a 200 is a listing, whatever its body."""
    with pytest.raises(RegistryError) as caught:
        ask(sends(body, status))
    assert str(status) in sentence_of(caught.value)


@given(text=st.text(max_size=30))
def test_any_content_range_is_survived(text: str) -> None:
    """What cannot be read in ``Content-Range`` says nothing of the total."""

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
def test_any_honest_server_is_read_whole(
    first: int,
    cap: int,
    sends_total: bool,
    ignores_paging: bool,
) -> None:
    """Whatever a server makes of paging, all of its tags are read, each once."""

    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[key]) for key in ("offset", "limit"))
        rows = rows_of(range(first))
        if ignores_paging:
            return response(rows)
        page = rows[offset : offset + min(limit, cap)]
        return response(page, first if sends_total else None)

    assert len(listing(ask(handler)).tags) == first


def test_a_server_that_honours_only_the_limit() -> None:
    """Pages that repeat end the read at once, however large the bound is."""
    rows = rows_of(range(30))
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return response(rows[: int(request.url.params["limit"])])

    with pytest.raises(InconsistentListing):
        ask(handler)
    assert len(asked) <= 4 * READS


def test_a_tag_that_moves_during_the_probe() -> None:
    """A server that ignores paging and changes between two answers is simply read again."""
    answers: list[httpx.Response] = []

    def handler(_: httpx.Request) -> httpx.Response:
        rows = rows_of(range(30))
        if not answers:
            rows[0]["updated"] = "2018-07-06T06:18:55Z"
        answers.append(response(rows))
        return answers[-1]

    assert len(listing(ask(handler)).tags) == 30
    assert len(answers) < 8


def test_a_short_page_amid_others_is_no_end() -> None:
    """Without a total only an empty page ends a listing of several."""
    pages = {0: range(100), 100: range(100, 150), 200: range(150, 160)}

    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        return response(rows_of(list(pages.get(offset, ()))[:limit]))

    with pytest.raises(InconsistentListing):
        ask(handler)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"errorCode": "x made-up-secret-1", "errorMessage": "m"}, {}),
        ({"errorCode": "c", "errorMessage": "m" * 285 + " made-up-secret-1"}, {}),
        (b"", {"Location": "http://127.0.0.1/?t=made-up-secret-1"}),
    ],
)
def test_no_part_of_a_secret_survives_in_a_refusal(body: object, headers: dict[str, str]) -> None:
    """A secret that a server echoes is gone from sentence and code, wherever it stood."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Answer("http://127.0.0.1/x", 302, httpx.Headers(headers), raw)
    error = refusal_error(answer, REFUSALS, (Secret("made-up-secret-1"),))
    assert "made-up" not in f"{error} {error.code}"


def test_a_refusal_holds_no_control_character() -> None:
    """What a server says of an error cannot colour a terminal."""
    error = refusal(400, {"errorCode": "a\x1b[31mb", "errorMessage": "c\u202ed"})
    assert str(error).isprintable()
    assert (error.code or "").isprintable()


def test_the_docker_registry_is_told_apart() -> None:
    """Whoever names the Docker registry's host is told which host is meant."""
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    assert "swr-api" in str(refusal(401, b"", headers))


def test_a_clock_that_is_wrong_is_named() -> None:
    """A refusal by a server whose clock differs says that the clocks do."""
    error = refusal(401, b"", {"Date": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert "clocks" in str(error)
    assert "clocks" not in str(refusal(401, b""))


def test_where_a_redirect_points_is_shortened() -> None:
    """The place that a redirect names is shown in part, and without control characters."""
    headers = httpx.Headers([(b"Location", b"https://elsewhere.example/\x1b[2J" + b"x" * 5000)])
    error = refusal_error(Answer("http://127.0.0.1/x", 302, headers, b""), REFUSALS)
    assert "elsewhere" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500
