"""``run``: the daemon."""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from tagsync.cli import Settings
from tagsync.cli.sync import check_watches, open_one
from tagsync.cli.wiring import configuration, find_configuration
from tagsync.config import Config, load
from tagsync.config.secret_sources import resolve_credential
from tagsync.config.tables import RegistryTable
from tagsync.daemon.metrics import Endpoint, Metrics
from tagsync.daemon.service import Daemon, Plan, Source
from tagsync.daemon.systemd import ServiceManager
from tagsync.database.store import Store
from tagsync.errors import ConfigError
from tagsync.registries.credentials import Credential


@click.command()
@click.pass_obj
def run(settings: Settings) -> None:
    """Poll every repository on its own schedule, until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration again; if it is wrong, the one in force is kept. Under systemd
    the service manager is told how the daemon is.

    \b
    Example:
      tagsync run
    """
    config = configuration(settings)
    setup = _Setup(find_configuration(settings).absolute(), config, os.environ)
    plan = setup.plan(config)
    daemon = Daemon(
        plan, setup.reload, Store.open(config.database), setup.metrics, ServiceManager(os.environ)
    )
    setup.serve(config, daemon)
    if not daemon.run():
        # A normal exit would wait for threads that wait for a registry.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class _Setup:
    """Makes plans of the configuration; what did not change in it is not opened again."""

    def __init__(self, path: Path, config: Config, env: Mapping[str, str]) -> None:
        self.metrics = Metrics(version("tagsync"))
        self._path = path
        self._database = config.database
        self._env = env
        self._opened: dict[str, tuple[RegistryTable, Credential, Source]] = {}
        self._listen: tuple[str, int] | None = None
        self._endpoint: Endpoint | None = None
        self._daemon: Daemon | None = None

    def reload(self) -> Plan:
        """Reads the configuration again.

        Raises:
            ConfigError: it is wrong, or changes what only a new start can; nothing was changed.
        """
        config = load(self._path, self._env)
        if config.database != self._database:
            raise ConfigError(
                f"store.path is {config.database} where {self._database} is open: restart to use"
                " another database"
            )
        return self.plan(config)

    def plan(self, config: Config) -> Plan:
        """What a configuration asks of the daemon.

        Raises:
            ConfigError: a secret is missing, or there is nothing to poll, or nowhere to listen.
        """
        check_watches(config)
        with ExitStack() as stack:
            opened = {
                name: self._source(table, config, stack)
                for name, table in config.registries.items()
            }
            if self._daemon is not None:
                self.serve(config, self._daemon)
            stack.pop_all()
        self._opened = opened
        return Plan({name: source for name, (*_, source) in opened.items()}, config.watches)

    def serve(self, config: Config, daemon: Daemon) -> None:
        """Answers ``/metrics`` and ``/healthz`` where the configuration says.

        Raises:
            ConfigError: the address cannot be had; the one before is kept.
        """
        self._daemon = daemon
        if config.listen == self._listen:
            return
        application = self.metrics.application(daemon.health)
        endpoint = Endpoint(config.listen, application) if config.listen else None
        if self._endpoint is not None:
            self._endpoint.close()
        self._listen, self._endpoint = config.listen, endpoint

    def _source(
        self, table: RegistryTable, config: Config, stack: ExitStack
    ) -> tuple[RegistryTable, Credential, Source]:
        asked_with = resolve_credential(table, self._env, config.folder)
        itself = msgspec.structs.replace(table, watch=[])
        if (before := self._opened.get(table.name)) and before[:2] == (itself, asked_with):
            return before
        registry = open_one(table, asked_with, config.folder)
        stack.callback(registry.close)
        source = Source(registry, table.concurrency, table.requests_per_second)
        return itself, asked_with, source
