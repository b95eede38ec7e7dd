"""``tagsync web``: Datasette on the database, with pages for auditors.

This package needs tagsync's extra ``web``. The pages cannot change anything: the database is opened
for reading only, only GET and HEAD are answered, and no page may run a script (see
`tagsync.web.guard`).
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Final

import uvicorn
from datasette.app import Datasette
from datasette.plugins import pm

from tagsync.audit.queries import Audit
from tagsync.clock import utc_now
from tagsync.database import migrations
from tagsync.database.connection import reading
from tagsync.errors import ConfigError
from tagsync.models import Watch
from tagsync.registries.hosts import is_loopback
from tagsync.web import plugin
from tagsync.web.datasette_database import (
    DATABASE,
    FACET_TIME_LIMIT,
    THREADS,
    TIME_LIMIT,
    ReadOnlyDatabase,
)
from tagsync.web.descriptions import metadata
from tagsync.web.guard import Guard
from tagsync.web.search_queries import registries_by_host

_SETTINGS: Final = {
    "sql_time_limit_ms": int(TIME_LIMIT * 1000),
    "num_sql_threads": THREADS,
    "facet_time_limit_ms": FACET_TIME_LIMIT,
    # On a large table, every page would wait for Datasette to look for suitable facets.
    "suggest_facets": False,
    # A copy of the file alone lacks the newest changes, which are in its WAL.
    "allow_download": False,
    # Pages always show the current record.
    "default_cache_ttl": 0,
    "default_page_size": 50,
    "truncate_cells_html": 300,
}

_GRACE_PERIOD: Final = 3
"""Seconds in which running requests may finish after a signal to stop."""

_LONGEST_STOP: Final = 4.0
"""Seconds after which the process ends, whatever still runs. Some of SQLite's functions cannot be
interrupted, and Python waits for the thread of such a query."""


def serve(
    database: Path,
    watches: Sequence[Watch],
    endpoints: Mapping[str, str],
    host: str,
    port: int,
    ready: Callable[[str], None],
) -> None:
    """Serve the pages until SIGINT or SIGTERM.

    Args:
        database: The database file. It is neither created nor changed.
        watches: The watches of the configuration, by which pages judge whether a repository is
            stale. If there are none, no repository is called stale.
        endpoints: The URL of each configured registry, by name. A search for an image reference
            recognizes a registry by the host in it.
        host: A loopback address, or ``localhost``.
        port: The port to listen on. 0 means any free port.
        ready: Called with the address of the pages as soon as they can be requested.

    Raises:
        ConfigError: If the address is not loopback, or the server cannot listen on it.
        UnusableDatabase: If the database is missing, or belongs to another program or to
            another version of tagsync.
        StoreError: If the database cannot be read.
    """
    with Audit.open(database), reading(database) as db:
        migrations.check_current(db, str(database))
    with _listen(host, port) as listener:
        server = _Server(_datasette(database, watches, endpoints))
        address, actual_port = listener.getsockname()[:2]
        ready(f"http://{f'[{address}]' if ':' in address else address}:{actual_port}/")
        with _ignoring_repeated_signals():
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that interrupts its queries when it stops."""

    def __init__(self, datasette: Datasette) -> None:
        super().__init__(
            uvicorn.Config(
                Guard(datasette.app()),
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_PERIOD,
            )
        )
        self._database = datasette.get_database(DATABASE)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after a signal. If that takes too long, end the process: nothing can be lost."""
        if not self.should_exit:
            timer = Timer(_LONGEST_STOP, os._exit, (0,))
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Interrupt the queries, and close the connections."""
        ending = asyncio.create_task(self._database.end_queries())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()


def _datasette(database: Path, watches: Sequence[Watch], endpoints: Mapping[str, str]) -> Datasette:
    if not pm.is_registered(plugin):
        pm.register(plugin, "tagsync")
    folder = Path(__file__).parent
    datasette = Datasette(
        metadata=metadata(DATABASE),
        settings=_SETTINGS,
        template_dir=str(folder / "templates"),
        static_mounts=[("assets", str(folder / "static"))],
    )
    # Datasette creates this database if it is started without a file.
    datasette.remove_database("_memory")
    read_only = ReadOnlyDatabase(
        datasette, database, watches, utc_now, hosts=registries_by_host(endpoints)
    )
    datasette.add_database(read_only, name=DATABASE)
    return datasette


def _listen(host: str, port: int) -> socket.socket:
    if not is_loopback(host.lower()):
        raise ConfigError(
            f"{host} is not a loopback address, and these pages have no login: listen on 127.0.0.1"
            " and let other people connect through an SSH tunnel (docs/audit.md, In a browser)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"tagsync web cannot listen on port {port} of {host} ({reason}): choose another port"
            " with --port, or 0 for any free port"
        ) from error
    # Without it an answer waits for 40 ms, because asyncio sets it only for sockets of its own.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _ignoring_repeated_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM outside of uvicorn.

    uvicorn handles the first signal. After its shutdown, uvicorn raises the signal again for the
    handler that was installed before uvicorn's. The earlier handler has to do nothing.
    """

    def ignore(_number: int, _frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
