"""Read the secrets that the configuration names."""

from collections.abc import Mapping
from pathlib import Path

from tagsync.config.tables import (
    AgencyTable,
    BasicTable,
    DockerTable,
    KeyTable,
    NoneTable,
    PasswordTable,
    RegistryTable,
    TokenTable,
)
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.registries.credentials import (
    AgencyCredential,
    BasicCredential,
    Credential,
    DockerCredential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.secrets import Secret


def credential(  # noqa: PLR0911  one for each kind
    registry: RegistryTable, env: Mapping[str, str], folder: Path
) -> Credential:
    """What a registry is asked with, its secrets read.

    Raises:
        ConfigError: a secret is missing.
    """

    def read(name: SecretName) -> Secret:
        return resolve(name, env, folder)

    match registry.auth:
        case TokenTable(token=token):
            return TokenCredential(read(token))
        case KeyTable() as keys:
            return KeyCredential(
                read(keys.access_key),
                read(keys.secret_key),
                read(keys.security_token) if keys.security_token else None,
                keys.project_id,
            )
        case PasswordTable() as user:
            return PasswordCredential(
                user.iam_endpoint, user.username, read(user.password), user.domain, user.project
            )
        case AgencyTable(metadata_endpoint=endpoint):
            return AgencyCredential(endpoint)
        case BasicTable(username=username, password=password):
            return BasicCredential(username, read(password))
        case DockerTable(path=path):
            return DockerCredential(_docker_config(env) if path is None else _path(path, folder))
        case NoneTable():
            return NoCredential()


def _docker_config(env: Mapping[str, str]) -> Path:
    """Where Docker itself looks for its ``config.json``."""
    return _path(env.get("DOCKER_CONFIG") or "~/.docker", Path()) / "config.json"


def _path(text: str, folder: Path) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"there is no home folder for {text!r}: name a path without ~") from error


def resolve(name: SecretName, env: Mapping[str, str], folder: Path) -> Secret:
    """Reads a secret from where it is kept; white space around it is dropped.

    Raises:
        ConfigError: it is not there, or empty.
    """
    scheme, _, where = name.partition(":")
    if scheme == "env":
        value = env.get(where, "")
    else:
        base = Path(env.get("CREDENTIALS_DIRECTORY", "")) if scheme == "credential" else folder
        if scheme == "credential" and "CREDENTIALS_DIRECTORY" not in env:
            raise ConfigError(
                f"the secret {name} is missing: $CREDENTIALS_DIRECTORY is not set; run under"
                " systemd with LoadCredential, or use env: or file:"
            )
        try:
            value = (base / where).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"the secret {name} cannot be read: {reason}") from error
    if not (value := value.strip()):
        raise ConfigError(f"the secret {name} is missing or empty: set it and try again")
    return Secret(value)
