"""The command ``restore``, which puts a backup in the place of the database."""

from pathlib import Path

import click

from tagsync.audit.backup import Restored
from tagsync.audit.backup import restore as put_back
from tagsync.cli import Settings
from tagsync.cli.formats import count_text
from tagsync.cli.lines import make_view, print_lines
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import display_path, load_config
from tagsync.cli.tables import Line, render
from tagsync.cli.verify import check_heads
from tagsync.database.skipped_events import SkippedEvents
from tagsync.errors import ConfigError


@click.command(cls=StrictCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--head",
    "heads",
    metavar="HASH",
    multiple=True,
    help="Also check that the backup contains this head, of either chain. May be repeated.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Restore even if the backup lacks a given head, or something that the present database"
    " has recorded.",
)
@click.pass_obj
def restore(settings: Settings, file: Path, heads: tuple[str, ...], force: bool) -> None:
    """Put a backup in the place of the database.

    Stop tagsync first: the command refuses while another process has the database open. It verifies
    the backup, and refuses one that does not contain everything that the present database has
    recorded. The present database is kept beside, with the ending .before-restore. The file of the
    backup stays as it is. Notifications of the backup that wait to be sent are skipped, because
    they may be old, and the command names them.

    \b
    Example:
      tagsync restore /backup/tagsync.db --head "$(tail -1 /mnt/witness/heads)"
    """
    database = load_config(settings).database
    heads = check_heads(heads)
    if not file.is_file():
        raise ConfigError(f"there is no backup at {file}: name a file that tagsync backup made")
    restored = put_back(file, database, heads, force=force)
    view = make_view(settings)
    sentences = [sentence(restored, file, database), *map(about_skipped, restored.skipped)]
    print_lines(render([Line(each) for each in sentences], view))


def sentence(restored: Restored, file: Path, database: Path) -> str:
    """Return the result for people."""
    changes = count_text(restored.heads.changes.change_id, "change")
    observations = count_text(restored.heads.observations.ended, "ended observation")
    text = f"{display_path(database)} has {changes} and {observations} from {file}."
    if restored.kept is None:
        return text
    return f"{text} The database that was there before is {display_path(restored.kept)}."


def about_skipped(skipped: SkippedEvents) -> str:
    """Return a sentence about the events that a destination will not be sent."""
    name, first, last = skipped
    what, it = ("event", "it") if first == last else ("events", "them")
    ids = f"{first}" if first == last else f"{first} to {last}"
    return (
        f"{name} will not be sent {what} {ids} of the backup: tagsync notify replay {name} --since"
        f" {first} sends {it}."
    )
