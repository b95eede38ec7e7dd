"""The command ``init``, which writes a first configuration."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

import click

from tagsync.cli.check import check
from tagsync.cli.options import StrictCommand
from tagsync.cli.setup import display_path
from tagsync.cli.shipped import shipped_files
from tagsync.config import parse
from tagsync.config.checks import REGISTRY_NAME
from tagsync.config.toml import format_value
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError

_AUTH_KEYS: Final[Mapping[str, Mapping[str, str | None]]] = {
    "aksk": {"access_key": "env:SWR_ACCESS_KEY", "secret_key": "env:SWR_SECRET_KEY"},
    "password": dict.fromkeys(("iam_endpoint", "username", "password", "domain", "project")),
    "token": {"token": None},
    "ecs": {},
    "basic": {"username": None, "password": None},
    "docker": {},
    "none": {},
}
"""The keys that each kind of ``[registries.auth]`` needs, and their defaults, if there are any."""

_OPTIONAL_KEYS: Final[Mapping[str, Sequence[str]]] = {
    "aksk": ("security_token", "project_id"),
    "ecs": ("metadata_endpoint",),
    "docker": ("path",),
}
"""Further keys of some kinds. A key without a value is not written."""

_SECRETS: Final = frozenset({"access_key", "secret_key", "security_token", "password", "token"})
_METAVARS: Final = {"iam_endpoint": "URL", "metadata_endpoint": "URL", "path": "FILE"}
_OPTIONS: Final = {"path": "--docker-config"}
"""The options whose names are not those of their keys."""

_DEFAULT_AUTH: Final = {"swr": "aksk", "oci": "none"}

_CONFIG: Final = """\
# The configuration of tagsync. `tagsync check` tests it, and `tagsync config` prints it with all
# defaults. `tagsync init --files DIR` writes config.example.toml, which explains every key.

[store]
# The database. By default it is beside this file, or in $STATE_DIRECTORY under systemd.
# path = "tagsync.db"

[schedule]
# How often `tagsync run` polls each repository. If you run `tagsync sync` from a timer, write how
# often the timer runs.
# interval = "5m"

[[registries]]
# The first part of full names, such as {name}/namespace/repository. The history is recorded under
# this name, so do not change it later.
name = {name_value}
kind = {kind}
endpoint = {endpoint}

[registries.auth]
# A secret is written as the place where it is stored: env:NAME, file:PATH, or credential:NAME under
# systemd.
{auth}

[[registries.watch]]
# Names of repositories without the name of the registry, or globs, in which * also matches slashes.
repositories = {repositories}
# exclude = ["namespace/scratch-*"]
"""


def _check_place(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check the place of a secret. The error does not quote it: it may be the secret itself."""
    try:
        return None if value is None else SecretName.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


def _keys(kind: str) -> tuple[str, ...]:
    return (*_AUTH_KEYS[kind], *_OPTIONAL_KEYS.get(kind, ()))


def _option(key: str) -> str:
    return _OPTIONS.get(key, f"--{key.replace('_', '-')}")


def _auth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each key of each kind."""
    for key in reversed(dict.fromkeys(key for kind in _AUTH_KEYS for key in _keys(kind))):
        kinds = " or ".join(kind for kind in _AUTH_KEYS if key in _keys(kind))
        is_optional = any(key in keys for keys in _OPTIONAL_KEYS.values())
        command = click.option(
            _option(key),
            key,
            callback=_check_place if key in _SECRETS else None,
            metavar="PLACE" if key in _SECRETS else _METAVARS.get(key, "NAME"),
            help=f"For --auth {kinds}{'; optional' if is_optional else ''}.",
        )(command)
    return command


@click.command(cls=StrictCommand)
@click.argument("repositories", metavar="[REPOSITORY]...", nargs=-1)
@click.option("--kind", type=click.Choice(list(_DEFAULT_AUTH)), help="The registry's kind.")
@click.option("--endpoint", metavar="URL", help="The registry's URL.")
@click.option("--name", metavar="NAME", help="Its name; default: swr, or the endpoint's host.")
@click.option(
    "--auth",
    "auth_kind",
    type=click.Choice(list(_AUTH_KEYS)),
    metavar="KIND",
    help=f"{', '.join(_AUTH_KEYS)}; default: aksk for swr, none for oci.",
)
@_auth_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The new file; default: --config, else ./config.toml.",
)
@click.option(
    "--files",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also, or only, write the systemd units and the full example here.",
)
@click.pass_context
def init(
    ctx: click.Context,
    /,
    repositories: tuple[str, ...],
    kind: str | None,
    endpoint: str | None,
    name: str | None,
    auth_kind: str | None,
    output: Path | None,
    files: Path | None,
    **auth: str | None,
) -> int:
    """Write a first configuration, and check it.

    REPOSITORY is a name such as team-a/api, or a glob such as 'team-a/*'. PLACE says where a secret
    is stored: env:NAME, file:PATH or credential:NAME. No existing file is changed. The exit status
    is that of tagsync check.

    \b
    Example:
      tagsync init --kind oci --endpoint https://ghcr.io org/app
      tagsync init --kind swr --endpoint https://swr-api.example.com 'team-a/*'
      tagsync init --files /etc/tagsync
    """
    texts = _read_shipped(files) if files else {}
    path: Path | None = None
    if files is None or any(
        [kind, endpoint, name, auth_kind, output, *repositories, *auth.values()]
    ):
        if not (kind and endpoint and repositories):
            raise click.UsageError("give --kind, --endpoint and at least one REPOSITORY", ctx)
        path = output or Path(ctx.obj.config or "config.toml")
        table = _auth_table(ctx, auth_kind or _DEFAULT_AUTH[kind], auth)
        text = _config_text(name or _name(kind, endpoint), kind, endpoint, table, repositories)
        parse(text, os.environ, path.absolute().parent)
        texts[path] = text
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
    _create_files(texts)
    if path is None:
        return 0
    ctx.obj = ctx.obj._replace(config=str(path))
    status: int = ctx.invoke(check, output_format="table")
    return status


def _auth_table(
    ctx: click.Context, kind: str, given: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Return the table ``[registries.auth]``, from the options that were given and the defaults.

    Raises:
        click.UsageError: If an option is missing, or is for another kind.
    """
    if other := [_option(key) for key, value in given.items() if value and key not in _keys(kind)]:
        raise click.UsageError(f"{', '.join(other)} does not belong to --auth {kind}", ctx)
    needed = {key: given[key] or default for key, default in _AUTH_KEYS[kind].items()}
    if missing := [_option(key) for key, value in needed.items() if not value]:
        raise click.UsageError(f"--auth {kind} also needs {', '.join(missing)}", ctx)
    more = {key: given[key] for key in _OPTIONAL_KEYS.get(kind, ()) if given[key]}
    return {"kind": kind, **needed, **more}


def _name(kind: str, endpoint: str) -> str:
    """Return the name of a registry for which none was given."""
    host = urlsplit(endpoint).hostname or ""
    return host if kind == "oci" and REGISTRY_NAME.fullmatch(host) else kind


def _config_text(
    name: str,
    kind: str,
    endpoint: str,
    auth: Mapping[str, str | None],
    repositories: Sequence[str],
) -> str:
    return _CONFIG.format(
        name=name,
        name_value=format_value(name),
        kind=format_value(kind),
        endpoint=format_value(endpoint),
        auth="\n".join(f"{key} = {format_value(value)}" for key, value in auth.items()),
        repositories=format_value(list(repositories)),
    )


def _read_shipped(folder: Path) -> dict[Path, str]:
    """Return the text of each shipped file, by the path that it will have in a folder."""
    return {folder / file.name: file.read_text(encoding="utf-8") for file in shipped_files()}


def _create_files(texts: Mapping[Path, str]) -> None:
    """Create files, and print the path of each.

    Raises:
        ConfigError: If one of them exists already. No file is created then.
        OSError: If a file cannot be written. It is removed again.
    """
    for path in texts:
        if os.path.lexists(path):
            raise _exists(path)
    for path, text in texts.items():
        try:
            # Never over a file that another process has created since the check above.
            with path.open("x", encoding="utf-8") as file:
                _write(file, path, text)
        except FileExistsError as error:
            raise _exists(path) from error
        click.echo(f"wrote {display_path(path)}")


def _write(file: TextIO, path: Path, text: str) -> None:
    try:
        file.write(text)
        file.flush()
    except BaseException:
        path.unlink()
        raise


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists already: name another place, or remove it first")
