"""``run``: the daemon."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
import structlog

from tagsync.cli import Settings
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import find_config, open_configured, require_watches, set_up
from tagsync.config import Config, load
from tagsync.config.notify_rules import load_rules
from tagsync.config.secret_sources import (
    changed_credentials,
    read_hook_secret,
    resolve_credential,
)
from tagsync.config.tables import RegistryTable
from tagsync.daemon.endpoint import Endpoint, make_application
from tagsync.daemon.hooks import Hooks
from tagsync.daemon.metrics import Application, Metrics
from tagsync.daemon.service import Daemon
from tagsync.daemon.systemd import ServiceManager
from tagsync.daemon.verify_runner import VerifyProcess
from tagsync.daemon.watchlist import Plan, RegistryHandle
from tagsync.database.daemon_lock import DaemonLock
from tagsync.database.store import Store
from tagsync.errors import ConfigError
from tagsync.escaping import escape_control_characters
from tagsync.registries.credentials import Credential
from tagsync.registries.deadline import patience_within

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


@click.command(cls=StrictCommand)
@click.pass_obj
def run(settings: Settings) -> None:
    """Poll every repository on its own schedule, until stopped.

    SIGTERM and Ctrl-C stop the daemon. SIGHUP reloads the configuration. If the new configuration
    is wrong, the daemon keeps the current one. Under systemd, the daemon reports its state to the
    service manager. With hooks.listen set, it also polls a repository at once when its registry
    reports a push. A second daemon on the same database refuses to start.

    \b
    Example:
      tagsync run
    """
    manager = ServiceManager(os.environ)
    try:
        _run_daemon(settings, manager)
    except Exception as error:
        manager.status(f"Not running: {escape_control_characters(str(error))}")
        raise


def _run_daemon(settings: Settings, manager: ServiceManager) -> None:
    config = set_up(settings)
    loader = _PlanLoader(find_config(settings).absolute(), config, os.environ)
    plan = loader.plan(config)
    with DaemonLock(config.database):
        daemon = Daemon(
            plan,
            loader.reload,
            Store.open(config.database),
            loader.metrics,
            manager,
            verifications=VerifyProcess(config.database),
        )
        loader.serve(config, daemon)
        if not daemon.run():
            # A normal exit would wait for threads, which may be waiting for a registry that hangs,
            # and for the log, whose reader may have stopped reading.
            os._exit(0)


class _Listener(NamedTuple):
    """An endpoint and its configured address. Both are None if there is none."""

    address: tuple[str, int] | None = None
    endpoint: Endpoint | None = None

    def moved(
        self,
        key: str,
        address: tuple[str, int] | None,
        application: Application,
        stack: ExitStack,
    ) -> "_Listener":
        """Return this listener, or a new one if the address is another one.

        Args:
            key: The key of the configuration that sets the address.
            address: Host and port. None to listen nowhere.
            application: Answers the requests.
            stack: Closes a new listener if another step fails.

        Raises:
            ConfigError: If the daemon cannot listen there.
        """
        if address == self.address:
            return self
        if address is None:
            return _Listener()
        endpoint = Endpoint(address, application, key)
        stack.callback(endpoint.close)
        return _Listener(address, endpoint)

    def close(self) -> None:
        """Stop listening."""
        if self.endpoint is not None:
            self.endpoint.close()


class _PlanLoader:
    """Turns configurations into plans. A registry that did not change stays open."""

    def __init__(self, path: Path, config: Config, env: Mapping[str, str]) -> None:
        self.metrics = Metrics(version("tagsync"))
        self._path = path
        self._database = config.database
        self._env = env
        self._opened: dict[str, tuple[RegistryTable, Credential, RegistryHandle]] = {}
        self._pages = _Listener()
        self._hook_listener = _Listener()
        self._hooks: Hooks | None = None
        self._daemon: Daemon | None = None

    def reload(self) -> Plan:
        """Load the configuration again and return its plan.

        Raises:
            ConfigError: If the configuration is wrong, or names another database. Nothing is
                changed then.
        """
        config = load(self._path, self._env)
        for path in changed_credentials(config.secret_tables, self._env, config.folder):
            log.warning("config.credential_changed", file=str(path))
        if config.database != self._database:
            raise ConfigError(
                f"store.path is now {config.database}, but {self._database} is open: restart the"
                " daemon to use another database"
            )
        return self.plan(config)

    def plan(self, config: Config) -> Plan:
        """Open the registries that are new in a configuration, and return its plan.

        Raises:
            ConfigError: If a secret is missing, no repository is configured, a destination of
                notifications is wrong, or the daemon cannot listen on the configured address.
        """
        require_watches(config)
        rules = load_rules(config, self._env)
        with ExitStack() as stack:
            opened = {
                name: self._handle(table, config, stack)
                for name, table in config.registries.items()
            }
            if self._daemon is not None:
                self.serve(config, self._daemon)
            stack.pop_all()
        self._opened = opened
        handles = {name: handle for name, (*_, handle) in opened.items()}
        return Plan(handles, config.watches, config.file.schedule.verify, rules)

    def serve(self, config: Config, daemon: Daemon) -> None:
        """Serve the daemon's pages, and receive push hints, on the configured addresses.

        Raises:
            ConfigError: If the daemon cannot listen there, or the secret for push hints cannot be
                read. The current addresses stay in use.
        """
        self._daemon = daemon
        secret = read_hook_secret(config.file.hooks, self._env, config.folder)
        if self._hooks is None:
            self._hooks = Hooks(daemon.hint, self.metrics)
        application = make_application(self.metrics, daemon.health, daemon.liveness)
        hook_application = self._hooks.application()
        with ExitStack() as stack:
            pages = self._pages.moved("metrics.listen", config.listen, application, stack)
            hook_listener = self._hook_listener.moved(
                "hooks.listen", config.hooks_listen, hook_application, stack
            )
            stack.pop_all()
        for before, after in ((self._pages, pages), (self._hook_listener, hook_listener)):
            if before is not after:
                before.close()
        self._pages, self._hook_listener = pages, hook_listener
        if secret is not None:
            self._hooks.configure(secret, config.registries)

    def _handle(
        self, table: RegistryTable, config: Config, stack: ExitStack
    ) -> tuple[RegistryTable, Credential, RegistryHandle]:
        credential = resolve_credential(table, self._env, config.folder)
        without_watches = msgspec.structs.replace(table, watch=[])
        opened = self._opened.get(table.name)
        if opened and opened[:2] == (without_watches, credential):
            return opened
        registry = open_configured(table, credential, config.folder)
        stack.callback(registry.close)
        patience = patience_within(table.timeout.total_seconds())
        handle = RegistryHandle(registry, table.concurrency, table.requests_per_second, patience)
        return without_watches, credential, handle
