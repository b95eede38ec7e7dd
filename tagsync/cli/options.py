"""Arguments and options that several commands share, and the class of all commands."""

from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar

import click
from click.core import augment_usage_errors

from tagsync.cli.suggestions import complete_pattern

FORMATS: Final = ("table", "json", "jsonl", "csv")
"""The values of ``--format``. All but ``table`` are data."""

LARGEST_NUMBER: Final = 2**62
"""The largest id or number of rows on a command line. SQLite and Python can count so far."""

Command = TypeVar("Command", bound=Callable[..., Any])


class StrictCommand(click.Command):
    """The class of all commands. It refuses an option with one value that is given twice.

    A command is declared with ``@click.command(cls=StrictCommand)``. click itself ignores all but
    the last value. An option that may be repeated is declared with ``multiple=True``. A flag that
    has no opposite may be repeated.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments as click does.

        Raises:
            click.UsageError: If an option is given twice, or the arguments are wrong.
        """
        if not ctx.resilient_parsing:
            # click itself would name the group's help, not that of the command.
            with augment_usage_errors(ctx):
                _, _, order = self.make_parser(ctx).parse_args(list(args))
            for parameter, times in Counter(order).items():
                if times > 1 and _is_single(parameter):
                    name = " or ".join([*parameter.opts, *parameter.secondary_opts])
                    raise click.UsageError(f"{name} can be given only once", ctx)
        return super().parse_args(ctx, args)


def _is_single(parameter: click.Parameter) -> bool:
    if not isinstance(parameter, click.Option) or parameter.multiple or parameter.count:
        return False
    return not parameter.is_flag or bool(parameter.secondary_opts)


def check_number(ctx: click.Context, parameter: click.Parameter, number: int | None) -> int | None:
    """Return a number that SQLite and Python can count to. The range is not shown in the help.

    Raises:
        click.BadParameter: If the number is larger than `LARGEST_NUMBER`.
    """
    if number is not None and number > LARGEST_NUMBER:
        raise click.BadParameter(f"give at most {LARGEST_NUMBER}", ctx, parameter)
    return number


def patterns_argument(command: Command) -> Command:
    """Add the optional argument ``PATTERN``, which may be repeated."""
    return click.argument(
        "patterns", metavar="[PATTERN]...", nargs=-1, shell_complete=complete_pattern
    )(command)


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


class OutputOptions(NamedTuple):
    """The options that say how to show an answer.

    Attributes:
        format: One of `FORMATS`.
        full: Whether a table shows whole digests and texts.
        local: Whether a table shows times in the zone of this computer, not in UTC.
    """

    format: str = "table"
    full: bool = False
    local: bool = False


def output_options(command: Command) -> Command:
    """Add ``--format``, ``--full`` and ``--local``, which become the argument ``output``."""

    @format_option
    @click.option("--full", is_flag=True, help="Show whole digests and texts in the table.")
    @click.option(
        "--local/--utc", help="Show the times of the table in local time, or in UTC (the default)."
    )
    @wraps(command)
    def run(*args: Any, output_format: str, full: bool, local: bool, **options: Any) -> Any:
        return command(*args, output=OutputOptions(output_format, full, local), **options)

    return run  # type: ignore[return-value]  # click passes the options, not the caller


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
