"""``demo``: what tagsync does, shown on an emulated registry within seconds."""

import shlex
import sys
from pathlib import Path

import click

from tagsync import log
from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.cli.output import show
from tagsync.cli.setup import named
from tagsync.cli.sync import COLUMNS, row_of, run
from tagsync.config import Config, load
from tagsync.emulator import REFERENCE_REPOSITORY, Emulator
from tagsync.errors import ConfigError
from tagsync.polling.run_once import Options

CONFIG = """\
# Written by `tagsync demo`. The emulated registry is gone, the database stays.
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

TOKEN = "made-up-demo-token"  # noqa: S105  the emulator's own

SHOWN = ("observed_at", "repository", "tag", "kind", "old_digest", "new_digest")


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the configuration and the database go; else ./tagsync-demo, or the next free name.",
)
@click.pass_obj
def demo(settings: Settings, directory: Path | None) -> None:
    """Show what tagsync does, on an emulated registry.

    Starts an SWR on loopback, mirrors it, pushes, moves and deletes tags, mirrors it again, and
    shows what was recorded. Works offline and leaves nothing running.

    \b
    Example:
      tagsync demo
    """
    # On a terminal the tables tell the same story, and the log's lines would bury them.
    quiet = settings.log_level == "info" and sys.stderr.isatty()
    level = "warning" if quiet else settings.log_level
    log.configure(settings.log_format, level)  # type: ignore[arg-type]  # click checked it
    folder = _make_folder(directory)
    with Emulator(token=TOKEN) as swr:
        _fill(swr)
        path = folder / "config.toml"
        path.write_text(CONFIG.format(endpoint=swr.url, reference=REFERENCE_REPOSITORY))
        config = load(path, {})
        _say(f"An emulated SWR answers at {swr.url}; {named(path)} points to it.")
        _say("The first sync takes what is there as the baseline:")
        _sync(config)
        moved = swr.push("team-a/api", "latest", "api 1.1")
        swr.push("team-a/api", "v1.1", "api 1.1")
        swr.delete("team-a/web/frontend", "preview")
        swr.set_fields("team-a/web/frontend", "v2", is_trusted=True)
        _say(f"v1.1 is pushed, latest moves to it ({moved[:19]}), preview is deleted, v2 signed:")
        _sync(config)
    _say("What tagsync now knows, beyond the baseline:")
    with Audit.open(config.database) as audit:
        changes = (row for row in audit.log(()) if row["not_before"])
        show(changes, SHOWN, "table")
    _point_onwards(path, config.database)


def _sync(config: Config) -> None:
    polls = run(config, (), Options(), {"TAGSYNC_DEMO_TOKEN": TOKEN})
    show((row_of(poll) for poll in polls), COLUMNS[:-1], "table")


def _fill(swr: Emulator) -> None:
    swr.push_reference_example()
    swr.push("team-a/api", "v1.0", "api 1.0")
    swr.push("team-a/api", "latest", "api 1.0")
    for tag in ("v1", "v2", "preview"):
        swr.push("team-a/web/frontend", tag, f"frontend {tag}")


def _make_folder(given: Path | None) -> Path:
    names = (
        [given]
        if given
        else (Path(f"tagsync-demo{n}") for n in ("", *map("-{}".format, range(2, 1000))))
    )
    for folder in names:
        try:
            folder.mkdir(parents=given is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error
        return folder
    raise ConfigError(
        f"{given or 'every tagsync-demo folder'} exists already: name another with --directory"
    )


def _point_onwards(config: Path, database: Path) -> None:
    command = f"tagsync --config {shlex.quote(named(config.absolute()))}"
    _say(f"The database is {named(database)}. Ask it:")
    for question in ("log", "tags", "status"):
        click.echo(f"  {command} {question}")
    query = "SELECT tag, digest, valid_from, valid_to FROM tag_history"
    click.echo(f"  sqlite3 -box {shlex.quote(named(database))} {shlex.quote(query)}")


def _say(sentence: str) -> None:
    click.echo(f"\n{sentence}")
