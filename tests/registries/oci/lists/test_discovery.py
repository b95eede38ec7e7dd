"""Lists of repositories of a registry's own API, and the catalogue if there is none."""

from collections.abc import Sequence
from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import GitLab, OciEmulator
from tests.support.lists import Open, fill
from tests.support.plain_list import REPOSITORIES, Plain, PlainList

NAMES = ["team/api", "team/web", "other/x"]


def paths(emulator: OciEmulator) -> list[str]:
    """Return the paths of the requests, without the search for a list."""
    return [request.path for request in emulator.requests if request.path != "/v2/"]


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["team/*"], {"team/api", "team/web"}),
        (["*/x", "team/w*"], {"other/x", "team/web"}),
        (["none/*"], set()),
    ],
)
def test_own_list_finds_repositories_without_a_catalogue(
    listed: Open, globs: Sequence[str], found: set[str]
) -> None:
    """The registry's list of repositories is filtered by the globs, and the catalogue not read."""
    with OciEmulator(Plain(repositories=NAMES)) as emulator:
        registry = listed(emulator, lists=[PlainList])
        assert registry.oci.list_repositories(globs) == found
        assert paths(emulator) == [REPOSITORIES]


def test_list_of_repositories_that_is_refused_gives_way_to_the_catalogue(
    listed: Open, logged: list[dict[str, Any]]
) -> None:
    """A list of repositories that cannot be read leads to the catalogue, with a log line."""
    with OciEmulator(Plain()) as emulator:
        fill(emulator, 1, "team/api")
        registry = listed(emulator, lists=[PlainList])
        assert registry.oci.list_repositories(["team/*"]) == {"team/api"}
        assert paths(emulator) == [REPOSITORIES, "/v2/_catalog"]
    (entry,) = [each for each in logged if each["event"] == "list.unused"]
    assert (entry["registry"], entry["list"]) == ("reg", "plain")
    assert "403" in entry["reason"]
    assert "repository" not in entry


def test_list_of_repositories_that_is_refused_is_logged_once(
    listed: Open, logged: list[dict[str, Any]]
) -> None:
    """A refused list is asked for in each discovery, and logged once for its globs until read."""
    vendor = Plain()
    with OciEmulator(vendor) as emulator:
        fill(emulator, 1, "team/api")
        registry = listed(emulator, lists=[PlainList])

        def lines() -> int:
            return [each["event"] for each in logged].count("list.unused")

        for _ in range(3):
            assert registry.oci.list_repositories(["team/*"]) == {"team/api"}
        assert (paths(emulator).count(REPOSITORIES), lines()) == (3, 1)
        registry.oci.list_repositories(["other/*"])
        assert lines() == 2
        vendor.repositories = ["team/web"]
        assert registry.oci.list_repositories(["team/*"]) == {"team/web"}
        vendor.repositories = None
        registry.oci.list_repositories(["team/*"])
        assert lines() == 3


def test_list_of_tags_alone_leaves_the_catalogue(listed: Open) -> None:
    """A registry whose API has no list of repositories is discovered by its catalogue."""
    with OciEmulator(GitLab()) as emulator:
        fill(emulator, 1, "team/api")
        assert listed(emulator).oci.list_repositories(["*"]) == {"team/api"}
        assert paths(emulator)[-1] == "/v2/_catalog"


def test_registry_that_is_down_during_the_search_is_discovered_by_its_catalogue(
    listed: Open,
) -> None:
    """A failed search for a list does not fail the discovery."""

    class Busy(Plain):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            if request.path == REPOSITORIES:
                return Answer(503, b"", {})
            return super().respond(request, contents)

    with OciEmulator(Busy()) as emulator:
        fill(emulator, 1, "team/api")
        assert listed(emulator, lists=[PlainList]).oci.list_repositories(["*"]) == {"team/api"}
