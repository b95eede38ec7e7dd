"""The command ``completion``, which prints the completion script of a shell."""

import os
from collections.abc import Mapping
from typing import Final

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from tagsync.cli.options import StrictCommand

COMPLETE_VARIABLE: Final = "_TAGSYNC_COMPLETE"
"""The environment variable by which the script of a shell asks for completions."""

_BASH: Final = """\
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} type value
    local word=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE=$line %(complete_var)s=bash_complete "$1" 2>/dev/null)
    # Bash replaces only the text after the last colon, which it takes for the end of a word.
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%"${word##*:}"}"}")
    fi
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class BashComplete(ShellComplete):
    """Completion for Bash 4.4 and newer, also of words with a colon.

    click's own class gets the words as Bash splits them, at colons, too. Its script also expands
    globs in the completions.
    """

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words of the line, and the word before the cursor."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if not words or line[-1:].isspace():
            return words, ""
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line of a completion for the script."""
        return f"{item.type},{item.value}"


class _WholeWords(ShellComplete):
    """Completion for a shell that replaces the whole word, as in ``--tag=v1``.

    click's own classes suggest the value without its option, which such a shell takes for another
    word.
    """

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the completions of a word, each with the option that the word begins with."""
        items = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("--"):
            for item in items:
                item.value = f"{option}={item.value}" if item.type == "plain" else item.value
        return items


class WholeWordsFish(_WholeWords, FishComplete):
    """Completion for fish."""


class WholeWordsZsh(_WholeWords, ZshComplete):
    """Completion for zsh."""


_SHELLS: Final[Mapping[str, type[ShellComplete]]] = {
    "bash": BashComplete,
    "zsh": WholeWordsZsh,
    "fish": WholeWordsFish,
}


def register() -> None:
    """Let click use these classes instead of its own ones."""
    for shell in _SHELLS.values():
        add_completion_class(shell)


@click.command(cls=StrictCommand)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the script that completes tagsync's command lines.

    It completes commands, options, and the repositories and tags in the database. Add the example
    to ~/.bashrc or ~/.zshrc. For fish, write the output to
    ~/.config/fish/completions/tagsync.fish.

    \b
    Example:
      tagsync completion bash
      eval "$(tagsync completion bash)"
    """
    root = ctx.find_root()
    script = _SHELLS[shell](root.command, {}, "tagsync", COMPLETE_VARIABLE).source()
    click.echo(script, nl=False)
