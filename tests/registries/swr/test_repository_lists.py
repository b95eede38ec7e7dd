"""SWR's lists of repositories: requests for a glob, and repositories found."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tagsync.emulator import Emulator, Keys
from tagsync.errors import Forbidden
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import KeyCredential
from tagsync.secrets import Secret
from tests.support.emulated import NAMESPACES, REPOS, SHARED, create, requested_lists

ACCESS_KEY = "MADEUPACCESSKEY00001"
SECRET_KEY = "MadeUpSecretKey0000000000000000000000001"

Connect = Callable[..., Registry]


def test_repositories_are_found_on_all_pages() -> None:
    """Small pages, with or without a total, hide no repository."""
    for settings in ({}, {"sends_total": False}, {"ignores_paging": True}):
        keys = {ACCESS_KEY: Keys(SECRET_KEY)}
        with Emulator(keys=keys, max_page=7, **settings) as swr:  # type: ignore[arg-type]  # switches
            repositories = {f"team/r{number:02}" for number in range(45)}
            create(swr, *repositories)
            credential = KeyCredential(Secret(ACCESS_KEY), Secret(SECRET_KEY))
            registry = open_registry(
                swr.url,
                credential,
                timeout=5,
                retry_for=1,
                max_listing_bytes=2**20,
                requests_per_second=10_000,
                connections=1,
            )
            with closing(registry):
                assert registry.list_repositories(["team/*"]) == repositories


def test_glob_over_an_organization_requests_its_list_only(swr: Emulator, connect: Connect) -> None:
    """A glob that begins with an organization requests the list of that one only."""
    create(swr, "team/api", "team-b/api", "tools/lint")
    assert connect(swr.url).list_repositories(["team/*"]) == {"team/api"}
    assert requested_lists(swr) == [(REPOS, "team")]


def test_glob_prefix_narrows_the_organizations(swr: Emulator, connect: Connect) -> None:
    """Only organizations that match the beginning of the glob are requested."""
    create(swr, "team-a/api", "team-b/api", "team-b/web", "team/api", "tools/api")
    found = connect(swr.url).list_repositories(["team-*/api"])
    assert found == {"team-a/api", "team-b/api"}
    assert requested_lists(swr) == [(NAMESPACES, None), (REPOS, "team-a"), (REPOS, "team-b")]


def test_each_organization_is_requested_once(swr: Emulator, connect: Connect) -> None:
    """Several globs over one organization share its list."""
    create(swr, "team/api", "team/web", "tools/lint")
    found = connect(swr.url).list_repositories(["team/a*", "team/w?b", "t*/lint"])
    assert found == {"team/api", "team/web", "tools/lint"}
    assert requested_lists(swr) == [(NAMESPACES, None), (REPOS, "team"), (REPOS, "tools")]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("team/*", {"team/api", "team/a/b/c"}),
        ("*", {"team/api", "team/a/b/c", "tools/c"}),
        ("*/c", {"team/a/b/c", "tools/c"}),
        ("t*c", {"team/a/b/c", "tools/c"}),
        ("team/a/*", {"team/a/b/c"}),
        ("team/[ab]/*", {"team/a/b/c"}),
        ("team/???", {"team/api"}),
        ("[tm]ools/*", {"tools/c"}),
        ("missing/*", set()),
        ("TEAM/*", set()),
    ],
)
def test_star_crosses_slashes(glob: str, found: set[str], swr: Emulator, connect: Connect) -> None:
    """A glob matches the whole name, and a star matches slashes."""
    create(swr, "team/api", "team/a/b/c", "tools/c")
    assert connect(swr.url).list_repositories([glob]) == found


def test_impossible_names_are_ignored_and_logged(
    swr: Emulator, connect: Connect, logged: list[dict[str, Any]]
) -> None:
    """A name that cannot be part of a path is left out; the other repositories are found."""
    create(swr, "team/api")
    rows = [{"namespace": "team", "name": name} for name in ("api", "a$b", "..", "", "web")]
    swr.answer_next(200, rows, {"Content-Range": "0-5/5"}, matching="namespace=team")
    assert connect(swr.url).list_repositories(["team/*"]) == {"team/api", "team/web"}
    (line,) = [entry for entry in logged if entry["log_level"] == "warning"]
    assert (line["event"], line["names"]) == ("discovery.skipped", ["team/", "team/..", "team/a$b"])


def test_refused_organization_fails_discovery(swr: Emulator, connect: Connect) -> None:
    """If one organization is refused, discovery fails instead of being incomplete."""
    create(swr, "team/api", "tools/lint")
    swr.answer_next(403, b"", matching="namespace=tools")
    with pytest.raises(Forbidden):
        connect(swr.url).list_repositories(["*"])


def test_shared_repositories_are_found_on_request(swr: Emulator, connect: Connect) -> None:
    """Shared repositories are requested only with ``shared``."""
    create(swr, "team/api")
    swr.create_repository("others/base", shared=True)
    swr.create_repository("others/tool", shared=True)
    registry = connect(swr.url)
    assert registry.list_repositories(["*/base", "team/*"]) == {"team/api"}
    assert SHARED not in {path for path, _ in requested_lists(swr)}
    found = registry.list_repositories(["*/base", "team/*"], shared=True)
    assert found == {"team/api", "others/base"}
    assert SHARED in {path for path, _ in requested_lists(swr)}
