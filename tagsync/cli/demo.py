"""The command ``demo``, which shows what tagsync does, on an emulated registry."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click

from tagsync import log
from tagsync.audit.queries import Audit
from tagsync.audit.rows import column_names
from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand
from tagsync.cli.output import show_table
from tagsync.cli.rows import SyncRow
from tagsync.cli.setup import display_path
from tagsync.cli.sync import run_pass
from tagsync.cli.sync_result import to_row
from tagsync.config import Config, load
from tagsync.emulator import REFERENCE_REPOSITORY, Emulator
from tagsync.errors import ConfigError, TagsyncError
from tagsync.polling.jobs import Options

CONFIG: Final = """\
# Written by `tagsync demo`. The emulated registry ended with the demo, the database stays.
[store]
path = "tagsync.db"

[[registries]]
name = "demo"
endpoint = "{endpoint}"
retry_for = "2s"

[registries.auth]
kind = "token"
token = "env:TAGSYNC_DEMO_TOKEN"

[[registries.watch]]
repositories = ["{reference}", "team-a/api", "team-a/web/frontend"]
"""

TOKEN: Final = "made-up-demo-token"  # noqa: S105  valid only in the emulator

SHOWN: Final = ("observed_at", "repository", "tag", "kind", "old_digest", "new_digest")


@click.command(cls=StrictCommand)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="New folder for the configuration and the database; default: ./tagsync-demo, or"
    " ./tagsync-demo-2 and so on if ./tagsync-demo exists.",
)
@click.pass_obj
def demo(settings: Settings, directory: Path | None) -> None:
    """Show what tagsync does, on an emulated registry.

    The demo starts an emulated SWR on loopback and mirrors it. It then pushes, moves and deletes
    tags, mirrors the registry again, and shows the recorded changes. The demo works offline, and
    the emulated SWR ends with it.

    \b
    Example:
      tagsync demo
    """
    # On a terminal, the log lines would only repeat the changes that the tables show.
    quiet = settings.log_level == "info" and sys.stderr.isatty()
    level = "warning" if quiet else settings.log_level
    log.configure(settings.log_format, level)  # type: ignore[arg-type]  # click checked it
    folder = _make_folder(directory)
    with _start_emulator() as swr:
        _fill(swr)
        path = folder / "config.toml"
        path.write_text(CONFIG.format(endpoint=swr.url, reference=REFERENCE_REPOSITORY))
        config = load(path, {})
        _say(f"An emulated SWR answers at {swr.url}; {display_path(path)} points to it.")
        _say("The first sync records the existing tags as the baseline:")
        _sync(config)
        moved = swr.push("team-a/api", "latest", "api 1.1")
        swr.push("team-a/api", "v1.1", "api 1.1")
        swr.delete("team-a/web/frontend", "preview")
        swr.set_fields("team-a/web/frontend", "v2", is_trusted=True)
        _say(
            f"v1.1 is pushed, latest moves to it ({moved[:19]}), preview is deleted, v2 is signed:"
        )
        _sync(config)
    _say("The changes that tagsync has recorded since the baseline:")
    with Audit.open(config.database) as audit:
        changes = (row for row in audit.log(()) if row["not_before"])
        show_table(changes, SHOWN)
    _show_next_steps(path, config.database)


@contextmanager
def _start_emulator() -> Iterator[Emulator]:
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(Emulator(token=TOKEN))
        except OSError as error:
            raise TagsyncError(
                f"the emulated registry cannot listen on 127.0.0.1 ({error.strerror}): check that"
                " the loopback interface is up"
            ) from error
        yield emulator


def _sync(config: Config) -> None:
    polls = run_pass(config, (), Options(), {"TAGSYNC_DEMO_TOKEN": TOKEN})
    show_table(map(to_row, polls), column_names(SyncRow)[:-1])


def _fill(swr: Emulator) -> None:
    swr.push_reference_example()
    swr.push("team-a/api", "v1.0", "api 1.0")
    swr.push("team-a/api", "latest", "api 1.0")
    for tag in ("v1", "v2", "preview"):
        swr.push("team-a/web/frontend", tag, f"frontend {tag}")


def _make_folder(directory: Path | None) -> Path:
    """Create the given folder, or ``tagsync-demo`` with the first free number."""
    numbered = (Path(f"tagsync-demo{n}") for n in ("", *map("-{}".format, range(2, 1000))))
    for folder in [directory] if directory else numbered:
        try:
            folder.mkdir(parents=directory is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder} cannot be created: {error.strerror}") from error
        return folder
    raise ConfigError(
        f"{directory or 'every folder up to tagsync-demo-999'} exists already: give another folder"
        " with --directory"
    )


def _show_next_steps(config: Path, database: Path) -> None:
    command = f"tagsync --config {shlex.quote(display_path(config.absolute()))}"
    _say(f"The database is {display_path(database)}. Query it:")
    for name in ("log", "tags", "status"):
        click.echo(f"  {command} {name}")
    query = "SELECT tag, digest, valid_from, valid_to FROM tag_history"
    click.echo(f"  sqlite3 -box {shlex.quote(display_path(database))} {shlex.quote(query)}")


def _say(sentence: str) -> None:
    click.echo(f"\n{sentence}")
