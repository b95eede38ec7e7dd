"""Digests and manifests: what is requested, and what a registry may answer."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event, Lock

import httpx
import pytest

from tagsync.errors import (
    Busy,
    Forbidden,
    RegistryError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from tagsync.models import Scope, Tag, Unchanged
from tagsync.registries.client import Client
from tagsync.registries.deadline import waiting
from tagsync.registries.oci.resolve import DEPTH, ERRORS_IN_A_ROW, MAX_MANIFEST_BYTES
from tests.support.docker_registry import OCI_MANIFEST, digest_of
from tests.support.oci import (
    LIST,
    REPOSITORY,
    Fake,
    ask,
    image,
    index,
    listing,
    registry_of,
    signed,
)


def test_missing_digest_header_is_computed() -> None:
    """Without Docker-Content-Digest the manifest is fetched and hashed."""
    fake = Fake({"v1": image("one")})
    fake.headers = {"Docker-Content-Digest": ""}
    found = listing(ask(fake))
    assert found.tags["v1"].digest == digest_of(image("one"))
    assert (fake.asked("HEAD"), fake.asked("GET")) == (["v1"], ["v1"])
    assert found.requests == 3


@pytest.mark.parametrize(
    "digests",
    [
        ["latest"],
        ["sha256:abc"],
        [f"md5:{'0' * 32}"],
        [f"sha256:{'A' * 64}"],
        [f"sha256:{'0' * 64}, x"],
        [f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"],
        [f"sha256:{'0' * 64}", f"sha512:{'0' * 128}"],
    ],
)
def test_digest_that_is_not_one_is_computed(digests: list[str]) -> None:
    """An invalid or contradictory digest does not count; the manifest is fetched and hashed."""
    fake = Fake({"v1": image("one")})

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if request.url.path == LIST:
            return answer
        headers = [("Docker-Content-Digest", digest) for digest in digests]
        return httpx.Response(200, content=answer.content, headers=headers)

    assert listing(ask(handler)).tags["v1"].digest == digest_of(image("one"))


@pytest.mark.parametrize("others", [1, 2])
def test_repeated_digest_counts_once(others: int) -> None:
    """One digest counts if its header is repeated, joined by a proxy, or followed by empty ones."""
    digest = digest_of(image("one"))
    for headers in (
        [("Docker-Content-Digest", digest)] * (1 + others),
        [("Docker-Content-Digest", ", ".join([digest] * (1 + others)))],
        [("Docker-Content-Digest", digest), *[("Docker-Content-Digest", "")] * others],
    ):
        fake = Fake({"v1": image("one")})
        path = f"/v2/{REPOSITORY}/manifests/v1"
        fake.overrides["HEAD", path] = httpx.Response(200, headers=headers)
        assert listing(ask(fake)).tags["v1"].digest == digest
        assert fake.asked("GET") == []


PAGES = [
    b"",
    b"<html><title>Sign in</title></html>",
    b'{"errors":[{"code":"UNKNOWN"}]}',
    b'{"kind":"Status","apiVersion":"v1","code":503}',
    b'{"mediaType":"application/json"}',
    b"{}",
    b"null",
    b'[{"schemaVersion":2}]',
    b'{"schemaVersion":2,"errors":[{"code":"UNKNOWN"}]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","errors":"x"}',
    b'{"schemaVersion":"2"}',
    b'{"schemaVersion":0}',
    b'{"schemaVersion":39,"panels":[]}',
    b'{"schemaVersion":2,"x":"\xff"}',
    b'{"schemaVersion":2,"x":' + b"[" * 100_000,
    image("one")[:-1],
]


@pytest.mark.parametrize("content_type", ["text/html", OCI_MANIFEST])
@pytest.mark.parametrize("body", PAGES)
def test_body_that_is_not_a_manifest_is_not_hashed(body: bytes, content_type: str) -> None:
    """A page in place of a manifest costs its tag, whatever the page's content type."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/v1"
    headers = {"Content-Type": content_type}
    fake.overrides["HEAD", path] = httpx.Response(200, headers=headers)
    fake.overrides["GET", path] = httpx.Response(200, content=body, headers=headers)
    found = listing(ask(fake))
    assert found.tags["v1"] == Tag("v1")
    assert "not a manifest" in found.failed["v1"]
    assert found.tags["v2"].digest == digest_of(image("two"))
    assert ask(fake, found.fingerprint).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    "body",
    [
        b'{"schemaVersion":2}',
        b'{"mediaType":"application/vnd.oci.image.index.v1+json"}',
        b' {"schemaVersion": 1, "fsLayers": []}\n',
    ],
)
def test_any_manifest_is_hashed(body: bytes) -> None:
    """A JSON object with a schema version, or with the media type of a manifest, is a manifest."""
    fake = Fake({"v1": body})
    fake.headers = {"Docker-Content-Digest": "", "Content-Type": "text/plain"}
    assert listing(ask(fake)).tags["v1"].digest == digest_of(body)


def test_digest_of_get_must_match_the_bytes() -> None:
    """A GET whose header states another digest than the bytes have does not count."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/v1"
    headers = {"Docker-Content-Digest": digest_of(b"another")}
    fake.overrides["HEAD", path] = httpx.Response(405)
    fake.overrides["GET", path] = httpx.Response(200, content=image("one"), headers=headers)
    assert "does not match its digest" in listing(ask(fake)).failed["v1"]


def test_sha512_of_get_is_kept() -> None:
    """A GET that states the manifest's SHA-512 keeps this digest."""
    digest = f"sha512:{hashlib.sha512(image('one')).hexdigest()}"
    fake = Fake({"v1": image("one")})
    fake.headers = {"Docker-Content-Digest": digest}
    fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/v1"] = httpx.Response(405)
    assert listing(ask(fake)).tags["v1"].digest == digest


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 410, 411, 415, 416, 422, 501])
def test_refused_head_is_confirmed_by_get(status: int) -> None:
    """If HEAD is refused or answered 404, the manifest is fetched and hashed."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    for tag in fake.tags:
        fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/{tag}"] = httpx.Response(status)
    found = listing(ask(fake))
    assert found.tags["v1"].digest == digest_of(image("one"))
    assert (found.missing, found.failed) == ((), {})
    assert isinstance(ask(fake, found.fingerprint), Unchanged)


def test_missing_manifest_is_confirmed_once() -> None:
    """A tag that stays 404 is requested by GET again only if the listing or the day changes."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    fake.refuse("broken", 404)
    known = listing(ask(fake)).fingerprint
    assert fake.asked("GET") == ["broken"]
    repeated = Scope(confirm_missing=False)
    assert isinstance(ask(fake, known, repeated), Unchanged)
    assert fake.asked("GET") == ["broken"]
    assert isinstance(ask(fake, known), Unchanged)
    assert fake.asked("GET") == ["broken"] * 2
    fake.tags["v1"] = image("one again")
    assert listing(ask(fake, known, repeated)).missing == ("broken",)
    assert fake.asked("GET") == ["broken"] * 3


@pytest.mark.parametrize("stated", ["none", "payload", "body"])
def test_signature_does_not_change_the_digest(stated: str) -> None:
    """The digest of a schema 1 manifest is that of its signed part, whatever its signature."""
    for signature in ("first", "second"):
        payload, body = signed("v1", signature)
        digest = {"none": "", "payload": digest_of(payload), "body": digest_of(body)}[stated]
        fake = Fake({"v1": body})
        fake.headers = {"Docker-Content-Digest": digest}
        fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/v1"] = httpx.Response(405)
        assert listing(ask(fake)).tags["v1"].digest == digest_of(payload)


@pytest.mark.parametrize("states_get", [False, True])
def test_digest_of_a_signed_manifest_by_head_does_not_count(states_get: bool) -> None:
    """A registry that signs a schema 1 manifest anew in each answer does not move its tag."""
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    for signature in ("first", "second"):
        payload, body = signed("v1", signature)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(body)}
        fake = Fake({"v1": body})
        path = f"/v2/{REPOSITORY}/manifests/v1"
        fake.overrides["HEAD", path] = httpx.Response(200, headers=headers)
        if not states_get:
            headers.pop("Docker-Content-Digest")
        fake.overrides["GET", path] = httpx.Response(200, headers=headers, content=body)
        assert listing(ask(fake)).tags["v1"].digest == digest_of(payload)


def test_digest_of_an_unreadable_schema_1_manifest_is_that_of_head() -> None:
    """If the body of a schema 1 manifest cannot be hashed, the digest that HEAD states counts."""
    fake = Fake({"v1": b"{}"})
    stated = digest_of(b"old")
    fake.headers = {
        "Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "Docker-Content-Digest": stated,
    }
    found = listing(ask(fake))
    assert (found.tags["v1"].digest, found.failed) == (stated, {})


def test_schema_1_manifest_is_stored_without_signature() -> None:
    """Of a schema 1 manifest, the bytes that hash to its digest are stored."""
    payload, body = signed("v1", "any")
    fake = Fake({"v1": body})
    fake.manifests = {digest_of(payload): body}
    fake.headers = {"Docker-Content-Digest": digest_of(payload)}
    kept = listing(ask(fake, scope=WITH_MANIFESTS)).images[digest_of(payload)]
    assert (kept.manifest, kept.verified, kept.schema) == (payload.decode(), True, 1)


@pytest.mark.parametrize("headers", [{}, {"Docker-Distribution-Api-Version": "registry/2.0"}])
def test_tag_without_manifest_is_missing(headers: dict[str, str]) -> None:
    """A listed tag whose manifest is 404 differs from a tag that is not listed."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/broken"
    fake.overrides["HEAD", path] = fake.overrides["GET", path] = httpx.Response(
        404, headers=headers
    )
    found = listing(ask(fake))
    assert found.missing == ("broken",)
    assert found.tags["broken"] == Tag("broken")
    assert found.tags["v1"].digest
    assert found.fingerprint


@pytest.mark.parametrize("status", [302, 401, 403, 409, 412, 451, 500, 503])
def test_odd_tag_costs_only_itself(status: int) -> None:
    """A tag whose manifest cannot be read is named, and the others are resolved."""
    fake = Fake({"v1": image("one"), "odd": image("two"), "v3": image("three")})
    fake.refuse("odd", status)
    found = listing(ask(fake))
    assert found.failed.keys() == {"odd"}
    assert found.tags["odd"] == Tag("odd")
    assert {found.tags["v1"].digest, found.tags["v3"].digest} == {
        digest_of(image("one")),
        digest_of(image("three")),
    }
    assert isinstance(ask(fake, found.fingerprint), Unchanged)
    assert found.fingerprint != listing(ask(Fake(fake.tags))).fingerprint


def test_odd_tag_is_read_again_alone() -> None:
    """If a second read asks only for the odd tag, the others still count as resolved."""
    fake = Fake({"v1": image("one"), "odd": image("two")})
    fake.refuse("odd", 500)
    found = listing(ask(fake, scope=Scope(seen={"v1": Tag("v1", digest_of(image("one")))})))
    assert found.failed.keys() == {"odd"}


def test_many_odd_tags_cost_only_themselves() -> None:
    """Many odd tags in a row do not fail the poll while another tag can be resolved."""
    fake = Fake({f"v{number:02d}": image(str(number)) for number in range(60)})
    for number in range(5, 45):
        fake.refuse(f"v{number:02d}", 500)
    found = listing(ask(fake))
    assert len(found.failed) == 40
    assert sum(tag.digest is not None for tag in found.tags.values()) == 20


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden), (429, Throttled), (500, Busy)]
)
def test_registry_that_resolves_nothing_fails_the_poll(
    status: int, error: type[RegistryError]
) -> None:
    """If no tag at all can be resolved, the registry fails, and few requests are sent."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(100)})
    for tag in fake.tags:
        fake.refuse(tag, status)
    with pytest.raises(error):
        ask(fake)
    assert len(fake.asked("HEAD")) <= 2 * ERRORS_IN_A_ROW + 10


def test_throttled_tag_fails_the_poll() -> None:
    """A registry that throttles fails the poll, even at a single tag."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    fake.refuse("v2", 429)
    with pytest.raises(Throttled):
        ask(fake)


@pytest.mark.parametrize("after", [3, 50])
def test_registry_that_stops_fails_the_poll(after: int) -> None:
    """A registry that stops in the middle of a listing fails the poll."""
    fake = Fake({f"v{number:02d}": image(str(number)) for number in range(60)})

    def handler(request: httpx.Request) -> httpx.Response:
        if len(fake.asked("HEAD")) > after:
            raise httpx.ConnectError("refused")
        return fake(request)

    with pytest.raises(Unreachable):
        ask(handler)


def test_tags_are_resolved_in_parallel() -> None:
    """After the first tag, as many are resolved at once as the concurrency allows."""
    together = Barrier(4, timeout=10)
    lock, under_way, most = Lock(), 0, 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        if request.method == "GET":
            return httpx.Response(200, json={"tags": [f"v{number}" for number in range(41)]})
        with lock:
            under_way += 1
            most = max(most, under_way)
        if not request.url.path.endswith("/v0"):
            together.wait()
        with lock:
            under_way -= 1
        return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})

    assert len(listing(ask(handler)).tags) == 41
    assert most == 4


def test_large_repository_does_not_block_others() -> None:
    """A small repository does not wait for all tags of a large one."""
    begun, small_is_listed, small_is_asked = Event(), Event(), Event()
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
            # A busy machine may need longer to read the small list than for all large tags.
            small_is_asked.wait(0.01)
            of_large += 1
            return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})
        small_is_asked.set()
        digest = digest_of(str(of_large).encode())
        return httpx.Response(200, headers={"Docker-Content-Digest": digest})

    with closing(registry_of(handler, concurrency=1)) as registry, ThreadPoolExecutor(1) as pool:
        large = pool.submit(registry.list_tags, "team/large")
        begun.wait(10)
        small = listing(registry.list_tags("team/small")).tags["v0"].digest
        assert len(listing(large.result()).tags) == 300
    assert small != digest_of(b"300")


WITH_MANIFESTS = Scope(manifests=True)


def test_only_new_manifests_are_fetched() -> None:
    """Each digest's manifest is fetched once, unless it is recorded."""
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


def test_index_is_fetched_with_its_children() -> None:
    """The manifests that an index references are fetched with it, each once."""
    amd, arm = image("amd64"), image("arm64")
    inner = index(arm)
    fake = Fake({"multi": index(amd, inner), "other": index(amd)})
    fake.manifests = {digest_of(each): each for each in (amd, arm, inner)}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.children.keys() == fake.manifests.keys()
    assert all(child.verified for child in found.children.values())
    assert found.images[digest_of(index(amd))].size is None
    assert found.tags.keys() == {"multi", "other"}


def test_recorded_children_are_not_fetched() -> None:
    """An index whose children are recorded costs one request."""
    amd = image("amd64")
    fake = Fake({"multi": index(amd)})
    scope = Scope(manifests=True, recorded=lambda digests: {digest_of(amd)} & {*digests})
    found = listing(ask(fake, scope=scope))
    assert fake.asked("GET") == [digest_of(index(amd))]
    assert found.fingerprint


def test_missing_child_is_skipped() -> None:
    """An index is fetched although the registry has only some of its platforms."""
    amd, arm = image("amd64"), image("arm64")
    fake = Fake({"multi": index(arm, amd)})
    fake.manifests = {digest_of(amd): amd}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.children.keys() == {digest_of(amd)}
    assert found.images[digest_of(index(arm, amd))].verified
    assert found.unfetched is None
    assert found.fingerprint


def test_depth_of_indexes_is_bounded() -> None:
    """A long chain of indexes is not followed to its end."""
    chain = [image("last")]
    for _ in range(DEPTH + 5):
        chain.append(index(chain[-1]))
    fake = Fake({"deep": chain[-1]})
    fake.manifests = {digest_of(each): each for each in chain}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert len(found.children) == DEPTH


@pytest.mark.parametrize("body", [b"<html>", image("another"), b"", b"\xff\xfe"])
def test_wrong_manifest_is_not_stored(body: bytes) -> None:
    """Bytes that do not hash to the digest are not stored, and fetched again."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('one'))}"
    fake.overrides["GET", path] = httpx.Response(200, content=body)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert found.unverified == ("v1",)
    assert found.images[digest_of(image("one"))].manifest is None
    assert found.images[digest_of(image("two"))].verified
    assert found.fingerprint is None
    assert found.unfetched


def test_too_large_manifest_is_not_stored() -> None:
    """A manifest that is too large is not stored; others are."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('one'))}"
    body = b"x" * (MAX_MANIFEST_BYTES + 1)
    fake.overrides["GET", path] = httpx.Response(200, content=body)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert "4194304 bytes that a manifest may have" in (found.unfetched or "")
    assert found.images[digest_of(image("two"))].verified


@pytest.mark.parametrize("status", [429, 500])
def test_failed_child_is_fetched_later(status: int) -> None:
    """If a child cannot be fetched, its index is fetched again at the next poll."""
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


def test_transient_error_stops_fetching() -> None:
    """After a transient error, the other manifests are left for the next poll."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(100)})
    for content in fake.tags.values():
        path = f"/v2/{REPOSITORY}/manifests/{digest_of(content)}"
        fake.overrides["GET", path] = httpx.Response(429)
    assert listing(ask(fake, scope=WITH_MANIFESTS)).unfetched
    assert len(fake.asked("GET")) <= 4


def test_odd_manifest_does_not_stop_fetching() -> None:
    """A manifest that can never be fetched costs only itself."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(100)})
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('0'))}"
    fake.overrides["GET", path] = httpx.Response(500)
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert "500" in (found.unfetched or "")
    assert sum(each.manifest is not None for each in found.images.values()) == 99


def test_registry_that_fails_is_not_asked_for_all_manifests() -> None:
    """If no manifest can be fetched, few requests are sent."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(100)})
    for content in fake.tags.values():
        path = f"/v2/{REPOSITORY}/manifests/{digest_of(content)}"
        fake.overrides["GET", path] = httpx.Response(500)
    assert listing(ask(fake, scope=WITH_MANIFESTS)).unfetched
    assert len(fake.asked("GET")) <= ERRORS_IN_A_ROW + 4


def test_rate_limit_of_manifests_is_respected() -> None:
    """With no pulls left, tags are resolved but no manifest is fetched."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(20)})
    fake.headers = {"RateLimit-Remaining": "0;w=21600", "RateLimit-Limit": "100;w=21600"}
    found = listing(ask(fake, scope=WITH_MANIFESTS))
    assert len(found.tags) == 20
    assert fake.asked("GET") == []
    assert "rate limit" in (found.unfetched or "")
    fake.headers = {"RateLimit-Remaining": "50;w=21600"}
    assert listing(ask(fake, scope=WITH_MANIFESTS)).unfetched is None


def test_manifests_count_towards_the_size_limit() -> None:
    """Manifests beyond max_listing_size are left for the next polls."""
    fake = Fake({f"v{number}": image(str(number)) for number in range(40)})
    recorded: set[str] = set()
    scope = Scope(manifests=True, recorded=lambda digests: recorded & {*digests})
    polls = 0
    while True:
        polls += 1
        found = listing(ask(fake, scope=scope, bound=5000))
        # Requests that are under way at the same time may exceed the limit.
        assert found.size <= 5000 + 4 * len(image("0"))
        fetched = {digest for digest, each in found.images.items() if each.manifest}
        assert fetched
        recorded |= fetched
        if found.fingerprint:
            break
    assert len(recorded) == 40
    assert polls > 1


def test_repositories_whose_manifests_hang_do_not_keep_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More of them hang than there are threads; another repository is listed meanwhile."""
    monkeypatch.setattr(Client, "patience", 0.02)
    gate = Event()

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"tags": ["v1", "v2", "v3"]})
        if "/bad" in request.url.path:
            with waiting():
                assert gate.wait(10)
        return httpx.Response(200, headers={"Docker-Content-Digest": digest_of(b"")})

    bad = [f"team/bad{number}" for number in range(20)]
    with closing(registry_of(handler)) as registry, ThreadPoolExecutor(21) as pool:
        hanging = [pool.submit(registry.list_tags, name) for name in bad]
        try:
            good = pool.submit(registry.list_tags, REPOSITORY).result(8)
            assert not any(each.done() for each in hanging)
        finally:
            gate.set()
        assert len(listing(good).tags) == 3
