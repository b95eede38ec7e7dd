"""The command line: help, and options that every command has in common."""

from collections.abc import Iterator

import click
import pytest

from tagsync import cli
from tagsync.cli.exit_status import REFUSED, report
from tagsync.cli.options import StrictCommand


def commands() -> Iterator[click.Command]:
    """Yield the group, and each of its commands."""
    yield cli.tagsync
    context = click.Context(cli.tagsync)
    for name in cli.tagsync.list_commands(context):
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        yield command


def single_options() -> list[tuple[click.Command, click.Option]]:
    """Return each option that has one value, or an opposite, of each command."""
    return [
        (command, parameter)
        for command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        and not parameter.multiple
        and (not parameter.is_flag or parameter.secondary_opts)
    ]


def value_for(option: click.Option) -> list[str]:
    """Return the value for an option on a command line, or nothing if it is a flag."""
    if option.is_flag:
        return []
    choices = getattr(option.type, "choices", None)
    return [choices[0] if choices else "1"]


def test_command_list_matches_the_help_of_each_command() -> None:
    """The group's list of commands has the first sentence of each command's help."""
    context = click.Context(cli.tagsync)
    for name, sentence in cli._COMMANDS.items():  # noqa: SLF001  the text that the group's help prints
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == sentence


def test_each_command_has_the_class_that_refuses_repeated_options() -> None:
    """The group and all of its commands are of one class."""
    assert all(isinstance(command, StrictCommand) for command in commands())


@pytest.mark.parametrize(
    ("command", "option"),
    [pytest.param(*pair, id=f"{pair[0].name} {pair[1].opts[-1]}") for pair in single_options()],
)
def test_an_option_with_one_value_is_given_once(
    command: click.Command, option: click.Option, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that takes one value is refused by name if it is given twice."""
    arguments = [option.opts[-1], *value_for(option)] * 2
    with pytest.raises(click.UsageError) as caught:
        command.make_context(f"tagsync {command.name}", arguments)
    assert report(caught.value) == REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    name = " or ".join([*option.opts, *option.secondary_opts])
    assert line.startswith(f"tagsync: {name} can be given only once: see tagsync ")


def test_a_repeatable_option_and_a_flag_may_be_given_twice() -> None:
    """Options that may be repeated keep all values; a flag without an opposite is harmless."""
    context = cli.tagsync.make_context("tagsync", ["log"])
    log, sync = (cli.tagsync.get_command(context, name) for name in ("log", "sync"))
    assert log is not None
    assert sync is not None
    kinds = ["--kind", "added", "--kind", "deleted"]
    assert log.make_context("log", kinds).params["kinds"] == ("added", "deleted")
    assert sync.make_context("sync", ["--dry-run", "--dry-run"]).params["dry_run"] is True
