"""The configuration: what may stand in it, and what is wrong with what does.

`parse` is pure. Secrets are only named here; `resolve` reads one, when a registry is opened, so
that commands which merely read the database need none.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, get_args
from urllib.parse import urlsplit

import msgspec
from cronsim import CronSim, CronSimError

from tagsync.errors import ConfigError
from tagsync.models import OCI_REPOSITORY, Repository, Watch, is_glob
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
from tagsync.registries.hosts import is_loopback
from tagsync.secrets import Secret

SEARCHED: Final = (Path("config.toml"), Path("/etc/tagsync/config.toml"))
"""Where the configuration is looked for when none is named."""

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Duration(timedelta):
    """A positive length of time, written as ``"90s"``, ``"5m"``, ``"1h30m"``."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Reads a duration.

        Raises:
            ValueError: it is none, or not positive.
        """
        parts = re.findall(r"(\d{1,9})(ms|s|m|h|d)", text) if isinstance(text, str) else []
        if not parts or "".join(map("".join, parts)) != text:
            raise ValueError(f'{text!r} is no duration; write it like "90s", "5m" or "1h30m"')
        seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
        if not 0 < seconds <= 366 * 86400:
            raise ValueError(f"{text!r} is no duration between 1 ms and a year")
        return cls(seconds=seconds)


_INTERVAL: Final = Duration(minutes=5)
_JITTER: Final = Duration(seconds=10)


class Size(int):
    """A number of bytes, written as ``"64MiB"``."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Reads a size.

        Raises:
            ValueError: it is none, or not positive.
        """
        match = re.fullmatch(r"(\d{1,9})(KiB|MiB|GiB)", text) if isinstance(text, str) else None
        if not match or not int(match[1]):
            raise ValueError(f'{text!r} is no size; write it like "512KiB" or "64MiB"')
        return cls(int(match[1]) * _SIZES[match[2]])


class Crontab(str):
    """When to poll, as the first five fields of a crontab's line; Debian's cron, in UTC."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "Crontab":
        """Reads the five fields.

        Raises:
            ValueError: they are no such fields, or name a moment that never comes.
        """
        advice = 'write minute, hour, day, month and weekday like "*/10 8-18 * * 1-5"'
        if not isinstance(text, str) or len(text.split()) != 5:  # noqa: PLR2004  a crontab's five
            raise ValueError(f"{text!r} is no cron expression; {advice}")
        try:
            # Backwards as well: how far polls are apart is told from those before.
            for reverse in (False, True):
                next(CronSim(text, datetime.now(UTC), reverse=reverse))
        except CronSimError as error:
            raise ValueError(f"{text!r} is no cron expression ({error}); {advice}") from error
        except StopIteration:
            raise ValueError(f"{text!r} names a moment that never comes; {advice}") from None
        return cls(text)


class SecretName(str):
    """Where a secret is kept: ``env:NAME``, ``file:PATH`` or ``credential:NAME`` (systemd's)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "SecretName":
        """Reads the name of a secret.

        Raises:
            ValueError: it is none; the text is not repeated, as it may be the secret itself.
        """
        if not isinstance(text, str) or not re.fullmatch(r"(env|file|credential):.+", text):
            raise ValueError(
                "a secret is not written here; name where it is kept:"
                ' "env:NAME", "file:PATH" or "credential:NAME"'
            )
        return cls(text)


_Positive = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Rate = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration: a key that it does not know is an error."""


class StoreTable(_Table):
    """``[store]``."""

    path: str | None = None


class ScheduleTable(_Table):
    """``[schedule]``."""

    interval: Duration | None = None
    cron: Crontab | None = None
    jitter: Duration | None = None
    discovery_interval: Duration = Duration(minutes=15)


class MetricsTable(_Table):
    """``[metrics]``."""

    listen: str | None = None


class NoneTable(_Table, tag_field="kind", tag="none"):
    """``[registries.auth]`` with ``kind = "none"``."""


class TokenTable(_Table, tag_field="kind", tag="token"):
    """``[registries.auth]`` with ``kind = "token"``."""

    token: SecretName


class KeyTable(_Table, tag_field="kind", tag="aksk"):
    """``[registries.auth]`` with ``kind = "aksk"``."""

    access_key: SecretName
    secret_key: SecretName
    security_token: SecretName | None = None
    project_id: str | None = None


class PasswordTable(_Table, tag_field="kind", tag="password"):
    """``[registries.auth]`` with ``kind = "password"``."""

    iam_endpoint: str
    username: str
    password: SecretName
    domain: str
    project: str


class AgencyTable(_Table, tag_field="kind", tag="ecs"):
    """``[registries.auth]`` with ``kind = "ecs"``."""

    metadata_endpoint: str = "http://169.254.169.254"


class BasicTable(_Table, tag_field="kind", tag="basic"):
    """``[registries.auth]`` with ``kind = "basic"``."""

    username: str
    password: SecretName


class DockerTable(_Table, tag_field="kind", tag="docker"):
    """``[registries.auth]`` with ``kind = "docker"``."""

    path: str | None = None


AuthTable = (
    NoneTable | TokenTable | KeyTable | PasswordTable | AgencyTable | BasicTable | DockerTable
)


class WatchTable(_Table):
    """``[[registries.watch]]``."""

    repositories: list[str]
    exclude: list[str] = []
    shared: bool = False
    interval: Duration | None = None
    cron: Crontab | None = None
    jitter: Duration | None = None
    discovery_interval: Duration | None = None
    tags: tuple[str, ...] = ("*",)
    manifests: bool = False


class RegistryTable(_Table):
    """``[[registries]]``."""

    name: str
    endpoint: str
    kind: str = "swr"
    ca_file: str | None = None
    auth: AuthTable = msgspec.field(default_factory=NoneTable)
    concurrency: _Positive = 8
    requests_per_second: _Rate = 50.0
    timeout: Duration = Duration(seconds=30)
    retry_for: Duration = Duration(minutes=1)
    max_listing_size: Size = Size(256 * 2**20)
    agreeing_listings: _Positive = 2
    watch: list[WatchTable] = []


class _File(_Table):
    store: StoreTable = msgspec.field(default_factory=StoreTable)
    schedule: ScheduleTable = msgspec.field(default_factory=ScheduleTable)
    metrics: MetricsTable = msgspec.field(default_factory=MetricsTable)
    registries: list[RegistryTable] = []


class Config(msgspec.Struct, frozen=True):
    """A configuration that makes sense.

    Attributes:
        database: the path of the database.
        registries: by name.
        watches: in the order of the file, in which the first that matches has a repository.
        listen: host and port of the daemon's metrics; null for none.
        folder: what relative paths in the file are relative to.
    """

    database: Path
    registries: Mapping[str, RegistryTable]
    watches: tuple[Watch, ...]
    listen: tuple[str, int] | None
    folder: Path


def find(given: str | None, env: Mapping[str, str]) -> Path:
    """Which file is the configuration.

    Args:
        given: what the command line says.
        env: the environment.

    Raises:
        ConfigError: there is none.
    """
    if named := given or env.get("TAGSYNC_CONFIG"):
        return Path(named)
    for path in SEARCHED:
        if path.is_file():
            return path
    raise ConfigError(
        f"there is no configuration in {SEARCHED[0]} or {SEARCHED[1]}: name one with --config or"
        " $TAGSYNC_CONFIG (config.example.toml shows every key)"
    )


def load(path: Path, env: Mapping[str, str]) -> Config:
    """Reads a configuration file.

    Raises:
        ConfigError: it cannot be read, or is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as such"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(text, env, path.absolute().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__


def parse(text: str, env: Mapping[str, str], folder: Path) -> Config:
    """Makes a configuration of the text of a file.

    Args:
        text: TOML.
        env: the environment, for ``$STATE_DIRECTORY``.
        folder: what relative paths are relative to.

    Raises:
        ConfigError: the text is no TOML, or something in it is unknown, missing or impossible.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    try:
        file = msgspec.convert(tables, _File, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_sentence(str(error))) from error
    _check_registries(file.registries)
    return Config(
        database=_database(file.store, env, folder),
        registries={registry.name: registry for registry in file.registries},
        watches=tuple(_watches(file)),
        listen=_listen(file.metrics.listen),
        folder=folder,
    )


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


def _decode(kind: type, value: object) -> Any:
    if kind in (Duration, Size, SecretName, Crontab):
        return kind.parse(value)
    raise NotImplementedError(f"no way to read a {kind}")


_TABLES: Final[Mapping[str, tuple[type[_Table], ...]]] = {
    "": (_File,),
    "store": (StoreTable,),
    "schedule": (ScheduleTable,),
    "metrics": (MetricsTable,),
    "registries": (RegistryTable,),
    "registries.auth": get_args(AuthTable),
    "registries.watch": (WatchTable,),
}


def _sentence(error: str) -> str:
    """Says where and what, from msgspec's message, and for an unknown key which one is near."""
    what, _, where = error.rpartition(" - at `$")
    if not what:
        what, where = where, ""
    where = where.rstrip("`").lstrip(".")
    at = f"{where}: " if where else ""
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        key = match[1]
        tables = _TABLES[re.sub(r"\[.*?\]", "", where)]
        known = sorted({field for table in tables for field in table.__struct_fields__})
        known += ["kind"] if len(tables) > 1 else []
        near = difflib.get_close_matches(key, known, n=1, cutoff=0)
        return f"{at}there is no key {key!r}; the nearest is {near[0]!r}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", what, re.DOTALL):
        return f"{at}the key {match[1]!r} is missing"
    if match := re.fullmatch(r"Invalid value '(.*)'", what, re.DOTALL):
        kinds = ", ".join(repr(table.__struct_config__.tag) for table in _TABLES["registries.auth"])
        return f"{at}there is no kind {match[1]!r}; it is one of {kinds}"
    return at + what[0].lower() + what[1:].replace("`", "")


_AUTHS: Final[Mapping[str, tuple[type[_Table], ...]]] = {
    "swr": (NoneTable, TokenTable, KeyTable, PasswordTable, AgencyTable),
    "oci": (NoneTable, BasicTable, DockerTable),
}
"""For each kind of registry, what it can be asked with."""


def _check_registries(registries: list[RegistryTable]) -> None:
    names = Counter(registry.name for registry in registries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"two registries are named {twice[0]!r}: give each a name of its own")
    for registry in registries:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", registry.name):
            raise ConfigError(
                f"the registry's name {registry.name!r} may have letters, digits, '.', '_' and '-'"
            )
        if registry.kind not in _AUTHS:
            raise ConfigError(
                f"the registry {registry.name!r} has kind {registry.kind!r}; it is 'swr' or 'oci'"
            )
        if not isinstance(registry.auth, _AUTHS[registry.kind]):
            kinds = [table.__struct_config__.tag for table in _AUTHS[registry.kind]]
            raise ConfigError(
                f"the registry {registry.name!r} of kind {registry.kind!r} cannot be asked with"
                f" auth of kind {registry.auth.__struct_config__.tag!r}; it is one of"
                f" {', '.join(map(repr, kinds))}"
            )
        if registry.ca_file is not None and (not registry.ca_file or "\0" in registry.ca_file):
            raise ConfigError(f"the ca_file of {registry.name!r} names no file")
        _check_endpoint(registry)


_HUB: Final = "https://registry-1.docker.io"
_HUB_SITES: Final = frozenset({"docker.io", "www.docker.com", "hub.docker.com", "index.docker.io"})


def _check_endpoint(registry: RegistryTable) -> None:
    _check_url(f"the endpoint of {registry.name!r}", registry.endpoint, registry.auth)
    host = urlsplit(registry.endpoint).hostname or ""
    if registry.kind == "oci" and host in _HUB_SITES:
        raise ConfigError(
            f"the endpoint of {registry.name!r} is Docker Hub's site; the registry is {_HUB}"
        )
    if registry.kind == "swr" and host.startswith("swr."):
        raise ConfigError(
            f"the endpoint of {registry.name!r} is the Docker registry's host; SWR's API is"
            f" {registry.endpoint.replace('://swr.', '://swr-api.', 1)}"
        )
    if isinstance(registry.auth, PasswordTable):
        _check_url(
            f"the iam_endpoint of {registry.name!r}", registry.auth.iam_endpoint, registry.auth
        )
    if isinstance(registry.auth, AgencyTable):
        what = f"the metadata_endpoint of {registry.name!r}"
        _check_url(what, registry.auth.metadata_endpoint, NoneTable())


def _check_url(what: str, endpoint: str, auth: AuthTable) -> None:
    try:
        url = urlsplit(endpoint)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ConfigError(f"{what} is no URL: {error}") from error
    plain = endpoint.isprintable() and " " not in endpoint and "@" not in url.netloc
    if not plain or url.scheme not in {"http", "https"} or not host or url.query or url.fragment:
        raise ConfigError(f"{what} has to be a URL like https://registry.example.com")
    if url.scheme == "http" and not is_loopback(host) and not isinstance(auth, NoneTable):
        raise ConfigError(
            f"{what} is http://, which would send credentials in the clear: use https://"
        )


def _watches(file: _File) -> Iterator[Watch]:
    named: set[Repository] = set()
    for registry in file.registries:
        for watch in registry.watch:
            for name in watch.repositories:
                _check_repository(registry, name)
                repository = Repository(registry.name, name)
                if repository in named:
                    raise ConfigError(f"{repository.full_name} is named twice: remove one of them")
                named.add(repository)
            interval, cron, jitter = _times(watch, file.schedule, registry.name)
            _check_scope(registry, watch)
            yield Watch(
                registry.name,
                tuple(watch.repositories),
                tuple(watch.exclude),
                interval=interval,
                cron=cron,
                jitter=jitter,
                discovery_interval=watch.discovery_interval or file.schedule.discovery_interval,
                agreeing_listings=registry.agreeing_listings,
                shared=watch.shared,
                tags=watch.tags,
                manifests=watch.manifests,
            )


def _times(
    watch: WatchTable, schedule: ScheduleTable, registry: str
) -> tuple[timedelta, str | None, timedelta]:
    """When a watch's repositories are polled: interval, cron and jitter.

    What a watch says of interval or cron takes the place of both in the schedule.
    """
    for table, where in ((watch, f"a watch of {registry!r}"), (schedule, "schedule")):
        if table.interval and table.cron:
            raise ConfigError(f"{where} has both interval and cron: keep one of them")
    own = watch if watch.interval or watch.cron else schedule
    interval = own.interval or _INTERVAL
    jitter = watch.jitter or schedule.jitter
    if jitter is None:
        return interval, own.cron, min(_JITTER, interval / 10)
    if own.cron is None and jitter > interval / 2:
        raise ConfigError(
            f"a watch of {registry!r} has a jitter of more than half its interval, which would"
            " leave holes in the observations: shorten it"
        )
    return interval, own.cron, jitter


def _listen(address: str | None) -> tuple[str, int] | None:
    if address is None:
        return None
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]*)):(\d{1,5})", address)
    if not match or int(match[3]) > 65535:  # noqa: PLR2004  the last port there is
        raise ConfigError(f'metrics.listen: {address!r} is no address; write it like ":9180"')
    return match[1] or match[2] or "127.0.0.1", int(match[3])


def _check_scope(registry: RegistryTable, watch: WatchTable) -> None:
    if registry.kind == "swr" and (watch.tags != ("*",) or watch.manifests):
        raise ConfigError(
            f"tags and manifests limit what is asked of registries of kind 'oci'; the list of"
            f" {registry.name!r} has every digest and manifest in it: remove them"
        )
    if registry.kind == "oci" and watch.shared:
        raise ConfigError(
            f"shared is for registries of kind 'swr'; {registry.name!r} has one list for all"
        )
    for glob in watch.tags:
        if not re.fullmatch(r"(?:[A-Za-z0-9_.*?-]|\[[^\]]+\])+", glob):
            raise ConfigError(
                f"tags: {glob!r}, for {registry.name!r}, matches no tag that there can be: a tag"
                " has letters and digits, with '_', '.' or '-' between"
            )


def _check_repository(registry: RegistryTable, name: str) -> None:
    if is_glob(name):
        return
    if registry.kind == "oci":
        _check_oci_repository(registry, name)
        return
    segment = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*)"
    if not re.fullmatch(rf"{segment}(?:/{segment})+", name):
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} is not of the form namespace/name"
        )


def _check_oci_repository(registry: RegistryTable, name: str) -> None:
    if not OCI_REPOSITORY.fullmatch(name):
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} is no name of one: it has lower-case"
            " letters and digits, with '.', '_' or '-' within, and slashes between; its tags are"
            " chosen by the key tags"
        )
    if "/" not in name and registry.endpoint.rstrip("/") == _HUB:
        raise ConfigError(
            f"the repository {name!r} of {registry.name!r} lacks its namespace; Docker Hub's own"
            f" images are in library: write 'library/{name}'"
        )


def _database(store: StoreTable, env: Mapping[str, str], folder: Path) -> Path:
    if store.path is not None:
        if not store.path or "\0" in store.path:
            raise ConfigError("store.path: it names no file; name one, or leave the key out")
        return folder / store.path
    # systemd lists several folders with colons between them; the first is ours.
    return Path(env.get("STATE_DIRECTORY", "").split(":")[0] or folder) / "tagsync.db"
