"""``check``: whether the configuration works, and what a poll costs."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import environ
from time import monotonic
from typing import Final

import click

from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED
from tagsync.cli.options import format_option
from tagsync.cli.output import show
from tagsync.cli.setup import find_config, open_registries, set_up
from tagsync.errors import ConfigError, NotFound, RegistryError, Unreachable, Untrusted
from tagsync.models import Listing, Repository, Scope, Watch, watch_of
from tagsync.polling.discovery import discover
from tagsync.registries import Registry

COLUMNS: Final = (
    "registry",
    "reachable",
    "accepted",
    "repositories",
    "listed",
    "pages",
    "bytes",
    "seconds",
    "detail",
)


@click.command()
@format_option
@click.pass_obj
def check(settings: Settings, output_format: str) -> int:
    """Check the configuration, then each registry.

    Prints a row for each registry: whether tagsync can reach it, whether it accepts the credential,
    how many repositories match, and what one listing cost. Records nothing. If something is wrong,
    the column detail says what to do, and the exit status is 1.

    \b
    Example:
      tagsync check
    """
    config = set_up(settings)
    if not config.registries:
        raise ConfigError("no registry is configured: add one as [[registries]]")
    click.echo(f"{find_config(settings)} is a valid configuration.", err=True)
    with ExitStack() as stack:
        registries = open_registries(config, environ, stack)
        rows = [
            _check_registry(
                name, registry, [watch for watch in config.watches if watch.registry == name]
            )
            for name, registry in registries.items()
        ]
    show(rows, COLUMNS, output_format)
    return FAILED if any(row["detail"] for row in rows) else 0


def _check_registry(name: str, registry: Registry, watches: Sequence[Watch]) -> dict[str, object]:
    """Discover a registry's repositories, list the first one, and return the results.

    A poll of a repository costs about as much as this listing.
    """
    row: dict[str, object] = dict.fromkeys(COLUMNS) | {"registry": name}
    discovered, failures = discover(watches, {name: registry})
    configured = {repository for watch in watches for repository in watch.named}
    matched = [*sorted(configured), *sorted(discovered - configured)]
    matched = [repository for repository in matched if watch_of(repository, watches)]
    row["repositories"] = len(matched)
    if failures:
        details = dict.fromkeys(failure.detail for failure in failures)
        return {**row, **_diagnosis(failures[0].error), "detail": "; ".join(filter(None, details))}
    if not matched:
        detail = "no repository matches: check the names under [[registries.watch]]"
        return {**row, "reachable": bool(watches) or None, "detail": detail}
    watch = watch_of(matched[0], watches)
    assert watch is not None, "`matched` contains only repositories of a watch"  # noqa: S101  tells the type checker
    return {**row, **_list_once(registry, matched[0], Scope(watch.tags, watch.exclude_tags))}


def _list_once(registry: Registry, repository: Repository, scope: Scope) -> Mapping[str, object]:
    """List a repository once, and return the columns with the cost or the error."""
    began = monotonic()
    try:
        listing = registry.list_tags(repository.name, scope=scope)
    except RegistryError as error:
        return {**_diagnosis(error), "listed": repository.full_name, "detail": str(error)}
    assert isinstance(listing, Listing), "without a fingerprint to compare, there is no `Unchanged`"  # noqa: S101  tells the type checker
    return {
        "reachable": True,
        "accepted": True,
        "listed": repository.full_name,
        "pages": listing.pages,
        "bytes": listing.size,
        "seconds": round(monotonic() - began, 3),
    }


def _diagnosis(error: RegistryError | None) -> Mapping[str, object]:
    """Return the columns ``reachable`` and ``accepted`` that follow from an error.

    A column is None or left out if the error does not tell its value.
    """
    if isinstance(error, Unreachable | Untrusted):
        return {"reachable": False}
    if isinstance(error, NotFound) and error.code:
        return {"reachable": True, "accepted": True}
    accepted = False if error is not None and error.status in {401, 403} else None
    return {"reachable": True, "accepted": accepted}
