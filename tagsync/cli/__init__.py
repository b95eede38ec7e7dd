"""The command line: the only place that wires the parts together.

Each family of commands has a file, imported when one of its commands is run, so that ``--help`` is
quick.
"""

import importlib
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Final, TextIO

import click

from tagsync.errors import (
    ConfigError,
    TagsyncError,
    UnclearQuestion,
    UnknownRepository,
    UnusableDatabase,
)

_COMMANDS: Final = {
    "check": "tagsync.cli.check",
    "coverage": "tagsync.cli.diff",
    "demo": "tagsync.cli.demo",
    "diff": "tagsync.cli.diff",
    "find": "tagsync.cli.diff",
    "log": "tagsync.cli.status",
    "run": "tagsync.cli.run",
    "status": "tagsync.cli.status",
    "sync": "tagsync.cli.sync",
    "tags": "tagsync.cli.status",
    "verify": "tagsync.cli.diff",
    "web": "tagsync.cli.web",
}

_HELP: Final = {
    "check": "Check the configuration, then each registry.",
    "coverage": "Show when somebody was looking, and the holes.",
    "demo": "Show what tagsync does, on an emulated registry.",
    "diff": "Show the net difference between two moments.",
    "find": "Show every tag that leads to a digest, or ever did.",
    "log": "Show the changes, oldest first.",
    "run": "Poll every repository on its own schedule, until SIGTERM or Ctrl-C.",
    "status": "Show how fresh each repository is.",
    "sync": "Poll the configured repositories once.",
    "tags": "Show what each tag points to, or did.",
    "verify": "Prove that the record is what was recorded.",
    "web": "Show the record in a browser.",
}

_INTERRUPTED: Final = 130

_REFUSED: Final = (ConfigError, UnclearQuestion, UnknownRepository, UnusableDatabase)
"""What the command line, or the configuration that it names, is to blame for."""


class _Lazy(click.Group):
    """A group that imports a command's file when the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command), cmd_name  # noqa: S101  tells the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_HELP.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="PATH",
    help="The configuration; else $TAGSYNC_CONFIG, ./config.toml, /etc/tagsync/config.toml.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="How to log on standard error; auto is JSON off a terminal.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is logged.",
)
@click.version_option(package_name="tagsync")
@click.pass_context
def tagsync(ctx: click.Context, config: str | None, log_format: str, log_level: str) -> None:
    """Mirror container-registry tags into SQLite, and keep their history.

    \b
    Example:
      tagsync demo
      tagsync --config config.toml sync
    """
    ctx.obj = Settings(config, log_format, log_level)


class Settings:
    """What the command line says before the command."""

    def __init__(self, config: str | None, log_format: str, log_level: str) -> None:
        self.config = config
        self.log_format = log_format
        self.log_level = log_level


def main() -> None:
    """Runs the command line; here, and only here, an error becomes a sentence on standard error.

    Exit status: 0 done; 1 a repository failed, the database did, or the record has a fault; 2 the
    command line or the configuration is wrong; 3 a listing was held and nothing failed.
    """
    # What a terminal's encoding cannot show is written out, as standard error does of itself.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  until the end
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = tagsync.main(standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tagsync"
        _complain(f"{error.format_message().rstrip('.')}: see {command} --help")
        sys.exit(2)
    except TagsyncError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, _REFUSED) else 1)
    except OSError as error:
        # click itself ends quietly when whoever reads our output has seen enough.
        _complain(f"the output cannot be written: {error.strerror}")
        _give_up(sys.stdout)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("tagsync: interrupted; what was recorded is whole", err=True)
        # Threads may be waiting for a registry that hangs, and whatever they hold is not yet
        # recorded: a normal exit would wait for them.
        os._exit(_INTERRUPTED)
    status = status if isinstance(status, int) else 0
    try:
        sys.stderr.flush()
    except OSError:
        # Lines of the log are lost, and nobody can be told but by the status.
        _give_up(sys.stderr)
        status = status or 1
    sys.exit(status)


def _complain(sentence: str) -> None:
    from tagsync.escaping import escape_control_characters  # noqa: PLC0415  not for good news

    try:
        click.echo(f"tagsync: {escape_control_characters(sentence)}", err=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Lets what is left for a stream that takes no more go nowhere, so that Python ends quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
