"""``check``: whether the configuration will work, and what it will cost."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import environ
from time import monotonic

import click

from tagsync.cli import Settings
from tagsync.cli.output import format_option, show
from tagsync.cli.setup import configuration, find_configuration
from tagsync.cli.sync import FAILED, open_registries
from tagsync.errors import ConfigError, NotFound, RegistryError, Unreachable, Untrusted
from tagsync.models import Listing, Repository, Scope, Watch, watch_of
from tagsync.polling.discovery import discover
from tagsync.registries import Registry

COLUMNS = (
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

    A row a registry: whether it can be reached, whether it accepts the credentials, how many
    repositories match, and what one listing cost. Records nothing. The exit status is 1 if
    something is not so, with what to do in the detail.

    \b
    Example:
      tagsync check
    """
    config = configuration(settings)
    if not config.registries:
        raise ConfigError("no registry is configured: add one as [[registries]]")
    click.echo(f"{find_configuration(settings)} is a valid configuration.", err=True)
    with ExitStack() as stack:
        registries = open_registries(config, environ, stack)
        rows = [
            _check(name, registry, [watch for watch in config.watches if watch.registry == name])
            for name, registry in registries.items()
        ]
    show(rows, COLUMNS, output_format)
    return FAILED if any(row["detail"] for row in rows) else 0


def _check(name: str, registry: Registry, watches: Sequence[Watch]) -> dict[str, object]:
    """Discovers, and lists the first repository: what that takes is what every poll takes."""
    row: dict[str, object] = dict.fromkeys(COLUMNS) | {"registry": name}
    found, failures = discover(watches, {name: registry})
    named = {repository for watch in watches for repository in watch.named}
    matched = [*sorted(named), *sorted(found - named)]
    matched = [repository for repository in matched if watch_of(repository, watches)]
    row["repositories"] = len(matched)
    if failures:
        details = dict.fromkeys(failure.detail for failure in failures)
        return {**row, **_judged(failures[0].error), "detail": "; ".join(filter(None, details))}
    if not matched:
        detail = "no repository matches: check the names under [[registries.watch]]"
        return {**row, "reachable": bool(watches) or None, "detail": detail}
    watch = watch_of(matched[0], watches)
    assert watch is not None, "only those that a watch has were kept"  # noqa: S101  tells the type checker
    return {**row, **_cost(registry, matched[0], Scope(watch.tags))}


def _cost(registry: Registry, repository: Repository, scope: Scope) -> Mapping[str, object]:
    began = monotonic()
    try:
        listing = registry.list_tags(repository.name, scope=scope)
    except RegistryError as error:
        return {**_judged(error), "listed": repository.full_name, "detail": str(error)}
    assert isinstance(listing, Listing), "nothing was known that could be unchanged"  # noqa: S101  tells the type checker
    return {
        "reachable": True,
        "accepted": True,
        "listed": repository.full_name,
        "pages": listing.pages,
        "bytes": listing.size,
        "seconds": round(monotonic() - began, 3),
    }


def _judged(error: RegistryError | None) -> Mapping[str, object]:
    """What a failure says of the registry and of the credentials; null where it says nothing."""
    if isinstance(error, Unreachable | Untrusted):
        return {"reachable": False}
    if isinstance(error, NotFound) and error.code:
        return {"reachable": True, "accepted": True}
    accepted = False if error is not None and error.status in {401, 403} else None
    return {"reachable": True, "accepted": accepted}
