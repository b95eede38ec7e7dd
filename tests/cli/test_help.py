"""The help of the command line."""

import click

from tagsync import cli


def test_command_list_matches_the_help_of_each_command() -> None:
    """The group's list of commands has the first sentence of each command's help."""
    context = click.Context(cli.tagsync)
    for name, sentence in cli._COMMANDS.items():  # noqa: SLF001  the text that the group's help prints
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == sentence
