"""Fill an emulated registry, and read which lists were requested from it."""

from typing import Final

from tagsync.emulator import Emulator

NAMESPACES: Final = "/v2/manage/namespaces"
REPOS: Final = "/v2/manage/repos"
SHARED: Final = "/v2/manage/shared-repositories"


def create(emulator: Emulator, *repositories: str) -> None:
    """Create repositories of one tag each."""
    for repository in repositories:
        emulator.push(repository, "v1", repository)


def requested_lists(emulator: Emulator) -> list[tuple[str, str | None]]:
    """Return the path and namespace of each requested list but tag lists."""
    lists = ((request.path, request.query.get("namespace")) for request in emulator.requests)
    return list(dict.fromkeys(each for each in lists if not each[0].endswith("/tags")))
