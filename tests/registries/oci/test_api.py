"""Listings and catalogues of OCI registries, and their refusals."""

import json
from collections import Counter
from contextlib import closing

import httpx
import pytest
from structlog.testing import capture_logs

from tagsync import manifests
from tagsync.errors import (
    BadRequest,
    Busy,
    EndpointNotFound,
    Forbidden,
    MalformedResponse,
    RegistryError,
    RepositoryNotFound,
    Throttled,
    Unauthorized,
)
from tagsync.models import Listing, Scope, Tag, Unchanged
from tests.support.docker_registry import OCI_MANIFEST, digest_of
from tests.support.oci import (
    LIST,
    REPOSITORY,
    SECRET,
    Fake,
    Handler,
    ask,
    errors,
    image,
    listing,
    registry_of,
    sends,
)

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+json"

# Names and digests.


def test_digests_come_from_head_requests() -> None:
    """Each tag costs one HEAD request that accepts all manifest types, schema 1 last."""
    fake = Fake({"v1": image("one"), "latest": image("one"), "v2": image("two")})
    found = listing(ask(fake))
    assert {name: tag.digest for name, tag in found.tags.items()} == {
        name: digest_of(content) for name, content in fake.tags.items()
    }
    assert fake.asked("HEAD") == ["latest", "v1", "v2"]
    assert fake.asked("GET") == []
    assert found.requests == 4
    heads = [request for request in fake.requests if request.method == "HEAD"]
    accepted = {request.headers["Accept"] for request in heads}
    assert accepted == {manifests.ACCEPT}
    assert all(name in manifests.ACCEPT for name in manifests.MEDIA_TYPES)
    assert manifests.ACCEPT.endswith("v1+prettyjws;q=0.1, " + SCHEMA_1 + ";q=0.1")
    assert {each.media_type for each in found.images.values()} == {OCI_MANIFEST}


def test_only_selected_tags_are_resolved() -> None:
    """A tag that matches no glob is listed without a digest and costs no request."""
    fake = Fake({"v1": image("one"), "latest": image("one"), "nightly": image("two")})
    found = listing(ask(fake, scope=Scope(("v*", "latest"))))
    assert fake.asked("HEAD") == ["latest", "v1"]
    assert found.tags["nightly"] == Tag("nightly")
    assert found.missing == ()


def test_second_read_uses_resolved_tags() -> None:
    """A second read resolves only tags that the first one has not resolved."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    seen = {"v1": Tag("v1", "sha256:seen"), "gone": Tag("gone", "sha256:gone")}
    found = listing(ask(fake, scope=Scope(seen=seen)))
    assert fake.asked("HEAD") == ["v2"]
    assert found.tags["v1"].digest == "sha256:seen"
    assert found.tags.keys() == {"v1", "v2"}


def test_unchanged_listing_is_recognized() -> None:
    """Equal names and digests in any order are unchanged; a moved tag is not."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    first = listing(ask(fake)).fingerprint
    fake.tags = dict(reversed(fake.tags.items()))
    again = ask(fake, first)
    assert isinstance(again, Unchanged)
    assert again.requests == 3
    for scope in (Scope(("v1",)), Scope(manifests=True)):
        assert isinstance(ask(fake, first, scope), Listing)
    fake.tags["v2"] = image("three")
    assert isinstance(ask(fake, first), Listing)


def test_missing_manifest_changes_the_fingerprint() -> None:
    """A tag without a manifest differs from a tag that was not resolved."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    fake.refuse("broken", 404)
    before = listing(ask(fake, scope=Scope(("v1",))))
    assert before.missing == ()
    assert listing(ask(fake, before.fingerprint)).missing == ("broken",)


# Refusals.


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {}, Throttled),
        (403, errors("TOOMANYREQUESTS"), Throttled),
        (500, {}, Busy),
        (503, {}, Busy),
        (401, errors("UNAUTHORIZED"), Unauthorized),
        (403, errors("DENIED"), Forbidden),
        (404, errors("NAME_UNKNOWN"), RepositoryNotFound),
        (404, errors("DENIED"), Forbidden),
        (404, errors("UNAUTHORIZED"), Forbidden),
        (404, errors("UNSUPPORTED"), EndpointNotFound),
        (404, {}, EndpointNotFound),
        (404, [], EndpointNotFound),
        (404, {"kind": "Status", "code": 404, "message": "not found"}, EndpointNotFound),
        (404, errors("APIGW.0101"), EndpointNotFound),
        (400, errors("NAME_INVALID"), BadRequest),
        (400, {"errors": ["text"]}, BadRequest),
        (405, errors("UNSUPPORTED"), BadRequest),
    ],
)
def test_refusal_becomes_its_error(status: int, body: object, kind: type[RegistryError]) -> None:
    """Each status and error code becomes the error that it means."""
    with pytest.raises(RegistryError) as caught:
        ask(sends(json.dumps(body).encode(), status))
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert str(status) in str(caught.value)


def test_refusal_contains_no_secret() -> None:
    """A secret that a server repeats is not part of the error."""
    with pytest.raises(Unauthorized) as caught:
        ask(sends(json.dumps(errors(SECRET, f"{SECRET}\n is wrong")).encode(), 401))
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", [LIST, f"/v2/{REPOSITORY}/manifests/v1"])
def test_endless_redirect_fails_the_poll(path: str) -> None:
    """A redirect without end fails the poll; the error names its target without the query."""
    fake = Fake({"v1": image("one")})
    elsewhere = httpx.Response(307, headers={"Location": f"{path}?X-Signature=made-up"})
    fake.overrides = {("GET", path): elsewhere, ("HEAD", path): elsewhere}
    with pytest.raises(BadRequest, match=rf"redirects to http://127.0.0.1{path}$") as caught:
        ask(fake)
    assert "Signature" not in str(caught.value)


def test_redirected_registry_is_read() -> None:
    """A registry may redirect lists and manifests, to a repository with another parent."""
    fake = Fake({"v1": image("one")})

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "127.0.0.1":
            target = request.url.copy_with(host="mirror.example.com")
            return httpx.Response(307, headers={"Location": str(target)})
        if request.url.path == LIST:
            return httpx.Response(200, json={"name": f"parent/{REPOSITORY}", "tags": ["v1"]})
        return fake(request)

    found = listing(ask(handler))
    assert found.tags["v1"].digest == digest_of(image("one"))
    assert found.requests == 4


# Discovery.


def repositories(handler: Handler, *globs: str) -> set[str]:
    with closing(registry_of(handler)) as registry:
        return registry.list_repositories(globs)


def test_catalogue_is_read_and_filtered() -> None:
    """The catalogue is read page by page, and filtered by the globs."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if len(asked) == 2:
            return httpx.Response(200, json={"repositories": ["team/b/c", "busybox"]})
        link = {"Link": '</v2/_catalog?last=x&n=2>; rel="next"'}
        body = {"repositories": ["team/a", "other/a"]}
        return httpx.Response(200, json=body, headers=link)

    assert repositories(handler, "team/*", "b*") == {"team/a", "team/b/c", "busybox"}
    assert asked[1] == "http://127.0.0.1/v2/_catalog?last=x&n=2"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_missing_catalogue_has_advice(status: int) -> None:
    """If a registry has no catalogue, the error advises to name repositories."""
    with pytest.raises(RegistryError, match=r"gives no list of its repositories.*'team/\*'"):
        repositories(sends(b"", status), "team/*")


@pytest.mark.parametrize("name", ["../x", "a//b", "UPPER", "a/", "/a", "a/../b", "a b", "x" * 256])
def test_invalid_name_in_catalogue_is_left_out(name: str) -> None:
    """A name that no repository can have is left out and named in the log."""
    with capture_logs() as logged:
        found = repositories(sends(json.dumps({"repositories": ["team/a", name]}).encode()), "*")
    assert found == {"team/a"}
    assert [event["names"] for event in logged if event["event"] == "discovery.skipped"] == [[name]]


@pytest.mark.parametrize("name", ["team/other", "api", f"x/{REPOSITORY}", "TEAM/API"])
def test_list_of_another_repository_fails_the_poll(name: str) -> None:
    """A list that says that it is of another repository is not this repository's list."""
    with pytest.raises(MalformedResponse, match="list of another repository"):
        ask(sends(json.dumps({"name": name, "tags": ["v1"]}).encode()))


def test_page_size_is_reduced_if_refused() -> None:
    """If the registry refuses the number of names per page, smaller numbers are tried."""
    asked: list[int] = []
    names = [f"team/r{number:03d}" for number in range(150)]

    def handler(request: httpx.Request) -> httpx.Response:
        n, last = int(request.url.params["n"]), request.url.params.get("last", "")
        asked.append(n)
        if n > 100:
            return httpx.Response(400, json=errors("PAGINATION_NUMBER_INVALID"))
        return httpx.Response(200, json={"repositories": [x for x in names if x > last][:n]})

    with closing(registry_of(handler)) as registry:
        assert registry.list_repositories(["*"]) == {*names}
        first = len(asked)
        assert registry.list_repositories(["*"]) == {*names}
    assert asked[:4] == [1000, 500, 250, 125]
    assert all(n <= 100 for n in asked[first:])


@pytest.mark.parametrize(("status", "code"), [(400, "UNSUPPORTED"), (400, ""), (422, "UNKNOWN")])
def test_small_page_is_tried_after_an_unclear_refusal(status: int, code: str) -> None:
    """A registry may refuse a page of 1000 names without saying that this is the reason.

    If it also refuses a small page, the next list is asked for with the full number again.
    """
    asked: list[int] = []
    refused = 1

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(int(request.url.params["n"]))
        if asked[-1] >= refused:
            return httpx.Response(status, json=errors(code))
        return httpx.Response(200, json={"repositories": ["team/a"]})

    with closing(registry_of(handler)) as registry:
        with pytest.raises(BadRequest):
            registry.list_repositories(["*"])
        refused = 1000
        assert registry.list_repositories(["*"]) == {"team/a"}
        assert registry.list_repositories(["*"]) == {"team/a"}
    assert asked == [1000, 100, 1000, 100, 100]


@pytest.mark.parametrize("code", ["NAME_INVALID", "PAGINATION_NUMBER_INVALID"])
def test_lasting_refusal_of_a_page_fails(code: str) -> None:
    """A refusal for another reason, or of every number, is not retried without end."""
    with pytest.raises(BadRequest):
        ask(sends(json.dumps(errors(code)).encode(), 400))


def test_no_globs_need_no_request() -> None:
    """Without globs the catalogue is not requested."""
    asked: Counter[str] = Counter()

    def handler(request: httpx.Request) -> httpx.Response:
        asked[request.url.path] += 1
        return httpx.Response(200, json={"repositories": []})

    assert repositories(handler) == set()
    assert not asked
