"""The OCI source against a registry that the test writes itself: mostly what it should not say."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event, Lock, get_ident

import httpx
import pytest
import stamina

from tagsync import manifests
from tagsync.errors import (
    BadRequest,
    Busy,
    EndpointNotFound,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    RegistryError,
    RepositoryNotFound,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.models import EVERYTHING, Listing, Scope, Tag, Unchanged
from tagsync.registries.oci.paging import MAX_PAGES
from tagsync.registries.oci.resolve import DEPTH, MAX_MANIFEST_BYTES
from tagsync.registries.responses import READS
from tests.support.docker_registry import OCI_MANIFEST, digest_of
from tests.support.oci import (
    BOUND,
    LIST,
    REPOSITORY,
    SECRET,
    Fake,
    Handler,
    errors,
    image,
    index,
    registry_of,
)


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Takes each refusal as final: what is tried again is HTTP's affair."""
    with stamina.set_testing(True, attempts=1):
        yield


def ask(
    handler: Handler, known: str | None = None, scope: Scope = EVERYTHING, bound: int = BOUND
) -> Listing | Unchanged:
    with closing(registry_of(handler, bound)) as registry:
        return registry.list_tags(REPOSITORY, known, scope)


def listing(answer: Listing | Unchanged) -> Listing:
    assert isinstance(answer, Listing)
    return answer


def sends(body: bytes, status: int = 200, **headers: str) -> Handler:
    return lambda _: httpx.Response(status, content=body, headers=headers)


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


# Names and digests.


def test_each_tag_has_its_digest() -> None:
    """One HEAD a tag, with all four manifest types, and nothing more."""
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
    assert accepted == {", ".join(manifests.MEDIA_TYPES)}
    assert {each.media_type for each in found.images.values()} == {OCI_MANIFEST}


def test_only_chosen_tags_are_resolved() -> None:
    """A tag that no glob matches is listed, without a digest and without being asked for."""
    fake = Fake({"v1": image("one"), "latest": image("one"), "nightly": image("two")})
    found = listing(ask(fake, scope=Scope(("v*", "latest"))))
    assert fake.asked("HEAD") == ["latest", "v1"]
    assert found.tags["nightly"] == Tag("nightly")
    assert found.missing == ()


def test_what_another_read_has_seen_is_taken() -> None:
    """A second look asks for the tags alone that the first has not resolved."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    seen = {"v1": Tag("v1", "sha256:seen"), "gone": Tag("gone", "sha256:gone")}
    found = listing(ask(fake, scope=Scope(seen=seen)))
    assert fake.asked("HEAD") == ["v2"]
    assert found.tags["v1"].digest == "sha256:seen"
    assert found.tags.keys() == {"v1", "v2"}


def test_a_digest_that_is_not_sent_is_computed() -> None:
    """Without Docker-Content-Digest the manifest itself is fetched and hashed."""
    fake = Fake({"v1": image("one")})
    fake.headers = {"Docker-Content-Digest": ""}
    found = listing(ask(fake))
    assert found.tags["v1"].digest == digest_of(image("one"))
    assert (fake.asked("HEAD"), fake.asked("GET")) == (["v1"], ["v1"])
    assert found.requests == 3


@pytest.mark.parametrize(
    "digest",
    ["latest", "sha256:abc", f"md5:{'0' * 32}", f"sha256:{'A' * 64}", f"sha256:{'0' * 64}, x"],
)
def test_a_digest_that_is_none(digest: str) -> None:
    """What is not a digest ends the poll, and is not recorded as one."""
    fake = Fake({"v1": image("one")})
    fake.headers = {"Docker-Content-Digest": digest}
    with pytest.raises(MalformedResponse, match="invalid digest"):
        ask(fake)


@pytest.mark.parametrize("headers", [{}, {"Docker-Distribution-Api-Version": "registry/2.0"}])
def test_a_tag_without_a_manifest(headers: dict[str, str]) -> None:
    """A tag that is listed and answered with 404 is kept apart from one that is not listed."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/broken"
    fake.overrides["HEAD", path] = httpx.Response(404, headers=headers)
    found = listing(ask(fake))
    assert found.missing == ("broken",)
    assert found.tags["broken"] == Tag("broken")
    assert found.tags["v1"].digest
    assert found.fingerprint


def test_a_refused_manifest_ends_the_poll() -> None:
    """Any other refusal of one tag leaves no listing: it would not be complete."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/v2"] = httpx.Response(403)
    with pytest.raises(Forbidden):
        ask(fake)


def test_heads_run_in_parallel() -> None:
    """As many tags are asked for at once as the registry may be asked, by kept threads."""
    together = Barrier(4, timeout=10)
    lock, threads = Lock(), set()

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"tags": [f"v{number}" for number in range(40)]})
        with lock:
            threads.add(get_ident())
        together.wait()
        return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})

    assert len(listing(ask(handler)).tags) == 40
    assert len(threads) == 4


def test_an_unchanged_listing() -> None:
    """Equal names and digests are the same listing, in whatever order; a moved tag is not."""
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


def test_a_tag_that_is_denied_makes_another_listing() -> None:
    """A tag that is asked for and denied is told, though it had no digest before either."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/broken"] = httpx.Response(404)
    before = listing(ask(fake, scope=Scope(("v1",))))
    assert before.missing == ()
    assert listing(ask(fake, before.fingerprint)).missing == ("broken",)


def test_a_large_repository_lets_others_have_their_turn() -> None:
    """A small repository that is polled meanwhile does not wait for every tag of a large one."""
    begun, small_is_listed = Event(), Event()
    of_large = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal of_large
        large = "/large/" in request.url.path
        if request.method == "GET":
            if not large:
                small_is_listed.set()
            names = [f"v{number}" for number in range(300 if large else 1)]
            return httpx.Response(200, json={"tags": names})
        if large:
            begun.set()
            small_is_listed.wait(10)
            of_large += 1
            return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})
        digest = digest_of(str(of_large).encode())
        return httpx.Response(200, headers={"Docker-Content-Digest": digest})

    with closing(registry_of(handler, concurrency=1)) as registry, ThreadPoolExecutor(1) as pool:
        large = pool.submit(registry.list_tags, "team/large")
        begun.wait(10)
        small = listing(registry.list_tags("team/small")).tags["v0"].digest
        assert len(listing(large.result()).tags) == 300
    assert small != digest_of(b"300")


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
        (404, {}, EndpointNotFound),
        (404, [], EndpointNotFound),
        (404, {"kind": "Status", "code": 404, "message": "not found"}, EndpointNotFound),
        (404, errors("APIGW.0101"), EndpointNotFound),
        (400, errors("NAME_INVALID"), BadRequest),
        (400, {"errors": ["text"]}, BadRequest),
        (405, errors("UNSUPPORTED"), BadRequest),
    ],
)
def test_refusals(status: int, body: object, kind: type[RegistryError]) -> None:
    """Each status, with the code that the body tells, is the error that it means."""
    with pytest.raises(RegistryError) as caught:
        ask(sends(json.dumps(body).encode(), status))
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert str(status) in str(caught.value)


def test_a_refusal_tells_no_secret() -> None:
    """What a server echoes of the credentials is not repeated."""
    with pytest.raises(Unauthorized) as caught:
        ask(sends(json.dumps(errors(SECRET, f"{SECRET}\n is wrong")).encode(), 401))
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", [LIST, f"/v2/{REPOSITORY}/manifests/v1"])
def test_a_redirect_is_not_followed(path: str) -> None:
    """A redirect ends the poll with where it points to, without its query, and is not asked."""
    fake = Fake({"v1": image("one")})
    elsewhere = httpx.Response(
        307, headers={"Location": "https://elsewhere.example.com/v2/?X-Signature=made-up"}
    )
    fake.overrides = {("GET", path): elsewhere, ("HEAD", path): elsewhere}
    with pytest.raises(BadRequest, match=r"elsewhere\.example\.com.* never followed") as caught:
        ask(fake)
    assert "Signature" not in str(caught.value)
    assert {request.url.host for request in fake.requests} == {"127.0.0.1"}


# Manifests.


WITH_MANIFESTS = Scope(manifests=True)


def test_manifests_are_fetched_once() -> None:
    """The manifest of each digest is fetched by digest, but for those that are recorded."""
    one, two = image("one"), image("two")
    fake = Fake({"v1": one, "latest": one, "v2": two})
    recorded = Scope(manifests=True, recorded=lambda digests: {digest_of(two)} & {*digests})
    found = listing(ask(fake, scope=recorded))
    assert fake.asked("GET") == [digest_of(one)]
    kept = found.images[digest_of(one)]
    assert (kept.manifest, kept.verified) == (one.decode(), True)
    assert (kept.size, kept.schema) == (111, 2)
    assert kept.image_id == digest_of(b"config of one")
    assert found.images[digest_of(two)].manifest is None
    assert found.fingerprint


def test_an_index_brings_its_children() -> None:
    """What an index names is fetched with it, and what that names; each once."""
    amd, arm = image("amd64"), image("arm64")
    inner = index(arm)
    fake = Fake({"multi": index(amd, inner), "other": index(amd)})
    fake.manifests = {digest_of(each): each for each in (amd, arm, inner)}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.children.keys() == fake.manifests.keys()
    assert all(child.verified for child in found.children.values())
    assert found.images[digest_of(index(amd))].size is None
    assert found.tags.keys() == {"multi", "other"}


def test_children_that_are_recorded_are_not_fetched() -> None:
    """An index that shares its children with another costs one request."""
    amd = image("amd64")
    fake = Fake({"multi": index(amd)})
    scope = Scope(manifests=True, recorded=lambda digests: {digest_of(amd)} & {*digests})
    found = listing(ask(fake, scope=scope))
    assert fake.asked("GET") == [digest_of(index(amd))]
    assert found.fingerprint


def test_a_child_that_the_registry_lacks() -> None:
    """An index of which the registry holds some platforms only is fetched as far as it goes."""
    amd, arm = image("amd64"), image("arm64")
    fake = Fake({"multi": index(arm, amd)})
    fake.manifests = {digest_of(amd): amd}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.children.keys() == {digest_of(amd)}
    assert found.images[digest_of(index(arm, amd))].verified
    assert found.unfetched is None
    assert found.fingerprint


def test_indexes_are_followed_to_a_depth() -> None:
    """A chain of indexes longer than anybody builds is not followed to its end."""
    chain = [image("last")]
    for _ in range(DEPTH + 5):
        chain.append(index(chain[-1]))
    fake = Fake({"deep": chain[-1]})
    fake.manifests = {digest_of(each): each for each in chain}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert len(found.children) == DEPTH


@pytest.mark.parametrize("body", [b"<html>", image("another"), b"", b"\xff\xfe"])
def test_a_manifest_that_is_another(body: bytes) -> None:
    """Bytes that do not hash to the digest are not kept; the tag says so, the next poll asks."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('one'))}"
    fake.overrides["GET", path] = httpx.Response(200, content=body)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.unverified == ("v1",)
    assert found.images[digest_of(image("one"))].manifest is None
    assert found.images[digest_of(image("two"))].verified
    assert found.fingerprint is None
    assert found.unfetched


def test_a_manifest_that_is_too_large() -> None:
    """A manifest beyond the specification's bound is not kept, and takes no other with it."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('one'))}"
    body = b"x" * (MAX_MANIFEST_BYTES + 1)
    fake.overrides["GET", path] = httpx.Response(200, content=body)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert "4194304 bytes that a manifest may have" in (found.unfetched or "")
    assert found.images[digest_of(image("two"))].verified


@pytest.mark.parametrize("status", [429, 500])
def test_a_failure_leaves_manifests_for_later(status: int) -> None:
    """A child that cannot be had now leaves its index to be fetched again, and the tags stand."""
    amd, arm = image("amd64"), image("arm64")
    multi = index(amd, arm)
    fake = Fake({"multi": multi})
    fake.manifests = {digest_of(amd): amd, digest_of(arm): arm}
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(arm)}"
    fake.overrides["GET", path] = httpx.Response(status)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.tags["multi"].digest == digest_of(multi)
    assert found.images[digest_of(multi)].manifest is None
    assert found.children.keys() == {digest_of(amd)}
    assert str(status) in (found.unfetched or "")
    assert found.fingerprint is None


def test_a_failure_in_passing_ends_the_fetching() -> None:
    """After a failure that would repeat itself, the other manifests are not asked for."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(100)})
    for content in fake.tags.values():
        path = f"/v2/{REPOSITORY}/manifests/{digest_of(content)}"
        fake.overrides["GET", path] = httpx.Response(429)
    assert listing(ask(fake, scope=WITH_MANIFESTS)).unfetched
    assert len(fake.asked("GET")) <= 4


def test_the_hubs_limit_is_obeyed() -> None:
    """Where no pull is left, as Docker Hub counts them, no manifest is fetched; tags still are."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(20)})
    fake.headers = {"RateLimit-Remaining": "0;w=21600", "RateLimit-Limit": "100;w=21600"}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert len(found.tags) == 20
    assert fake.asked("GET") == []
    assert "rate limit" in (found.unfetched or "")
    fake.headers = {"RateLimit-Remaining": "50;w=21600"}
    assert listing(ask(fake, scope=WITH_MANIFESTS)).unfetched is None


def test_manifests_share_the_listings_bound() -> None:
    """What would go beyond max_listing_size is left for the next poll, which has the rest."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(40)})
    recorded: set[str] = set()
    scope = Scope(manifests=True, recorded=lambda digests: recorded & {*digests})
    polls = 0
    while True:
        polls += 1
        found = listing(ask(fake, scope=scope, bound=5000))
        # What was under way at once may go beyond it.
        assert found.size <= 5000 + 4 * len(image("0"))
        fetched = {digest for digest, each in found.images.items() if each.manifest}
        assert fetched
        recorded |= fetched
        if found.fingerprint:
            break
    assert len(recorded) == 40
    assert polls > 1


# Discovery.


def repositories(handler: Handler, *globs: str) -> set[str]:
    with closing(registry_of(handler)) as registry:
        return registry.list_repositories(globs)


def test_the_catalogue() -> None:
    """The list of repositories is read page by page, and filtered."""
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
def test_no_catalogue(status: int) -> None:
    """A registry that offers no list is told apart, with what to do."""
    with pytest.raises(RegistryError, match=r"gives no list of its repositories.*'team/\*'"):
        repositories(sends(b"", status), "team/*")


@pytest.mark.parametrize("name", ["../x", "a//b", "UPPER", "a/", "/a", "a/../b", "a b", "x" * 256])
def test_a_catalogue_of_what_is_no_name(name: str) -> None:
    """What no repository can be called ends the discovery."""
    with pytest.raises(MalformedResponse, match="not a valid name"):
        repositories(sends(json.dumps({"repositories": ["team/a", name]}).encode()), "*")


def test_no_globs_ask_for_nothing() -> None:
    """Without a glob the list of repositories is not asked for."""
    asked: Counter[str] = Counter()

    def handler(request: httpx.Request) -> httpx.Response:
        asked[request.url.path] += 1
        return httpx.Response(200, json={"repositories": []})

    assert repositories(handler) == set()
    assert not asked
