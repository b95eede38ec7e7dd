"""Lists of names: pages, invalid names, and bodies that are not lists."""

import json
from collections.abc import Sequence
from contextlib import closing
from time import monotonic

import httpx
import pytest

from tagsync.errors import (
    InconsistentListing,
    MalformedResponse,
    ResponseTooLarge,
)
from tagsync.models import Scope
from tagsync.registries.oci import paging
from tagsync.registries.oci.paging import MAX_FRUITLESS_PAGES
from tests.support.docker_registry import digest_of
from tests.support.oci import (
    LIST,
    REPOSITORY,
    Fake,
    Handler,
    ask,
    errors,
    image,
    listing,
    registry_of,
    sends,
)


def pages(*answered: tuple[Sequence[str], str | None]) -> tuple[Handler, list[str]]:
    """Return a handler that sends these pages, and the URLs that it was asked for."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})
        names, link = answered[min(len(asked), len(answered) - 1)]
        asked.append(str(request.url))
        headers = {} if link is None else {"Link": link}
        return httpx.Response(200, json={"tags": names}, headers=headers)

    return handler, asked


# Pages.


@pytest.mark.parametrize(
    "link",
    [
        "</v2/team/api/tags/list?last=b&n=2>",
        "/v2/team/api/tags/list?last=b&n=2",
        '/v2/team/api/tags/list?last=b&n=2; rel="next"',
        "</v2/team/api/tags/list?last=b&n=2>; rel='next'",
        '</v2/team/api/tags/list?last=b&n=2>; rel="index next"',
        "</v2/team/api/tags/list?last=b&n=2>; REL=NEXT;",
        '</v2/team/api/tags/list?last=b&n=2>; title="a, <b>; rel=prev"; rel="next"',
        '</v2/team/api/tags/list/?last=b&n=2>; rel="next"',
        '</v2/team%2Fapi/tags/list?last=b&n=2>; rel="next"',
        '</team/api/tags/list?last=b&n=2>; rel="next"',
        '<http://internal.example/other/prefix/v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '<https://127.0.0.1/v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '<http://127.0.0.1:8080/v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '<//internal.example/v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '</else?n=2>; rel="first", </v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '</v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '<http://127.0.0.1/v2/team/api/tags/list?last=b&n=2>; rel="next"',
        '<?last=b&n=2>; rel="next"',
        "</v2/team/api/tags/list?last=b&n=2>;rel=next",
        '</else>; rel="prev", </v2/team/api/tags/list?last=b&n=2>; rel="next"',
    ],
)
def test_next_page_is_requested(link: str) -> None:
    """A Link in any form leads to the next page, with its query."""
    handler, asked = pages((["a", "b"], link), (["c"], None))
    found = listing(ask(handler))
    assert found.tags.keys() == {"a", "b", "c"}
    assert found.pages == 2
    assert asked[1] == "http://127.0.0.1/v2/team/api/tags/list?last=b&n=2"


def test_link_of_another_relation_is_ignored() -> None:
    """A Link of another relation is not followed."""
    handler, asked = pages((["a"], '</v2/team/api/tags/list?last=b>; rel="first"'))
    assert listing(ask(handler)).tags.keys() == {"a"}
    assert len(asked) == 1


def test_prefix_of_the_endpoint_is_kept() -> None:
    """The next page is requested below the endpoint's path, even if the Link has lost it."""
    handler, asked = pages((["a"], '</v2/team/api/tags/list?last=a>; rel="next"'), (["b"], None))
    with closing(registry_of(handler, endpoint="http://127.0.0.1/some/prefix")) as registry:
        assert listing(registry.list_tags(REPOSITORY)).tags.keys() == {"a", "b"}
    assert asked[1] == "http://127.0.0.1/some/prefix/v2/team/api/tags/list?last=a"


@pytest.mark.parametrize(
    "target",
    [
        "http://user:password@elsewhere.example.com/?last=a",
        "file:///etc/passwd?last=a",
        "/v2/team/other/tags/list?last=a",
        "/v2/x/team/api/tags/list?last=a",
        "/v2/team/api/tags/list/../../../other/tags/list?last=a",
        "/v2/_catalog?last=a",
        "/v2/team/api/manifests/v1?last=a",
    ],
)
def test_link_to_another_list_fails_the_poll(target: str) -> None:
    """A Link to anything but the same repository's list gets no request."""
    handler, asked = pages((["a"], f'<{target}>; rel="next"'))
    with pytest.raises(MalformedResponse, match="another list"):
        ask(handler)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "link",
    [
        'rel="next"',
        '<>; rel="next"',
        '</v2/team/api/tags/list?last=a; rel="next"',
        '</v2/team/api/tags/list>; rel="next"',
        '</v2/team/api/tags/list?last=a> rel="next"',
        '</v2/team/api/tags/list?last=a>; rel="next',
        '</v2/team/api/tags/list?last=a>; rel="prev" </v2/team/api/tags/list?last=a>; rel="next"',
        '<http://[::1/v2/team/api/tags/list?last=a>; rel="next"',
        "next",
    ],
)
def test_unreadable_link_fails_the_poll(link: str) -> None:
    """A Link that cannot be read is not the end of the list."""
    handler, asked = pages((["a"], link))
    with pytest.raises(MalformedResponse, match="cannot read"):
        ask(handler)
    assert len(asked) == 1


@pytest.mark.parametrize("last", ["\x01", "\x1b[2J", "x" * 70_000])
def test_link_that_no_url_may_have_fails_the_poll(last: str) -> None:
    """A next page that cannot be requested fails the poll."""
    handler, asked = pages((["a"], f'<{LIST}?last={last}>; rel="next"'))
    with pytest.raises(MalformedResponse):
        ask(handler)
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["x" * 70_000, "\ud800", "\x00", "é &#?"])
def test_any_name_may_end_a_full_page(name: str) -> None:
    """The last name of a full page without Link may be any text."""
    asked: list[str] = []
    names = [f"v{number}" for number in range(999)]

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("last", ""))
        page = ["w"] if asked[-1] else [*names, name]
        return httpx.Response(200, content=json.dumps({"tags": page}))

    try:
        found = listing(ask(handler, scope=Scope(tags=())))
    except MalformedResponse:
        assert len(asked) == 1
    else:
        assert asked[1] == name
        assert len(found.tags) == 1000


def test_contradictory_links_fail_the_poll() -> None:
    """A page with two next pages fails the poll."""
    link = f'<{LIST}?last=a>; rel="next", <{LIST}?last=b>; rel="next"'
    handler, _ = pages((["a"], link))
    with pytest.raises(MalformedResponse, match="more than one next page"):
        ask(handler)


def test_one_next_page_in_two_spellings_is_requested() -> None:
    """Links that differ only in the host or the prefix name the same page."""
    links = f'<http://internal:5000{LIST}?p=2>; rel="next", <{LIST}?p=2>; rel="next"'
    handler, asked = pages((["a"], links), (["b"], None))
    assert listing(ask(handler)).tags.keys() == {"a", "b"}
    assert len(asked) == 2


@pytest.mark.parametrize("key", ["errors", "error"])
@pytest.mark.parametrize("tags", [["a"], None])
def test_list_with_an_error_fails_the_poll(key: str, tags: list[str] | None) -> None:
    """A list that comes together with an error may be only a part of it."""
    body = {"name": REPOSITORY, "tags": tags, key: [{"code": "UNKNOWN"}]}
    with pytest.raises(MalformedResponse, match="together with an error"):
        ask(sends(json.dumps(body).encode()))
    body = {"name": REPOSITORY, "tags": ["a"], key: []}
    fake = Fake({"a": image("one")})
    fake.overrides["GET", LIST] = httpx.Response(200, json=body)
    assert listing(ask(fake)).tags.keys() == {"a"}


def test_long_link_is_read_in_linear_time() -> None:
    """A hostile Link takes no longer than its length allows."""
    hostile = [
        "<a>" + ";" * 90_000,
        "<a>; a" + " " * 90_000 + "b",
        "<a>;a=" * 20_000,
        "a," * 40_000,
    ]
    began = monotonic()
    for link in hostile:
        with pytest.raises(MalformedResponse):
            ask(pages((["a"], link))[0])
    assert monotonic() - began < 5


@pytest.mark.parametrize(
    ("answered", "sentence"),
    [
        ([(["a"], f'<{LIST}?n=1000>; rel="next"')], "lead in a circle"),
        (
            [
                (["a"], f'<{LIST}?p=2>; rel="next"'),
                (["b"], f'<{LIST}?p=3>; rel="next"'),
                (["c"], f'<{LIST}?p=2>; rel="next"'),
            ],
            "lead in a circle",
        ),
        ([(["a"], f'<{LIST}?p=2>; rel="next"'), ([], f'<{LIST}?p=2>; rel="next"')], "in a circle"),
    ],
)
def test_invalid_links_fail_the_poll(
    answered: list[tuple[list[str], str | None]], sentence: str
) -> None:
    """A Link in a circle fails the poll."""
    handler, asked = pages(*answered)
    with pytest.raises(MalformedResponse, match=sentence):
        ask(handler)
    assert len(asked) == len(answered)


def test_endless_pages_fail_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list whose pages do not end fails the poll."""
    asked = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        link = {"Link": f'<{LIST}?p={asked}>; rel="next"'}
        return httpx.Response(200, json={"tags": [f"v{asked}"]}, headers=link)

    monkeypatch.setattr(paging, "MAX_NAMES", 2000)
    with pytest.raises(ResponseTooLarge, match="more than 2000 names"):
        ask(handler)
    assert asked == 2001


def test_endless_empty_pages_fail_the_poll() -> None:
    """Pages without names, each of which names another one, fail the poll."""
    asked = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        link = {"Link": f'<{LIST}?p={asked}>; rel="next"'}
        return httpx.Response(200, json={"tags": []}, headers=link)

    with pytest.raises(MalformedResponse, match="pages that add no name"):
        ask(handler)
    assert asked == MAX_FRUITLESS_PAGES + 1


@pytest.mark.parametrize(
    "answered",
    [
        [(["a", "b", "c", "a"], None)],
        [(["a", "b"], f'<{LIST}?p=2>; rel="next"'), (["b", "c"], None)],
        [
            (["a", "b"], f'<{LIST}?p=2>; rel="next"'),
            ([], f'<{LIST}?p=3>; rel="next"'),
            (["c"], None),
        ],
    ],
)
def test_odd_pages_are_read(answered: list[tuple[list[str], str | None]]) -> None:
    """A name may be listed twice, begin the next page again, and a page may be empty."""
    handler, asked = pages(*answered)
    assert listing(ask(handler)).tags.keys() == {"a", "b", "c"}
    assert len(asked) == len(answered)


def shifting(*pages_of_reads: list[str]) -> Handler:
    """Return a handler whose second page is another one in each read."""
    reads = iter(pages_of_reads)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})
        if "p" in request.url.params:
            return httpx.Response(200, json={"tags": next(reads)})
        link = {"Link": f'<{LIST}?p=2>; rel="next"'}
        return httpx.Response(200, json={"tags": ["a", "b", "c"]}, headers=link)

    return handler


def test_name_on_two_pages_is_read_again() -> None:
    """A name on two pages may mean that pages have shifted, so the list is read again."""
    assert listing(ask(shifting(["a", "d"], ["d"]))).tags.keys() == {"a", "b", "c", "d"}
    assert listing(ask(shifting(["a", "d"], ["a", "d"]))).tags.keys() == {"a", "b", "c", "d"}
    with pytest.raises(InconsistentListing, match="on two pages"):
        ask(shifting(["a"], ["b", "a"], ["x", "a", "c"]))


# Registries that send no Link.


class Silent:
    """A registry that sends no Link, and records the queries of its list.

    Attributes:
        names: The names of the list.
        honours: Which parameters it respects.
        inclusive: Whether a page begins with the name in ``last``.
    """

    def __init__(self, count: int, *honours: str, inclusive: bool = False) -> None:
        self.names = [f"v{number:05d}" for number in range(count)]
        self.honours = honours
        self.inclusive = inclusive
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})
        query = request.url.params
        self.asked.append(str(query))
        names = self.names
        if "last" in self.honours and (last := query.get("last")):
            names = [n for n in names if n > last or (self.inclusive and n == last)]
        if "n" in self.honours:
            names = names[: int(query["n"])]
        return httpx.Response(200, json={"tags": names})


@pytest.mark.parametrize(
    ("registry", "requests"),
    [
        (Silent(999, "n", "last"), 1),
        (Silent(1000, "n", "last"), 2),
        (Silent(1500, "n", "last"), 2),
        (Silent(2000, "n", "last"), 3),
        (Silent(1000, "n", "last", inclusive=True), 2),
        (Silent(2500, "n", "last", inclusive=True), 3),
        (Silent(1000, "n"), 3),
        (Silent(1500, "n"), 3),
        (Silent(9999, "n"), 3),
        (Silent(1000), 3),
        (Silent(1500), 1),
        (Silent(1500, "last"), 1),
        (Silent(1000, "last"), 2),
    ],
)
def test_list_without_link_is_complete(registry: Silent, requests: int) -> None:
    """Without Link, every name is listed, whichever parameters the registry respects."""
    found = listing(ask(registry, scope=Scope(tags=())))
    assert found.tags.keys() == {*registry.names}
    assert len(registry.asked) == found.pages == requests


@pytest.mark.parametrize("count", [10_000, 12_345])
def test_list_that_cannot_be_complete_fails_the_poll(count: int) -> None:
    """If the registry shows at most n names and has no second page, the poll fails."""
    with pytest.raises(ResponseTooLarge, match="10000 names or more"):
        ask(Silent(count, "n"))


def test_names_that_move_between_requests_are_read_again() -> None:
    """A list that changes while it is read is read again."""
    registry = Silent(1000, "n")
    original = registry.__call__

    def handler(request: httpx.Request) -> httpx.Response:
        if len(registry.asked) == 2:
            registry.names = registry.names[1:]
        return original(request)

    assert len(listing(ask(handler, scope=Scope(tags=()))).tags) == 999


def test_missing_later_page_is_inconsistent() -> None:
    """A 404 for a later page does not mean that the repository is gone."""
    asked = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked % 2 == 0:
            return httpx.Response(404, json=errors("NAME_UNKNOWN"))
        return httpx.Response(200, json={"tags": ["a"]}, headers={"Link": "<?p=2>; rel=next"})

    with pytest.raises(InconsistentListing):
        ask(handler)


# Bodies.


def test_null_is_an_empty_list() -> None:
    """JSON's null is an empty list of tags."""
    assert listing(ask(sends(b'{"name":"team/api","tags":null}'))).tags == {}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".hidden",
            "-x",
            "a/b",
            "a b",
            "../../x",
            "a" * 129,
            "v1\n",
            "ä",
            "\x1b[31m",
            "v1?n=1",
        ),
        digest_of(b""),
    ],
)
def test_invalid_tag_is_left_out(name: str) -> None:
    """An invalid tag is left out, and does not become part of a path."""
    fake = Fake({"v1": image("one"), name: image("two")})
    found = listing(ask(fake))
    assert found.tags.keys() == {"v1"}
    assert found.bad_names == (name,)
    assert found.fingerprint
    assert found.fingerprint != listing(ask(Fake({"v1": image("one")}))).fingerprint
    assert fake.asked("HEAD") == ["v1"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "an empty body"),
        (b"<html><body>Sign in</body></html>", "an HTML page"),
        (b'{"name":"team/api","tags":["v1","v', "not the requested list"),
        (b'{"name":"team/api"}', "not the requested list"),
        (b"[]", "not the requested list"),
        (b"null", "not the requested list"),
        (b'{"tags":"v1"}', "not the requested list"),
        (b'{"tags":[1]}', "not the requested list"),
        (b'{"tags":[null]}', "not the requested list"),
        (b'{"tags":["\xff"]}', "not the requested list"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"tags":[]}', "nested"),
    ],
)
def test_other_bodies_are_not_lists(body: bytes, sentence: str) -> None:
    """Any other body with status 200 fails the poll."""
    with pytest.raises(MalformedResponse, match=sentence) as caught:
        ask(sends(body))
    assert len(str(caught.value).splitlines()) == 1


def test_list_size_is_bounded() -> None:
    """The pages of a list together must not exceed max_listing_size."""
    with pytest.raises(ResponseTooLarge, match="max_listing_size"):
        ask(sends(json.dumps({"tags": ["v1"], "x": "y" * 10_000}).encode()), bound=10_000)
