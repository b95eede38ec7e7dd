"""All commands of tagsync, those of groups included."""

from collections.abc import Iterator

import click

from tagsync import cli


def all_commands() -> dict[str, click.Command]:
    """Return each command by its words, such as ``log`` or ``notify test``, with the groups."""
    return dict(_walk(cli.tagsync, ""))


def leaf_commands() -> dict[str, click.Command]:
    """Return each command by its words, without the groups."""
    return {
        words: command
        for words, command in all_commands().items()
        if not isinstance(command, click.Group)
    }


def _walk(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from _walk(command, f"{prefix}{name} ")
