"""``web``: the record in a browser."""

import sys

import click

from tagsync.cli import Settings
from tagsync.cli.setup import configuration
from tagsync.errors import ConfigError


@click.command()
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="A loopback address; others are refused, as the pages have no login.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="0 for any that is free.",
)
@click.pass_obj
def web(settings: Settings, host: str, port: int) -> None:
    """Show the record in a browser.

    Serves pages on the database until it is interrupted: how fresh the record is, the latest
    changes, each repository's timeline, each tag's history, the saved questions, and all tables.
    Nothing can be changed through them. Prints their address. Needs the extra `web`.

    \b
    Example:
      tagsync web --port 0
    """
    # Datasette takes pysqlite3 where that is installed, and cannot use it on connections of
    # Python's own sqlite3, as ours are.
    sys.modules["pysqlite3"] = None  # type: ignore[assignment]  # how Python is told there is none
    try:
        from tagsync.web import serve  # noqa: PLC0415  an extra, and slow to import
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"datasette", "uvicorn"}:
            raise
        raise ConfigError(
            "tagsync web needs Datasette, which is not installed: install tagsync with its extra"
            " `web`, as by pip install '.[web]' in its folder"
        ) from error
    serve(configuration(settings).database, host, port, click.echo)
