"""The command ``web``, which shows the record in a browser."""

import sys

import click

from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import set_up
from tagsync.errors import TagsyncError


@click.command(cls=StrictCommand)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Loopback address to listen on. Other addresses are refused, because the pages have no"
    " login.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port to listen on; 0 for any free port.",
)
@click.pass_obj
def web(settings: Settings, host: str, port: int) -> None:
    """Show the record in a browser.

    The command prints an address and serves pages there until it is interrupted. The pages show how
    fresh the record is, the latest changes, each repository's timeline, each tag's history, the
    record as of a moment, the difference between two moments, the saved questions, and all tables.
    A search finds repositories, tags, digests and references of images. The pages cannot change
    anything. The command needs the extra `web`.

    \b
    Example:
      tagsync web --port 0
    """
    # Datasette prefers pysqlite3, which cannot use tagsync's connections of sqlite3. With None in
    # `sys.modules`, the import of pysqlite3 fails, and Datasette uses sqlite3.
    sys.modules["pysqlite3"] = None  # type: ignore[assignment]  # as Python documents it
    try:
        from tagsync.web import serve  # noqa: PLC0415  an extra, and slow to import
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"datasette", "uvicorn"}:
            raise
        raise TagsyncError(
            "tagsync web needs Datasette, which is not installed: install tagsync with its extra"
            " `web`, for example by pip install '.[web]' in the folder of tagsync's source"
        ) from error
    config = set_up(settings)
    endpoints = {name: registry.endpoint for name, registry in config.registries.items()}
    serve(config.database, config.watches, endpoints, host, port, click.echo)
