"""Repositories and tags of the database, for the completion of command lines.

click itself completes commands, options and their values. Without a configuration or a database,
nothing is suggested, and no error is shown.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click


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


def _search(ctx: click.Context, query: Callable[[Path], list[str]]) -> list[str]:
    """Return the result of a query to the configured database, or nothing if that fails."""
    from tagsync.config import find, load  # noqa: PLC0415  only to complete
    from tagsync.errors import TagsyncError  # noqa: PLC0415

    try:
        path = find(ctx.find_root().params.get("config"), os.environ)
        return query(load(path, os.environ).database)
    except (TagsyncError, OSError):
        return []
