"""The help of the command line."""

import click

from tagsync import cli


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    """The help of the group, which imports no command, is the first sentence of each command's."""
    context = click.Context(cli.tagsync)
    for name, sentence in cli._HELP.items():  # noqa: SLF001  what the group's own help prints
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == sentence
    assert cli._HELP.keys() == cli._COMMANDS.keys()  # noqa: SLF001
