"""The lists of a real zot and of a real GitLab registry, if variables name their programs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from tagsync.errors import Forbidden
from tagsync.registries.credentials import BasicCredential
from tagsync.registries.oci.lists.vendor import NO_LIST
from tagsync.secrets import Secret
from tests.support.docker_registry import OCI_INDEX, OCI_MANIFEST
from tests.support.list_registries import LoggedRegistry, running_gitlab, running_zot
from tests.support.lists import REPOSITORY, Open, digests
from tests.support.real_registries import HTPASSWD, PASSWORD, USER
from tests.support.token_service import PushTokens, TokenService, make_authority

pytestmark = pytest.mark.processes

LOGIN: Final = BasicCredential(USER, Secret(PASSWORD))
OTHER: Final = "other/api"


def fill(server: LoggedRegistry, tags: int, repository: str = REPOSITORY) -> None:
    """Push this number of tags: an index, its two images, a signature, and further tags."""
    server.push_index(repository, "index", {"amd64": "one", "arm64": "two"})
    image = server.manifest(repository, "index-amd64")
    for number in range(tags - 4):
        server.put(repository, f"v{number:05}", image, OCI_MANIFEST)
    server.put(repository, f"sha256-{'a' * 64}.sig", image, OCI_MANIFEST)


def change(server: LoggedRegistry) -> None:
    """Move a tag, delete one, and push one."""
    server.put(REPOSITORY, "v00001", server.manifest(REPOSITORY, "index"), OCI_INDEX)
    server.delete(REPOSITORY, "v00002")
    server.push(REPOSITORY, "new", "new")


def kinds(requests: Sequence[str]) -> list[str]:
    """Return the paths of all requests but those for manifests, without their queries."""
    return [each.split()[1].partition("?")[0] for each in requests if "/manifests/" not in each]


def test_zot_has_the_digests_of_head(listed: Open, tmp_path: Path) -> None:
    """An idle poll costs the list, the names and a sample, and changes are recorded at once."""
    with running_zot(tmp_path) as server:
        fill(server, 100)
        childless = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        server.put(REPOSITORY, "childless", json.dumps(childless).encode(), OCI_INDEX)
        registry = listed(server)
        first, again = registry.poll(), registry.poll()
        assert digests(first) == digests(again) == server.tags(REPOSITORY)
        server.clear_requests()
        assert registry.poll().source == "zot"
        assert kinds(server.requests) == ["/v2/_zot/ext/search", f"/v2/{REPOSITORY}/tags/list"]
        assert registry.requests < 20
        polls = [registry.poll() for _ in range(20)]
        use = registry.oci.list_use(REPOSITORY)
        assert use.source == polls[0].source == "zot"
        mean = sum(each.requests for each in polls) / len(polls)
        assert use.idle_requests <= mean < use.idle_requests + 3
        change(server)
        assert digests(registry.poll()) == server.tags(REPOSITORY)


def test_zot_whose_storage_another_process_changed(listed: Open, tmp_path: Path) -> None:
    """The list of zot stays as it was, which the sample finds, and the record gets the truth."""
    with running_zot(tmp_path) as server:
        fill(server, 30)
        registry = listed(server)
        registry.poll()
        move_in_storage(tmp_path / "data" / REPOSITORY / "index.json", "v00003", "index")
        true = server.tags(REPOSITORY)
        assert true["v00003"] == true["index"]
        polls = [registry.poll() for _ in range(21)]
        assert digests(polls[19]) == true
        assert polls[20].distrust is not None
        assert polls[20].distrust.tag == "v00003"


def move_in_storage(path: Path, tag: str, to: str) -> None:
    """Move a tag to the image of another one in the index of an OCI layout."""
    index = json.loads(path.read_text())
    name = "org.opencontainers.image.ref.name"
    by_tag = {each["annotations"][name]: each for each in index["manifests"] if tag_of(each)}
    moved = {**by_tag[to], "annotations": {name: tag}}
    index["manifests"] = [moved if tag_of(each) == tag else each for each in index["manifests"]]
    aside = path.with_name("aside.json")
    aside.write_text(json.dumps(index))
    shutil.move(aside, path)


def tag_of(descriptor: dict[str, dict[str, str]]) -> str | None:
    """Return the tag of a descriptor of an OCI layout, if it has one."""
    return descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name")


def test_zot_with_passwords(listed: Open, tmp_path: Path) -> None:
    """The user's login reads the list; a repository that it may not read is no empty one."""
    (tmp_path / "htpasswd").write_text(f"{HTPASSWD}\n{HTPASSWD.replace(USER, 'writer')}\n")
    everything = ["read", "create", "update", "delete"]
    writer = {"users": ["writer"], "actions": everything}
    reader = {"users": [USER], "actions": ["read"]}
    policies = {"**": {"policies": [writer]}, REPOSITORY: {"policies": [writer, reader]}}
    access = {
        "auth": {"htpasswd": {"path": str(tmp_path / "htpasswd")}},
        "accessControl": {"repositories": policies},
    }
    with running_zot(tmp_path, access=access, auth=sign_in_as_writer) as server:
        fill(server, 20)
        fill(server, 10, OTHER)
        registry = listed(server, credential=LOGIN)
        assert digests(registry.poll()) == server.tags(REPOSITORY)
        assert registry.poll().source == "zot"
        with pytest.raises(Forbidden):
            registry.poll(OTHER)


def sign_in_as_writer(request: httpx.Request) -> httpx.Request:
    """Add the user that may push."""
    return next(httpx.BasicAuth("writer", PASSWORD).auth_flow(request))


def test_gitlab_has_the_digests_of_head(listed: Open, tmp_path: Path) -> None:
    """A poll costs the pages of the list and a sample, and changes are recorded at once."""
    with running_gitlab(tmp_path) as server:
        fill(server, 60)
        registry = listed(server)
        first = registry.poll()
        assert (digests(first), first.source) == (server.tags(REPOSITORY), "gitlab")
        server.clear_requests()
        assert registry.poll().source == "gitlab"
        assert kinds(server.requests) == [f"/gitlab/v1/repositories/{REPOSITORY}/tags/list/"]
        assert registry.requests == 4
        change(server)
        assert digests(registry.poll()) == server.tags(REPOSITORY)


def test_gitlab_with_tokens(listed: Open, tmp_path: Path) -> None:
    """The token for pulling, which the challenge leads to, reads the list, too."""
    authority = make_authority(tmp_path)
    with TokenService(authority, USER, PASSWORD).serving() as tokens:
        access = tokens.access()
        access["token"]["realm"] = tokens.url.replace("/token", "/jwt/auth")
        with running_gitlab(tmp_path, access=access, auth=PushTokens(tokens)) as server:
            fill(server, 20)
            registry = listed(server, credential=LOGIN, ca_file=authority.ca)
            listing = registry.poll()
            assert (digests(listing), listing.source) == (server.tags(REPOSITORY), "gitlab")
            assert tokens.requested == [(USER, f"repository:{REPOSITORY}:pull")]


def test_gitlab_without_metadata_database_has_no_list(listed: Open, tmp_path: Path) -> None:
    """The base path of the list answers 404, and all tags are resolved by HEAD."""
    with running_gitlab(tmp_path, has_database=False) as server:
        server.push(REPOSITORY, "one", "one")
        registry = listed(server)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (server.tags(REPOSITORY), "head")
        assert registry.lists.why_unused(REPOSITORY) == NO_LIST
