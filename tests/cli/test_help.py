"""The command line: help, and options that every command has in common."""

import sys

import click
import pytest

from tagsync import cli
from tagsync.cli.exit_status import REFUSED, report
from tagsync.cli.options import StrictCommand
from tests.support.command_tree import all_commands
from tests.support.commands import run_command
from tests.support.paths import ROOT


def commands() -> list[tuple[str, click.Command]]:
    """Return the group, and each of its commands, with the words that call it."""
    named = [(f"tagsync {words}", command) for words, command in all_commands().items()]
    return [("tagsync", cli.tagsync), *named]


def help_of(words: str, command: click.Command) -> str:
    """Return the help of a command on a terminal of 80 columns."""
    before, _, name = words.rpartition(" ")
    parent = click.Context(cli.tagsync, info_name=before) if before else None
    return click.Context(command, parent, name, terminal_width=78).get_help()


def single_options() -> list[tuple[click.Command, click.Option]]:
    """Return each option that has one value, or an opposite, of each command."""
    return [
        (command, parameter)
        for _, command in commands()
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


def test_the_list_of_commands_needs_no_other_library() -> None:
    """`tagsync --help` is quick, because it imports only click and the list of commands."""
    program = (
        "import sys; from tagsync import cli\n"
        "try: cli.tagsync.main(['--help'], standalone_mode=False)\n"
        "finally: print(*sys.modules)"
    )
    finished = run_command([sys.executable, "-c", program], ROOT)
    assert not {"msgspec", "sqlite3", "tagsync.cli.output"} & set(finished.stdout.split())
    assert {"click", "tagsync.cli.options"} <= set(finished.stdout.split())


def test_command_list_matches_the_help_of_each_command() -> None:
    """The group's list of commands has the first sentence of each command's help."""
    context = click.Context(cli.tagsync)
    for name, sentence in cli._SENTENCES.items():  # noqa: SLF001  the text that the group's help prints
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == sentence


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*each, id=each[0]) for each in commands()]
)
def test_each_help_is_short_and_has_an_example(words: str, command: click.Command) -> None:
    """Each help has at most 40 lines of at most 80 columns, and an example."""
    lines = help_of(words, command).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    shown = lines[lines.index("  Example:") + 1].strip()
    assert shown.startswith(f"{words} ") or shown == words


def test_the_help_has_room_for_more_commands() -> None:
    """The group's help without its commands takes at most 18 lines."""
    lines = help_of("tagsync", cli.tagsync).splitlines()
    assert len(lines) - len(cli._SENTENCES) <= 18  # noqa: SLF001  one line for each command


def test_the_help_groups_the_commands() -> None:
    """The four groups are in order, and each command has one line."""
    shown = help_of("tagsync", cli.tagsync).splitlines()[-len(cli._SENTENCES) :]  # noqa: SLF001
    groups = [line[:9].strip() for line in shown]
    assert [group for group in groups if group] == ["Record", "Ask", "Prove", "Operate"]
    names = [line[9:].split()[0] for line in shown]
    assert names == cli.tagsync.list_commands(click.Context(cli.tagsync))
    assert names[: groups.index("Ask")] == ["sync", "run", "check", "init", "config"]


def test_without_a_command_the_help_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments, tagsync prints its help on standard error and exits with 2."""
    monkeypatch.setattr("sys.argv", ["tagsync"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == REFUSED
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.splitlines()[0] == "Usage: tagsync [OPTIONS] COMMAND [ARGS]..."
    assert len(said.splitlines()) > 20


def settings_for(*arguments: str, **variables: str) -> cli.Settings:
    """Return the global options for a command line and environment variables."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(f"TAGSYNC_{name}", value)
        with cli.tagsync.make_context("tagsync", [*arguments, "log"]) as context:
            assert cli.tagsync.callback is not None
            context.invoke(cli.tagsync.callback, **context.params)
            assert isinstance(context.obj, cli.Settings)
            return context.obj


@pytest.mark.parametrize(
    ("arguments", "variables", "changed"),
    [
        ([], {}, {}),
        (["--config", "a"], {"CONFIG": "b"}, {"config": "a"}),
        ([], {"CONFIG": "b"}, {"config": "b"}),
        (["--log-format", "json"], {}, {"log_format": "json"}),
        ([], {"LOG_FORMAT": "console"}, {"log_format": "console"}),
        ([], {"LOG_LEVEL": "warning"}, {"log_level": "warning"}),
        (["--color", "never"], {"COLOR": "always"}, {"color": "never"}),
        ([], {"COLOR": "always"}, {"color": "always"}),
        (["--no-pager"], {}, {"pager": False}),
        ([], {"NO_PAGER": "1"}, {"pager": False}),
        ([], {"PAGER": "less"}, {}),
        (["-q"], {}, {"log_level": "error", "quiet": True}),
        (["-v"], {}, {"log_level": "debug", "verbose": True}),
        ([], {"QUIET": "1"}, {"log_level": "error", "quiet": True}),
        ([], {"QUIET": "0", "VERBOSE": "1"}, {"log_level": "debug", "verbose": True}),
        (["-v"], {"QUIET": "1", "LOG_LEVEL": "warning"}, {"log_level": "debug", "verbose": True}),
        (["--log-level", "info"], {"QUIET": "1"}, {}),
    ],
)
def test_each_global_option_is_also_a_variable(
    arguments: list[str], variables: dict[str, str], changed: dict[str, object]
) -> None:
    """A variable TAGSYNC_… sets a global option; the command line takes precedence."""
    assert settings_for(*arguments, **variables) == cli.Settings()._replace(**changed)  # type: ignore[arg-type]  # a table of attributes


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["-q", "-v"], {}),
        (["-q", "--log-level", "info"], {}),
        ([], {"QUIET": "1", "VERBOSE": "1"}),
    ],
)
def test_contradicting_levels_are_refused(arguments: list[str], variables: dict[str, str]) -> None:
    """The three options that set the level of the log exclude each other."""
    with pytest.raises(click.UsageError, match="exclude each other"):
        settings_for(*arguments, **variables)


def test_a_wrong_variable_is_named() -> None:
    """The error for a wrong value names the option and the variable."""
    with pytest.raises(click.UsageError) as caught:
        settings_for(COLOR="red")
    assert "'--color' or $TAGSYNC_COLOR" in caught.value.format_message()


def test_each_command_has_the_class_that_refuses_repeated_options() -> None:
    """The group and all of its commands are of one class."""
    assert all(isinstance(command, StrictCommand) for _, command in commands())


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
