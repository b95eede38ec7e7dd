"""Digests and manifests: what is requested, and what a registry may answer."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event, Lock

import httpx
import pytest

from tagsync.errors import (
    Forbidden,
    MalformedResponse,
)
from tagsync.models import Scope, Tag
from tagsync.registries.client import Client
from tagsync.registries.deadline import waiting
from tagsync.registries.oci.resolve import DEPTH, MAX_MANIFEST_BYTES
from tests.support.docker_registry import digest_of
from tests.support.oci import (
    REPOSITORY,
    Fake,
    ask,
    image,
    index,
    listing,
    registry_of,
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
    "digest",
    ["latest", "sha256:abc", f"md5:{'0' * 32}", f"sha256:{'A' * 64}", f"sha256:{'0' * 64}, x"],
)
def test_invalid_digest_fails_the_poll(digest: str) -> None:
    """An invalid digest fails the poll and is not recorded."""
    fake = Fake({"v1": image("one")})
    fake.headers = {"Docker-Content-Digest": digest}
    with pytest.raises(MalformedResponse, match="invalid digest"):
        ask(fake)


@pytest.mark.parametrize("headers", [{}, {"Docker-Distribution-Api-Version": "registry/2.0"}])
def test_tag_without_manifest_is_missing(headers: dict[str, str]) -> None:
    """A listed tag whose manifest is 404 differs from a tag that is not listed."""
    fake = Fake({"v1": image("one"), "broken": image("two")})
    path = f"/v2/{REPOSITORY}/manifests/broken"
    fake.overrides["HEAD", path] = httpx.Response(404, headers=headers)
    found = listing(ask(fake))
    assert found.missing == ("broken",)
    assert found.tags["broken"] == Tag("broken")
    assert found.tags["v1"].digest
    assert found.fingerprint


def test_other_refusals_fail_the_poll() -> None:
    """Any other refusal of a tag fails the poll: the listing is incomplete."""
    fake = Fake({"v1": image("one"), "v2": image("two")})
    fake.overrides["HEAD", f"/v2/{REPOSITORY}/manifests/v2"] = httpx.Response(403)
    with pytest.raises(Forbidden):
        ask(fake)


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
