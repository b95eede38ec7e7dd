"""Arguments and options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tagsync.cli.output import FORMATS

Command = TypeVar("Command", bound=Callable[..., Any])


def patterns_argument(command: Command) -> Command:
    """Add the optional argument ``PATTERN``, which may be repeated."""
    return click.argument("patterns", metavar="[PATTERN]...", nargs=-1)(command)


def format_option(command: Command) -> Command:
    """Add the option ``--format``."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Format of the result.",
    )(command)


def since_option(command: Command) -> Command:
    """Add the option ``--since``."""
    return click.option(
        "--since", metavar="TIME", help="Leave out rows that end before this time."
    )(command)


def until_option(command: Command) -> Command:
    """Add the option ``--until``."""
    return click.option(
        "--until", metavar="TIME", help="Leave out rows that begin after this time."
    )(command)
