"""Load the configuration, and open the log, the database and the registries."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tagsync.audit.queries import Audit
from tagsync.cli import Settings
from tagsync.config import Config, find, load
from tagsync.config.secret_sources import resolve_credential
from tagsync.config.tables import RegistryTable
from tagsync.errors import ConfigError
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import Credential


def set_up(settings: Settings) -> Config:
    """Set up logging and load the configuration.

    Raises:
        ConfigError: If the configuration is missing or wrong.
    """
    # Imported here, because the import takes a third of the time of a command that only queries.
    from tagsync import log  # noqa: PLC0415  see the comment above

    log.configure(settings.log_format, settings.log_level)  # type: ignore[arg-type]  # click checked it
    return load_config(settings)


def load_config(settings: Settings) -> Config:
    """Load the configuration without setting up logging.

    Raises:
        ConfigError: If the configuration is missing or wrong.
    """
    return load(find_config(settings), os.environ)


def find_config(settings: Settings) -> Path:
    """Return the path of the configuration file.

    Raises:
        ConfigError: If no configuration file is found.
    """
    return find(settings.config, os.environ)


@contextmanager
def open_audit(settings: Settings) -> Iterator[Audit]:
    """Open the configured database for queries.

    Raises:
        ConfigError: If the configuration is missing or wrong.
        UnusableDatabase: If the database is missing, or belongs to another program or to a newer
            tagsync.
        StoreError: If the database cannot be read.
    """
    with Audit.open(load_config(settings).database) as audit:
        yield audit


def require_watches(config: Config) -> None:
    """Check that the configuration watches at least one repository.

    Raises:
        ConfigError: If the configuration has no ``[[registries.watch]]``.
    """
    if not config.watches:
        raise ConfigError(
            "no repository is configured: name some under [[registries.watch]]"
            " (config.example.toml shows how)"
        )


def open_registries(
    config: Config, env: Mapping[str, str], stack: ExitStack
) -> dict[str, Registry]:
    """Open all registries, and return them by name.

    All secrets are read before the first request, so that a missing secret is reported at once.

    Args:
        config: The configuration of the registries.
        env: Environment variables that secrets may refer to.
        stack: The stack to which this function adds the closing of each registry.

    Raises:
        ConfigError: If a secret is missing or a file of certificates cannot be used.
    """
    opened: dict[str, Registry] = {}
    for name, table in config.registries.items():
        credential = resolve_credential(table, env, config.folder)
        opened[name] = open_configured(table, credential, config.folder)
        stack.callback(opened[name].close)
    return opened


def open_configured(table: RegistryTable, credential: Credential, folder: Path) -> Registry:
    """Open the registry of a ``[[registries]]`` table. The caller closes it.

    Args:
        table: The registry's table.
        credential: The credential of the table, with its secrets.
        folder: The folder that paths in the table are relative to.

    Raises:
        ConfigError: If the credential or the file of certificates cannot be used.
    """
    return open_registry(
        table.endpoint,
        credential,
        timeout=table.timeout.total_seconds(),
        retry_for=table.retry_for.total_seconds(),
        max_listing_bytes=table.max_listing_size,
        requests_per_second=table.requests_per_second,
        connections=table.concurrency,
        kind="oci" if table.kind == "oci" else "swr",
        list_choice=table.list,
        name=table.name,
        ca_file=_path_in(folder, table.ca_file),
        client_cert_file=_path_in(folder, table.client_cert_file),
        client_key_file=_path_in(folder, table.client_key_file),
    )


def _path_in(folder: Path, name: str | None) -> Path | None:
    return None if name is None else folder / name


def display_path(path: Path) -> str:
    """Return a path relative to the working directory, or unchanged if it is outside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
