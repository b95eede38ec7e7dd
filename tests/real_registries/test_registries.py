"""Each real registry, with each access control: tagsync reads exactly what is there."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tagsync.database.store import Store
from tagsync.models import Listing, Repository, Scope
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.docker_registry import require
from tests.support.polls import counts
from tests.support.real_registries import CRANE, Access, Server, ways
from tests.support.record import assert_history_is_whole
from tests.support.skopeo import Layout, skopeo, skopeo_tags

require("skopeo", "openssl")

Query = Callable[..., list[tuple[Any, ...]]]

LARGE: Final = 2500
"""More tags than two pages of tagsync have names."""

CATALOGUE: Final = 1200
"""More repositories than one page has names."""

NO_LINK: Final = pytest.mark.xfail(
    strict=True, reason="a full page without Link is taken for the whole list"
)

DELETIONS: Final = "SELECT tag, old_digest FROM changes WHERE kind = 'deleted' ORDER BY tag"
MIRROR: Final = "SELECT tag, digest FROM tags"


@pytest.mark.processes
class TestRegistry:
    """A registry with an access control, which the tests fill in different repositories."""

    @pytest.fixture
    def repository(self, request: pytest.FixtureRequest) -> str:
        """A repository for one test."""
        test: str = request.node.originalname
        return "team/" + test.removeprefix("test_").replace("_", "-")

    @pytest.fixture
    def job(self, registry: Registry, repository: str) -> Job:
        return Job(Repository("reg", repository), registry, timedelta(minutes=5), manifests=True)

    @ways(lambda way: way[1] is Access.OPEN)
    def test_skopeo_and_tagsync_agree(
        self,
        server: Server,
        repository: str,
        job: Job,
        tmp_path: Path,
        store: Store,
        query: Query,
        database: Path,
    ) -> None:
        """After pushes, moves and a deletion, tagsync and skopeo see the same tags."""
        layout = Layout(tmp_path / "layout")
        reference = f"{server.registry.host}/{repository}"
        one, multi = layout.add("one", "one"), layout.add("multi", "amd", "arm")

        def agreed() -> dict[str, str]:
            """Poll, and return the tags that both see."""
            assert poll(job, store).outcome == "ok"
            there = skopeo_tags(server.registry, repository)
            assert dict(query("SELECT tag, digest FROM tags")) == there
            return there

        layout.copy("one", f"{reference}:v1")
        layout.copy("one", f"{reference}:latest")
        layout.copy("multi", f"{reference}:multi")
        assert agreed() == {"v1": one, "latest": one, "multi": multi}
        layout.copy("multi", f"{reference}:latest")
        layout.copy("one", f"{reference}:v1.0")
        layout.copy("multi", f"{reference}:v2")
        assert agreed()["latest"] == multi
        skopeo("delete", "--tls-verify=false", f"docker://{reference}:v1.0")  # by its digest
        kept = {} if server.implementation.deletes_tags_of_digest else {"v1": one, "v1.0": one}
        assert agreed() == {"latest": multi, "multi": multi, "v2": multi, **kept}
        assert query("SELECT tag, kind, moved FROM change_log WHERE id > 3 ORDER BY id") == [
            ("latest", "updated", 1),
            ("v1.0", "added", 0),
            ("v2", "added", 0),
            *((tag, "deleted", 0) for tag in ("v1", "v1.0") if tag not in kept),
        ]
        raw = ("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
        for digest, manifest in query("SELECT digest, manifest FROM images WHERE digest <> ?", one):
            assert skopeo(*raw[:-1], f"{raw[-1]}@{digest}") == manifest.encode()
        assert query("SELECT platform FROM image_platforms ORDER BY platform") == [
            ("linux/amd64",),
            ("linux/arm64",),
        ]
        assert query("SELECT count(*), sum(verified) FROM images") == [(4, 4)]
        assert_history_is_whole(database)

    @ways(lambda _: True, NO_LINK)
    def test_large_repository_costs_one_head_per_wanted_tag(
        self, server: Server, registry: Registry, repository: str
    ) -> None:
        """2,500 tags are listed completely, with one HEAD request per wanted tag."""
        pushed = fill(server, repository, LARGE)
        listing = registry.list_tags(repository)
        assert isinstance(listing, Listing)
        assert {name: tag.digest for name, tag in listing.tags.items()} == pushed
        # A request to a token service is not one of the listing's.
        assert listing.requests - listing.pages == LARGE
        few = registry.list_tags(repository, scope=Scope(("even", "v199*")))
        assert isinstance(few, Listing)
        assert few.requests - few.pages == 1 + 11
        assert few.tags.keys() == pushed.keys()
        if server.access is Access.OPEN:
            reference = f"docker://{server.registry.host}/{repository}"
            listed = json.loads(skopeo("list-tags", "--tls-verify=false", reference))["Tags"]
            assert set(listed) == listing.tags.keys()

    @ways(lambda way: way[0] is CRANE)
    @pytest.mark.parametrize(
        "size", [999, 1000, pytest.param(1001, marks=NO_LINK), pytest.param(2000, marks=NO_LINK)]
    )
    def test_full_pages_without_link(
        self, size: int, server: Server, registry: Registry, repository: str
    ) -> None:
        """A full page without a link to the next one is not taken for the whole list."""
        repository = f"{repository}-{size}"
        pushed = fill(server, repository, size)
        listing = registry.list_tags(repository, scope=Scope(("even",)))
        assert isinstance(listing, Listing)
        assert listing.tags.keys() == pushed.keys()

    @ways(lambda _: True, NO_LINK)
    def test_catalogue_is_read_to_its_end(
        self, server: Server, registry: Registry, repository: str
    ) -> None:
        """A glob over 1,200 repositories finds all of them."""
        server.registry.push(repository, "v1", "one")
        copies = {f"copies/{number}" for number in range(CATALOGUE)}
        for copy in copies:
            server.registry.copy(repository, copy)
        assert registry.list_repositories(["copies/*"]) == copies
        assert repository in registry.list_repositories(["*"])

    @ways(lambda way: way[0].deletes_tags)
    def test_tag_deleted_by_name_is_recorded(
        self, server: Server, repository: str, job: Job, store: Store, query: Query
    ) -> None:
        """A tag that is deleted by its name is deleted, and the others of its image stay."""
        one = server.registry.push(repository, "v1", "one")
        for tag in ("v2", "v3"):
            server.registry.tag(repository, tag, one)
        assert counts(poll(job, store)) == ("ok", 3, 0, 0)
        server.registry.delete(repository, "v2")
        assert counts(poll(job, store)) == ("ok", 0, 0, 1)
        assert query(DELETIONS) == [("v2", one)]
        assert dict(query(MIRROR)) == server.registry.tags(repository) == {"v1": one, "v3": one}

    def test_deletion_by_digest_is_recorded(
        self, server: Server, repository: str, job: Job, store: Store, query: Query
    ) -> None:
        """A deleted manifest takes its tags with it, unless the registry keeps them."""
        one = server.registry.push(repository, "v1", "one")
        server.registry.tag(repository, "v1.0", one)
        two = {
            f"v2.{number}": server.registry.push(repository, f"v2.{number}", "two")
            for number in range(2)
        }
        assert counts(poll(job, store)) == ("ok", 4, 0, 0)
        server.registry.delete(repository, one)
        deleted = (
            [("v1", one), ("v1.0", one)] if server.implementation.deletes_tags_of_digest else []
        )
        assert counts(poll(job, store)) == ("ok", 0, 0, len(deleted))
        assert query(DELETIONS) == deleted
        kept = {} if deleted else {"v1": one, "v1.0": one}
        assert dict(query(MIRROR)) == server.registry.tags(repository) == {**two, **kept}

    def test_emptied_repository_is_held_first(
        self, server: Server, repository: str, job: Job, store: Store, query: Query
    ) -> None:
        """A repository whose last tag was deleted is held first, and then empty."""
        one = server.registry.push(repository, "v1", "one")
        assert counts(poll(job, store)) == ("ok", 1, 0, 0)
        by_name = server.implementation.deletes_tags
        server.registry.delete(repository, "v1" if by_name else one)
        assert counts(poll(job, store)) == ("held", 0, 0, 0)
        assert counts(poll(job, store)) == ("ok", 0, 0, 1)
        assert query(DELETIONS) == [("v1", one)]


def fill(server: Server, repository: str, size: int) -> dict[str, str]:
    """Give a repository this many tags, of two images; return the digest of each."""
    tags = {word: server.registry.push(repository, word, word) for word in ("even", "odd")}
    for number in range(size - 2):
        digest = tags["odd" if number % 2 else "even"]
        server.registry.tag(repository, f"v{number}", digest)
        tags[f"v{number}"] = digest
    return tags
