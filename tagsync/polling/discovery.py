"""Discovery: find the repositories that the globs of watches match."""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from tagsync.errors import RegistryError
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Poll
from tagsync.registries import Registry

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def discover(
    watches: Sequence[Watch], registries: Mapping[str, Registry]
) -> tuple[set[Repository], list[Poll]]:
    """Find the repositories that the watches' globs match at their registries.

    If the discovery of a watch fails, its recorded repositories stay watched. New repositories are
    found by the next discovery that succeeds.

    Returns:
        The repositories that were found, and a failed `Poll` for each glob of a watch whose
        discovery failed. The name of the repository in this `Poll` is the glob.
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
                Poll(
                    Repository(watch.registry, glob),
                    "failed",
                    reasons=(error.reason,),
                    detail=detail,
                    error=error,
                )
                for glob in watch.globs
            ]
            continue
        log.debug("discovery.finished", **about, found=len(names))
        found |= {Repository(watch.registry, name) for name in names}
    return found, failures
