"""Discovery: the repositories that the globs of watches match."""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from tagsync.errors import RegistryError
from tagsync.models import Repository, Watch
from tagsync.polling.poll import Poll
from tagsync.registries import Registry

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def discover(
    watches: Sequence[Watch], registries: Mapping[str, Registry]
) -> tuple[set[Repository], list[Poll]]:
    """Finds the repositories that the watches' globs match at their registries.

    A watch whose discovery fails keeps the repositories that are recorded already: what it would
    have added is unknown, and nothing is taken away.

    Returns:
        What was found, and for each glob that could not be expanded a failed poll of its name.
    """
    found: set[Repository] = set()
    failures: list[Poll] = []
    for watch in watches:
        if not watch.globs:
            continue
        about = {"registry": watch.registry, "repositories": list(watch.globs)}
        try:
            names = registries[watch.registry].list_repositories(watch.globs, shared=watch.shared)
        except RegistryError as error:
            log.error("discovery.failed", **about, error=str(error))
            detail = f"discovery failed: {error}"
            failures += [
                Poll(Repository(watch.registry, glob), "failed", detail=detail, error=error)
                for glob in watch.globs
            ]
            continue
        log.debug("discovery.finished", **about, found=len(names))
        found |= {Repository(watch.registry, name) for name in names}
    return found, failures
