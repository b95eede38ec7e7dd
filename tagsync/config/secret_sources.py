"""Read the secrets that the configuration names, when a registry is opened."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from tagsync.config.tables import HooksTable, RegistryTable
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.registries.credentials import Credential, DockerCredential
from tagsync.secrets import Secret

_MIN_HOOK_SECRET: Final = 16
"""Minimum length of the secret for push hints, in characters."""


def resolve_credential(registry: RegistryTable, env: Mapping[str, str], folder: Path) -> Credential:
    """Read a registry's secrets, and return its credential.

    Args:
        registry: The registry's table.
        env: The environment.
        folder: The folder of the configuration file, for relative paths.

    Raises:
        ConfigError: If a secret is missing or cannot be read, or if a path begins with ``~`` but
            the user has no home folder.
    """
    table = registry.auth
    resolved: dict[str, Any] = {
        key: read_secret(value, env, folder)
        for key, value in msgspec.structs.asdict(table).items()
        if isinstance(value, SecretName)
    }
    if isinstance(table, DockerCredential) and table.path is not None:
        resolved["path"] = _absolute(table.path, folder)
    # mypy does not see that each SecretName is replaced by a Secret.
    return cast("Credential", msgspec.structs.replace(table, **resolved))


def read_secret(name: SecretName, env: Mapping[str, str], folder: Path) -> Secret:
    """Read a secret, and remove white space around it and a byte order mark before it.

    Args:
        name: The place where the secret is stored.
        env: The environment.
        folder: The folder of the configuration file, for relative paths.

    Raises:
        ConfigError: If the secret is missing or empty, or cannot be read.
    """
    scheme, _, place = name.partition(":")
    if scheme == "env":
        value = env.get(place, "")
    else:
        base = Path(env.get("CREDENTIALS_DIRECTORY", "")) if scheme == "credential" else folder
        if scheme == "credential" and "CREDENTIALS_DIRECTORY" not in env:
            raise ConfigError(
                f"the secret {name} is missing: $CREDENTIALS_DIRECTORY is not set; run under"
                " systemd with LoadCredential, or use env: or file:"
            )
        try:
            value = (base / place).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"the secret {name} cannot be read: {reason}") from error
    if not (value := value.strip()):
        raise ConfigError(f"the secret {name} is missing or empty: set it and try again")
    return Secret(value)


def read_hook_secret(table: HooksTable, env: Mapping[str, str], folder: Path) -> Secret | None:
    """Read the secret that a sender of push hints has to know.

    Args:
        table: The table ``[hooks]``.
        env: The environment.
        folder: The folder of the configuration file, for relative paths.

    Returns:
        None if the daemon receives no push hints.

    Raises:
        ConfigError: If the secret is missing or too short, or cannot be read.
    """
    if table.listen is None or table.secret is None:
        return None
    secret = read_secret(table.secret, env, folder)
    if len(secret.reveal()) < _MIN_HOOK_SECRET:
        raise ConfigError(
            f"the secret {table.secret} has fewer than {_MIN_HOOK_SECRET} characters, so a sender"
            " could guess it: make a longer one, for instance with openssl rand -hex 24"
        )
    return secret


def changed_credentials(
    tables: Iterable[msgspec.Struct], env: Mapping[str, str], folder: Path
) -> list[Path]:
    """Return the files of credentials that changed after systemd copied them.

    systemd copies a credential only when it starts the service, so the daemon does not see a
    later change. The units copy ``credential:NAME`` from the file NAME beside the configuration;
    a credential from another place is not compared.

    Args:
        tables: The tables with the places of secrets.
        env: The environment.
        folder: The folder of the configuration file.
    """
    copies = Path(env.get("CREDENTIALS_DIRECTORY", ""))
    names = sorted({name for table in tables for name in _credentials(table)})
    return [folder / name for name in names if _is_newer(folder / name, copies / name)]


def _credentials(table: msgspec.Struct) -> Iterator[str]:
    for value in msgspec.structs.asdict(table).values():
        scheme, _, name = value.partition(":") if isinstance(value, SecretName) else ("", "", "")
        if scheme == "credential":
            yield name


def _is_newer(source: Path, copy: Path) -> bool:
    try:
        # A file that was moved here keeps its time of modification, but not its ctime.
        return source.stat().st_ctime_ns > copy.stat().st_mtime_ns
    except OSError:
        return False


def _absolute(path: Path, folder: Path) -> Path:
    try:
        return folder / path.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"there is no home folder for {str(path)!r}: name a path without ~"
        ) from error
