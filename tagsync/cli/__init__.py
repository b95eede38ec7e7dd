"""The command line: its commands, its global options, and its exit status.

Each command has its own module. A module is imported only when its command is used, so that
``--help`` is fast.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from tagsync.cli.exit_status import FAILED, INTERRUPTED, complain
from tagsync.cli.exit_status import report as report_error
from tagsync.cli.options import StrictCommand
from tagsync.cli.streams import discard_unwritten, name_streams

_COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "Record": {
        "sync": "Poll the configured repositories once.",
        "run": "Poll every repository on its own schedule, until stopped.",
        "check": "Check the configuration, then each registry.",
        "init": "Write a first configuration, and check it.",
        "config": "Print the effective configuration, with all defaults.",
    },
    "Ask": {
        "status": "Show how fresh the record of each repository is.",
        "tags": "Show what each tag points to, now or at an earlier time.",
        "log": "Show the changes, oldest first.",
        "diff": "Show the net difference between two times.",
        "find": "Show every tag that leads to a digest, now or earlier.",
        "coverage": "Show when tagsync was looking, and the gaps in between.",
    },
    "Prove": {
        "verify": "Check that the record has not been altered.",
        "head": "Show the heads of both hash chains, for a witness.",
        "report": "Write one file with an answer and its evidence.",
    },
    "Operate": {
        "accept": "Take moves of immutable tags off the list of alarms.",
        "web": "Show the record in a browser.",
        "notify": "Test, preview and repeat notifications.",
        "healthcheck": "Ask the running daemon whether all is well.",
        "backup": "Copy the database into a new file, and verify the copy.",
        "restore": "Put a backup in the place of the database.",
        "demo": "Show what tagsync does, on an emulated registry.",
        "completion": "Print the script that completes tagsync's command lines.",
    },
}
"""The groups of commands, and the first sentence of each command's help.

With the sentences here, ``--help`` need not import the commands.
"""

_SENTENCES: Final = {
    name: sentence for group in _COMMANDS.values() for name, sentence in group.items()
}

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(NamedTuple):
    """The global options, which come before the command.

    Attributes:
        config: Path of the configuration file. None means that `tagsync.config.find` searches it.
        log_format: The format of the log: ``auto``, ``console`` or ``json``.
        log_level: The lowest level of events that are logged. It includes ``-q`` and ``-v``.
        color: Whether results are coloured. ``auto`` depends on the terminal and the environment.
        pager: Whether long results may be shown in a pager.
        quiet: Whether to print only results and errors, and no progress (``-q``).
        verbose: Whether to log everything (``-v``).
    """

    config: str | None = None
    log_format: str = "auto"
    log_level: str = "info"
    color: Literal["auto", "always", "never"] = "auto"
    pager: bool = True
    quiet: bool = False
    verbose: bool = False


class _LazyGroup(StrictCommand, click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_SENTENCES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _SENTENCES:
            return None
        command = getattr(importlib.import_module(f"tagsync.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command), cmd_name  # noqa: S101  tells the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, _SENTENCES)) + 2
        formatter.write("\n")
        for group, sentences in _COMMANDS.items():
            for number, (name, sentence) in enumerate(sentences.items()):
                formatter.write(f"{'' if number else group:<9}{name:<{width}}{sentence}\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The method of `click.Group` would import all commands.
        names = [
            CompletionItem(name, help=sentence)
            for name, sentence in _SENTENCES.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click exits quietly after any broken pipe. This is right only for standard output.
            if error.filename is None:
                raise RuntimeError("the other end of a pipe or socket was closed") from error
            raise


class _GlobalOption(click.Option):
    """An option that is also an environment variable, which errors name, too."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return f"{super().get_error_hint(ctx)} or ${self.envvar}"


def _global_option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    """Add an option that is also an environment variable: ``--no-pager``, $TAGSYNC_NO_PAGER."""
    variable = names[-1].lstrip("-").replace("-", "_").upper()
    return click.option(*names, cls=_GlobalOption, envvar=f"TAGSYNC_{variable}", **attributes)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@_global_option(
    "--config",
    type=click.Path(),
    metavar="PATH",
    help="Configuration; like each option, also $TAGSYNC_CONFIG.",
)
@_global_option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    metavar="FORMAT",
    default="auto",
    help="auto (the default), console (for people) or json.",
)
@_global_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    metavar="LEVEL",
    default="info",
    help="debug, info (the default), warning or error.",
)
@_global_option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    metavar="WHEN",
    default="auto",
    help="auto (the default), always or never.",
)
@_global_option("--no-pager", is_flag=True, help="Never show results in a pager.")
@_global_option("-q", "--quiet", is_flag=True, help="Log only errors, and show no progress.")
@_global_option("-v", "--verbose", is_flag=True, help="Log everything, as --log-level debug.")
@click.version_option(package_name="tagsync")
@click.pass_context
def tagsync(
    ctx: click.Context,
    config: str | None,
    log_format: str,
    log_level: str,
    color: Literal["auto", "always", "never"],
    no_pager: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Mirror container-registry tags into SQLite, and keep their history.

    \b
    Example:
      tagsync demo
    """
    del quiet, verbose  # `_verbosity` decides which of them counts.
    verbosity = _verbosity(ctx)
    ctx.obj = Settings(
        config,
        log_format,
        {"quiet": "error", "verbose": "debug"}.get(verbosity, log_level),
        color,
        pager=not no_pager,
        quiet=verbosity == "quiet",
        verbose=verbosity == "verbose",
    )


def _verbosity(ctx: click.Context) -> str:
    """Return which parameter sets the level of the log: quiet, verbose or log_level.

    An option on the command line takes precedence over the variables.

    Raises:
        click.UsageError: If two of them are given in the same place.
    """
    names = ("quiet", "verbose", "log_level")
    for source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        given = [
            name for name in names if ctx.params[name] and ctx.get_parameter_source(name) is source
        ]
        if len(given) > 1:
            raise click.UsageError(
                "--quiet, --verbose and --log-level, or their variables, exclude each other", ctx
            )
        if given:
            return given[0]
    return "log_level"


def main() -> None:
    """Run the command line and exit.

    The exit status is 0 if the command did what it was asked to do. `tagsync.cli.exit_status` lists
    the other values.
    """
    streams = name_streams()
    try:
        if os.environ.get("_TAGSYNC_COMPLETE"):
            from tagsync.cli import completion  # noqa: PLC0415  only to complete

            completion.register()
        result = tagsync.main(prog_name="tagsync", standalone_mode=False)
        sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted; everything that was recorded is intact")
        # A normal exit would wait for threads, which may be waiting for a registry that hangs.
        os._exit(INTERRUPTED)
    except SystemExit as ended:
        # click ends by SystemExit, without a message, after a completion, and if the reader of
        # standard output is gone.
        status = ended.code if isinstance(ended.code, int) else FAILED
    except Exception as error:  # noqa: BLE001  bugs are reported as well
        status = report_error(error)
    if not discard_unwritten(streams):
        # Some lines of the log are lost. Only the exit status can still report this.
        status = status or FAILED
    sys.exit(status)
