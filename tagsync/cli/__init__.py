"""The command line: its commands, its global options, and its exit status.

Each command has its own module. A module is imported only when its command is used, so that
``--help`` is fast.
"""

import importlib
import os
import sys
from typing import Final, NamedTuple

import click

from tagsync.cli.exit_status import FAILED, INTERRUPTED, complain, report
from tagsync.cli.options import StrictCommand
from tagsync.cli.streams import discard_unwritten, name_streams

_COMMANDS: Final = {
    "check": "Check the configuration, then each registry.",
    "coverage": "Show when tagsync was looking, and the gaps in between.",
    "demo": "Show what tagsync does, on an emulated registry.",
    "diff": "Show the net difference between two times.",
    "find": "Show every tag that leads to a digest, now or earlier.",
    "log": "Show the changes, oldest first.",
    "run": "Poll every repository on its own schedule, until SIGTERM or Ctrl-C.",
    "status": "Show how fresh the record of each repository is.",
    "sync": "Poll the configured repositories once.",
    "tags": "Show what each tag points to, now or at an earlier time.",
    "verify": "Check that the record has not been altered.",
    "web": "Show the record in a browser.",
}
"""The first sentence of each command's help, so that ``--help`` need not import the commands."""


class Settings(NamedTuple):
    """The global options, which come before the command."""

    config: str | None
    log_format: str
    log_level: str


class _LazyGroup(StrictCommand, click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"tagsync.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command), cmd_name  # noqa: S101  tells the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click exits quietly after any broken pipe. This is right only for standard output.
            if error.filename is None:
                raise RuntimeError("the other end of a pipe or socket was closed") from error
            raise


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="PATH",
    help="Configuration file; default: $TAGSYNC_CONFIG, ./config.toml, /etc/tagsync/config.toml.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="Format of the log on standard error; auto: console on a terminal, else JSON lines.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Log only events of this level and of higher levels.",
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


def main() -> None:
    """Run the command line and exit.

    The exit status is 0 if the command did what it was asked to do. `tagsync.cli.exit_status` lists
    the other values.
    """
    streams = name_streams()
    try:
        result = tagsync.main(standalone_mode=False)
        sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted; everything that was recorded is intact")
        # A normal exit would wait for threads, which may be waiting for a registry that hangs.
        os._exit(INTERRUPTED)
    except SystemExit:
        # click raises SystemExit, without a message, if the reader of standard output is gone.
        status = FAILED
    except Exception as error:  # noqa: BLE001  bugs are reported as well
        status = report(error)
    if not discard_unwritten(streams):
        # Some lines of the log are lost. Only the exit status can still report this.
        status = status or FAILED
    sys.exit(status)
