"""Lists of names: pages, invalid names, and bodies that are not lists."""

import json
from collections.abc import Sequence

import httpx
import pytest

from tagsync.errors import (
    InconsistentListing,
    MalformedResponse,
    ResponseTooLarge,
)
from tagsync.registries.oci.paging import MAX_PAGES
from tagsync.registries.responses import READS
from tests.support.docker_registry import digest_of
from tests.support.oci import (
    LIST,
    Fake,
    Handler,
    ask,
    errors,
    image,
    listing,
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


@pytest.mark.parametrize(
    "target",
    [
        "http://elsewhere.example.com/v2/team/api/tags/list?last=a",
        "//elsewhere.example.com/v2/team/api/tags/list?last=a",
        "https://127.0.0.1/v2/team/api/tags/list?last=a",
        "http://127.0.0.1:8080/v2/team/api/tags/list?last=a",
        "http://user:password@elsewhere.example.com/",
        "file:///etc/passwd",
    ],
)
def test_link_to_another_host_gets_no_request(target: str) -> None:
    """A Link to another host, port or scheme gets no request."""
    handler, asked = pages((["a"], f'<{target}>; rel="next"'))
    with pytest.raises(MalformedResponse, match="another host"):
        ask(handler)
    assert len(asked) == 1


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
        ([(["a"], f'<{LIST}?p=2>; rel="next"'), ([], f'<{LIST}?p=3>; rel="next"')], "empty page"),
        ([(["a"], '<http://127.0.0.1:x/>; rel="next"')], "not a URL"),
    ],
)
def test_invalid_links_fail_the_poll(
    answered: list[tuple[list[str], str | None]], sentence: str
) -> None:
    """A Link in a circle, on an empty page, or that is not a URL fails the poll."""
    handler, asked = pages(*answered)
    with pytest.raises(MalformedResponse, match=sentence):
        ask(handler)
    assert len(asked) == len(answered)


def test_endless_pages_fail_the_poll() -> None:
    """A list whose pages do not end fails the poll."""
    asked = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        link = {"Link": f'<{LIST}?p={asked}>; rel="next"'}
        return httpx.Response(200, json={"tags": [f"v{asked}"]}, headers=link)

    with pytest.raises(MalformedResponse, match="more than 1000 pages"):
        ask(handler)
    assert asked == MAX_PAGES


@pytest.mark.parametrize(
    "answered",
    [
        [(["a", "b", "a"], None)],
        [(["a", "b"], f'<{LIST}?p=2>; rel="next"'), (["b", "c"], None)],
    ],
)
def test_repeated_name_is_inconsistent(answered: list[tuple[list[str], str | None]]) -> None:
    """A list with a repeated name is read again, and then fails the poll."""
    handler, asked = pages(*answered * READS)
    with pytest.raises(InconsistentListing, match="twice"):
        ask(handler)
    assert len(asked) == len(answered) * READS


def test_consistent_second_read_is_used() -> None:
    """A list that is consistent when it is read again is used."""
    handler, _ = pages((["a", "a"], None), (["a", "b"], None))
    assert listing(ask(handler)).tags.keys() == {"a", "b"}


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
    assert listing(ask(sends(b'{"name":"x","tags":null}'))).tags == {}


@pytest.mark.parametrize(
    "name",
    ["", ".hidden", "-x", "a/b", "a b", "../../x", "a" * 129, "v1\n", "ä", "\x1b[31m", "v1?n=1"],
)
def test_invalid_tag_fails_the_poll(name: str) -> None:
    """An invalid tag fails the poll before it becomes part of a path."""
    fake = Fake({"v1": image("one"), name: image("two")})
    with pytest.raises(MalformedResponse, match="not a valid name"):
        ask(fake)
    assert fake.asked("HEAD") == []


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
