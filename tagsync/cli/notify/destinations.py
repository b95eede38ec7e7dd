"""The argument ``NAME`` of the commands ``notify``, and the destinations that it selects."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from tagsync.cli.suggestions import complete_destination
from tagsync.errors import ConfigError
from tagsync.notify.targets import Rule

Command = TypeVar("Command", bound=Callable[..., Any])


def name_argument(*, required: bool) -> Callable[[Command], Command]:
    """Add the argument ``NAME``, which names a destination."""
    return click.argument(
        "name",
        metavar="NAME" if required else "[NAME]",
        required=required,
        shell_complete=complete_destination,
    )


def select_rules(rules: Sequence[Rule], name: str | None) -> Sequence[Rule]:
    """Return the destination with a name, or all of them without a name.

    Raises:
        ConfigError: If there is none.
    """
    if not rules:
        raise ConfigError(
            "no destination of notifications is configured: add one as [[notify]]"
            " (config.example.toml shows how)"
        )
    check_name(name, [rule.name for rule in rules])
    return [rule for rule in rules if name in {None, rule.name}]


def check_name(name: str | None, known: Iterable[str]) -> None:
    """Check that a destination exists. None is accepted.

    Raises:
        ConfigError: If it does not. The sentence has the most similar name, or all names.
    """
    names = list(known)
    if name is None or name in names:
        return
    if near := get_close_matches(name, names, n=1):
        raise ConfigError(f"there is no destination {name!r}; the nearest is {near[0]!r}")
    listed = f"; there are {', '.join(map(repr, names))}" if names else ""
    raise ConfigError(f"there is no destination {name!r} under [[notify]]{listed}")
