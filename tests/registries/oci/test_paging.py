"""Lists of names: pages, names and bodies that must not pass for a list."""

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
    """Gives these pages of names, each with its Link, the last for ever; and what was asked."""
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
def test_pages_are_followed(link: str) -> None:
    """A Link in any form leads to the next page, query and all, and the last page has none."""
    handler, asked = pages((["a", "b"], link), (["c"], None))
    found = listing(ask(handler))
    assert found.tags.keys() == {"a", "b", "c"}
    assert found.pages == 2
    assert asked[1] == "http://127.0.0.1/v2/team/api/tags/list?last=b&n=2"


def test_a_link_to_what_is_not_next() -> None:
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
def test_a_link_to_another_host(target: str) -> None:
    """A Link to another host, port or scheme is not asked, whatever goes there."""
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
def test_pages_that_lead_nowhere(
    answered: list[tuple[list[str], str | None]], sentence: str
) -> None:
    """A Link to itself, in a circle, after nothing, or that is no URL ends the poll."""
    handler, asked = pages(*answered)
    with pytest.raises(MalformedResponse, match=sentence):
        ask(handler)
    assert len(asked) == len(answered)


def test_pages_without_end() -> None:
    """A list whose pages go on for ever, each with a new name, is given up."""
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
def test_a_name_that_comes_twice(answered: list[tuple[list[str], str | None]]) -> None:
    """A name that is listed twice is a contradiction: read again, and then a failure."""
    handler, asked = pages(*answered * READS)
    with pytest.raises(InconsistentListing, match="twice"):
        ask(handler)
    assert len(asked) == len(answered) * READS


def test_a_contradiction_that_passes() -> None:
    """A list that is whole when read again is taken."""
    handler, _ = pages((["a", "a"], None), (["a", "b"], None))
    assert listing(ask(handler)).tags.keys() == {"a", "b"}


def test_a_later_page_that_is_gone() -> None:
    """A page that does not exist does not make the repository vanish."""
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


def test_no_tags() -> None:
    """A list of tags that is null is an empty one."""
    assert listing(ask(sends(b'{"name":"x","tags":null}'))).tags == {}


@pytest.mark.parametrize(
    "name",
    ["", ".hidden", "-x", "a/b", "a b", "../../x", "a" * 129, "v1\n", "ä", "\x1b[31m", "v1?n=1"],
)
def test_a_name_that_is_no_tag(name: str) -> None:
    """What no tag can be called ends the poll, before it gets into a path."""
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
def test_a_body_that_is_no_list(body: bytes, sentence: str) -> None:
    """Whatever else is sent with status 200 is not taken for a list."""
    with pytest.raises(MalformedResponse, match=sentence) as caught:
        ask(sends(body))
    assert len(str(caught.value).splitlines()) == 1


def test_a_list_that_is_too_large() -> None:
    """All pages together may not be larger than configured."""
    with pytest.raises(ResponseTooLarge, match="max_listing_size"):
        ask(sends(json.dumps({"tags": ["v1"], "x": "y" * 10_000}).encode()), bound=10_000)
