"""Repositories, tags and destinations, for the completion of command lines.

click itself completes commands, options and their values. Without a configuration or a database,
nothing is suggested, and no error is shown.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

ItemT = TypeVar("ItemT")

if TYPE_CHECKING:
    from tagsync.config import Config


def complete_pattern(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the repositories that a pattern may name, or after a colon their tags."""
    from tagsync.audit.names import repository_names, tag_names  # noqa: PLC0415  only to complete

    repository, colon, tag = incomplete.partition(":")
    if not colon:
        return _search(ctx, lambda path: repository_names(path, repository))
    tags = _search(ctx, lambda path: tag_names(path, [repository], tag))
    return [f"{repository}:{name}" for name in tags]


def complete_tag(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the tags of the repositories that are already on the command line."""
    from tagsync.audit.names import tag_names  # noqa: PLC0415  only to complete

    # Before the value of an option, click has not assigned the arguments to their parameter.
    patterns: Sequence[str] = ctx.params.get("patterns") or ctx.args
    names = [pattern.partition(":")[0] for pattern in patterns]
    return _search(ctx, lambda path: tag_names(path, names, incomplete))


def complete_destination(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the destinations in the configuration."""
    from tagsync.errors import TagsyncError  # noqa: PLC0415  only to complete

    try:
        tables = _load(ctx).file.notify
    except (TagsyncError, OSError):
        return []
    return [table.name for table in tables if table.name.startswith(incomplete)]


def complete_alarm(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of changes of immutable tags that were not accepted, the newest first."""
    from tagsync.audit.names import open_alarms  # noqa: PLC0415  only to complete

    given = {str(number) for number in ctx.params.get("changes") or ()}
    return [
        CompletionItem(str(number), help=name)
        for number, name in _search(ctx, lambda path: open_alarms(path, incomplete))
        if str(number) not in given
    ]


def _search(ctx: click.Context, query: Callable[[Path], list[ItemT]]) -> list[ItemT]:
    """Return the result of a query to the configured database, or nothing if that fails."""
    from tagsync.errors import TagsyncError  # noqa: PLC0415  only to complete

    try:
        return query(_load(ctx).database)
    except (TagsyncError, OSError):
        return []


def _load(ctx: click.Context) -> "Config":
    from tagsync.config import find, load  # noqa: PLC0415  only to complete

    return load(find(ctx.find_root().params.get("config"), os.environ), os.environ)
