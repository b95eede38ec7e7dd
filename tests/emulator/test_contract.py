"""Test what both kinds of registries must do, with the emulator and a real one."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import NotFound
from tagsync.models import Listing, Repository, Unchanged
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry, RegistryKind, open_registry
from tagsync.registries.credentials import NoCredential
from tests.support import docker_registry
from tests.support.record import assert_history_is_whole

Query = Callable[..., list[tuple[Any, ...]]]


class Server(Protocol):
    """A registry on loopback of either kind."""

    @property
    def url(self) -> str: ...

    def push(self, repository: str, tag: str, content: str) -> str: ...


@pytest.fixture(scope="module", params=["swr", "oci"])
def kind(request: pytest.FixtureRequest) -> RegistryKind:
    kind: RegistryKind = request.param
    if kind == "oci":
        docker_registry.require("docker-registry")
    return kind


@pytest.fixture(scope="module")
def server(kind: RegistryKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if kind == "swr":
        with Emulator() as emulator:
            yield emulator
        return
    with docker_registry.running(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(kind: RegistryKind, server: Server) -> Iterator[Registry]:
    opened = open_registry(
        server.url,
        NoCredential(),
        timeout=10,
        retry_for=5,
        max_listing_bytes=2**26,
        requests_per_second=10_000,
        connections=4,
        kind=kind,
    )
    yield opened
    opened.close()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository for one test, in the server that the module's tests share."""
    test: str = request.node.originalname
    return "team/" + test.removeprefix("test_").replace("_", "-")


@pytest.fixture
def job(registry: Registry, repository: str, kind: RegistryKind) -> Job:
    return Job(Repository(kind, repository), registry, timedelta(minutes=5), manifests=True)


def delete(server: Server, repository: str, tag: str, digest: str) -> None:
    if isinstance(server, docker_registry.DockerRegistry):
        server.delete(repository, digest)
    elif isinstance(server, Emulator):
        server.delete(repository, tag)


def digests(answer: Listing | Unchanged) -> dict[str, str | None]:
    assert isinstance(answer, Listing)
    return {name: tag.digest for name, tag in answer.tags.items()}


def test_listing_has_every_tag(server: Server, registry: Registry, repository: str) -> None:
    """A listing has the digest of each tag and the image of each digest, once."""
    pushed = {tag: server.push(repository, tag, tag) for tag in ("v1", "v2")}
    pushed["latest"] = server.push(repository, "latest", "v2")
    listing = registry.list_tags(repository)
    assert digests(listing) == pushed
    assert isinstance(listing, Listing)
    assert listing.images.keys() == set(pushed.values())
    assert listing.exists
    assert listing.started_at <= listing.finished_at
    assert listing.requests >= 1
    assert listing.size > 0


def test_unchanged_listing_is_detected(server: Server, registry: Registry, repository: str) -> None:
    """A listing is unchanged until a tag is added, moved or deleted."""
    server.push(repository, "v1", "one")
    gone = server.push(repository, "v2", "two")

    def changed(known: str | None) -> str | None:
        answer = registry.list_tags(repository, known)
        if isinstance(answer, Listing):
            return answer.fingerprint
        assert answer.fingerprint == known
        return None

    known = changed(None)
    assert known
    assert changed(known) is None
    for step in (
        lambda: server.push(repository, "v3", "three"),
        lambda: server.push(repository, "v1", "another"),
        lambda: delete(server, repository, "v2", gone),
    ):
        step()
        known = changed(known)
        assert known
        assert changed(known) is None


def test_missing_repository_is_not_found(registry: Registry, repository: str) -> None:
    """A missing repository raises `NotFound`, which names it."""
    with pytest.raises(NotFound) as caught:
        registry.list_tags(repository)
    assert caught.value.status == 404
    assert repository.partition("/")[2] in str(caught.value)


def test_discovery(server: Server, registry: Registry, repository: str) -> None:
    """A glob finds exactly the repositories that match it, and a star matches slashes."""
    for name in ("a", "b/c"):
        server.push(f"{repository}/{name}", "v1", name)
    both = {f"{repository}/a", f"{repository}/b/c"}
    assert registry.list_repositories([f"{repository}/*"]) == both
    assert registry.list_repositories([f"{repository}/a*"]) == {f"{repository}/a"}
    assert registry.list_repositories(["nowhere/*"]) == set()
    assert registry.list_repositories([]) == set()


def test_mirror_and_history(
    server: Server, job: Job, repository: str, store: Store, query: Query, database: Path
) -> None:
    """The history has pushes, moves and deletions, and the mirror has their result."""
    server.push(repository, "v1", "one")
    server.push(repository, "latest", "one more")
    gone = server.push(repository, "v0", "zero")
    assert poll(job, store).added == 3
    server.push(repository, "v2", "two")
    moved = server.push(repository, "latest", "two")
    delete(server, repository, "v0", gone)
    result = poll(job, store)
    assert (result.outcome, result.added, result.updated, result.deleted) == ("ok", 1, 1, 1)
    assert query("SELECT tag, kind, moved FROM change_log WHERE id > 3 ORDER BY tag") == [
        ("latest", "updated", 1),
        ("v0", "deleted", 0),
        ("v2", "added", 0),
    ]
    assert query("SELECT digest FROM tags WHERE tag = 'latest'") == [(moved,)]
    assert query("SELECT count(*) FROM images WHERE verified IS NOT 1") == [(0,)]
    layers = "SELECT count(DISTINCT tag) FROM tags JOIN image_layers USING (digest)"
    assert query(layers) == [(3,)]
    result = poll(job, store)
    assert (result.outcome, result.added + result.updated + result.deleted) == ("ok", 0)
    assert_history_is_whole(database)


def test_deletion_of_the_last_tag_is_held(
    server: Server, job: Job, repository: str, store: Store, query: Query
) -> None:
    """A listing without any tag is held until the next one agrees."""
    digest = server.push(repository, "v1", "one")
    poll(job, store)
    delete(server, repository, "v1", digest)
    assert [poll(job, store).outcome for _ in range(2)] == ["held", "ok"]
    assert query("SELECT count(*) FROM tags") == [(0,)]
