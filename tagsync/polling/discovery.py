"""Discovery: find the repositories that the globs of watches match."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from tagsync.errors import RegistryError
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Poll
from tagsync.registries import Registry

EMPTY_AFTER: Final = timedelta(days=1)
"""How long the globs of a watch may match nothing after they have matched a repository."""

EMPTY_DETAIL: Final = (
    "the watch matches no repository: check its patterns and which repositories the login may see,"
    " or set allow_empty = true"
)
"""The fault of an empty watch, and its remedy."""

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


def empty_watches(
    watches: Iterable[Watch], repositories: Collection[Repository], failures: Iterable[Poll]
) -> list[Watch]:
    """Return the watches whose globs match none of the repositories, unless this is allowed.

    A watch without globs is judged by its repositories. A watch whose discovery failed is reported
    by its failure.

    Args:
        watches: All watches.
        repositories: The repositories that exist, as far as they are known.
        failures: The second result of `discover`.
    """
    failed = {poll.repository for poll in failures}
    return [
        watch
        for watch in watches
        if watch.globs
        and not watch.allow_empty
        and Repository(watch.registry, watch.globs[0]) not in failed
        and not any(watch.discovers(repository) for repository in repositories)
    ]


def log_empty(watch: Watch) -> None:
    """Log that the globs of a watch match nothing."""
    log.error(
        "watch.empty",
        registry=watch.registry,
        repositories=list(watch.globs),
        exclude=list(watch.exclude),
        error=EMPTY_DETAIL,
    )
