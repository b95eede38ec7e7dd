"""``tagsync web``: Datasette on the database, with pages of our own for those who audit.

Needs the extra ``web``. Nothing that is shown can change anything: the database is opened for
reading only, only GET and HEAD are answered, and no page may run a script, see `tagsync.web.guard`.
"""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from datasette.app import Datasette
from datasette.plugins import pm

from tagsync.audit.queries import Audit
from tagsync.errors import ConfigError
from tagsync.registries.hosts import is_loopback
from tagsync.web import pages
from tagsync.web.database import TIME_LIMIT, ReadOnlyDatabase
from tagsync.web.descriptions import metadata
from tagsync.web.guard import Guard

_SETTINGS: Final = {
    "sql_time_limit_ms": int(TIME_LIMIT * 1000),
    "facet_time_limit_ms": 1000,
    # On a large table each page would wait for a guess at what else one might want to see.
    "suggest_facets": False,
    # A download during a write would be inconsistent; docs/database.md has a command that copies.
    "allow_download": False,
    # What is shown is what is recorded at this moment.
    "default_cache_ttl": 0,
    "default_page_size": 50,
    "truncate_cells_html": 300,
}

_GRACE: Final = 3
"""Seconds that answers under way have when the process is told to end."""


def serve(database: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves the pages until the process is told to end, by SIGINT or SIGTERM.

    Args:
        database: the file; it is neither made nor changed.
        host: a loopback address, or ``localhost``.
        port: 0 for any that is free.
        ready: called with the pages' address once they can be asked for.

    Raises:
        ConfigError: the address is not loopback, or cannot be listened on.
        UnusableDatabase: there is no database, or it is another program's or a newer tagsync's.
        StoreError: it cannot be read.
    """
    with Audit.open(database):
        pass
    with _listen(host, port) as listener:
        server = _Server(_datasette(database))
        bound, at = listener.getsockname()[:2]
        ready(f"http://{f'[{bound}]' if ':' in bound else bound}:{at}/")
        with _signals_end_quietly():
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server whose queries end when it is told to."""

    def __init__(self, datasette: Datasette) -> None:
        super().__init__(
            uvicorn.Config(
                Guard(datasette.app()),
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._database = datasette.get_database(pages.DATABASE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the connections, once what is being answered has been, or had its time."""
        self._database.end()
        await super().shutdown(sockets)


def _datasette(database: Path) -> Datasette:
    if not pm.is_registered(pages):
        pm.register(pages, "tagsync")
    folder = Path(__file__).parent
    datasette = Datasette(
        metadata=metadata(pages.DATABASE),
        settings=_SETTINGS,
        template_dir=str(folder / "templates"),
        static_mounts=[("assets", str(folder / "static"))],
    )
    # It is made where no file is named, and has nothing to do with the record.
    datasette.remove_database("_memory")
    datasette.add_database(ReadOnlyDatabase(datasette, database), name=pages.DATABASE)
    return datasette


def _listen(host: str, port: int) -> socket.socket:
    if not is_loopback(host):
        raise ConfigError(
            f"{host} is not a loopback address, and these pages have no login: listen on 127.0.0.1"
            " and let others come through an SSH tunnel (docs/audit.md, In a browser)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"port {port} of {host} cannot be listened on ({reason}): choose another with --port,"
            " 0 for any that is free"
        ) from error


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Lets uvicorn end the server on a signal, and nothing else happen.

    It raises the signal once more when it has ended, for whatever handled it before.
    """

    def done(_number: int, _frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, done) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
