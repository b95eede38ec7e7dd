"""The tables of the configuration file, and errors for wrong keys and values."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec

from tagsync.config.values import Crontab, Duration, DurationOrZero, SecretName, Size
from tagsync.errors import ConfigError
from tagsync.notify.targets import DEFAULT_EVENTS, MAX_BATCH_SIZE
from tagsync.registries import ListChoice
from tagsync.registries.credentials import (
    CREDENTIALS,
    AgencyCredential,
    BasicCredential,
    DockerCredential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)

_Positive = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Rate = Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base class of all tables. An unknown key in a table is an error."""


class StoreTable(_Table):
    """The table ``[store]``."""

    path: str | None = None


class ScheduleTable(_Table):
    """The table ``[schedule]``."""

    interval: Duration | None = None
    cron: Crontab | None = None
    jitter: DurationOrZero | None = None
    discovery_interval: Duration = Duration(minutes=15)
    verify: DurationOrZero = DurationOrZero(days=1)


class MetricsTable(_Table):
    """The table ``[metrics]``."""

    listen: str | None = None


class HooksTable(_Table):
    """The table ``[hooks]``."""

    listen: str | None = None
    secret: SecretName | None = None


CredentialTable = (
    NoCredential[SecretName]
    | TokenCredential[SecretName]
    | KeyCredential[SecretName]
    | PasswordCredential[SecretName]
    | AgencyCredential
    | BasicCredential[SecretName]
    | DockerCredential[SecretName]
)
"""The table ``[registries.auth]``: a credential, with the places of its secrets."""


class WatchTable(_Table):
    """A table ``[[registries.watch]]``."""

    repositories: list[str]
    exclude: list[str] = []
    shared: bool = False
    interval: Duration | None = None
    cron: Crontab | None = None
    jitter: DurationOrZero | None = None
    discovery_interval: Duration | None = None
    tags: tuple[str, ...] = ("*",)
    exclude_tags: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    manifests: bool = False
    allow_empty: bool = False


class RegistryTable(_Table):
    """A table ``[[registries]]``."""

    name: str
    endpoint: str
    kind: str = "swr"
    list: ListChoice = "auto"
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    auth: CredentialTable = msgspec.field(default_factory=NoCredential)
    concurrency: _Positive = 8
    requests_per_second: _Rate = 50.0
    timeout: Duration = Duration(seconds=30)
    retry_for: DurationOrZero = DurationOrZero(minutes=1)
    max_listing_size: Size = Size(256 * 2**20)
    agreeing_listings: _Positive = 2
    agree_after: DurationOrZero | None = None
    watch: tuple[WatchTable, ...] = ()


class NotifyTable(_Table):
    """A table ``[[notify]]``. ``url``, ``argv`` and ``signing_key`` depend on the kind."""

    name: str
    kind: str
    url: SecretName | None = None
    argv: tuple[str, ...] | None = None
    signing_key: SecretName | None = None
    repositories: tuple[str, ...] = ("*",)
    tags: tuple[str, ...] = ("*",)
    events: tuple[str, ...] = DEFAULT_EVENTS
    batch: DurationOrZero = DurationOrZero(0)
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH_SIZE)] = 100
    subject: str | None = None
    text: str | None = None


class File(_Table):
    """The whole configuration file."""

    store: StoreTable = msgspec.field(default_factory=StoreTable)
    schedule: ScheduleTable = msgspec.field(default_factory=ScheduleTable)
    metrics: MetricsTable = msgspec.field(default_factory=MetricsTable)
    hooks: HooksTable = msgspec.field(default_factory=HooksTable)
    registries: list[RegistryTable] = []
    notify: list[NotifyTable] = []


_TABLES: Final[Mapping[str, tuple[type[msgspec.Struct], ...]]] = {
    "": (File,),
    "store": (StoreTable,),
    "schedule": (ScheduleTable,),
    "metrics": (MetricsTable,),
    "hooks": (HooksTable,),
    "registries": (RegistryTable,),
    "registries.auth": CREDENTIALS,
    "registries.watch": (WatchTable,),
    "notify": (NotifyTable,),
}
"""The structs that can describe a table, by the table's place in the file."""


def decode(content: dict[str, Any]) -> File:
    """Convert the content of a parsed TOML file to tables.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is invalid.
    """
    try:
        return msgspec.convert(content, File, dec_hook=_decode_value)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from error


def _decode_value(kind: type, value: object) -> Any:
    if kind in (Duration, DurationOrZero, Size, SecretName, Crontab):
        return kind.parse(value)
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"expected str, got {type(value).__name__}")
        return Path(value)
    raise NotImplementedError(f"tagsync cannot decode a {kind}")


def _explain(error: str) -> str:
    """Return a sentence for an error of msgspec, with the place in the file.

    For an unknown key, the sentence names the most similar key. If no key is similar, the sentence
    names all keys of the table.

    Args:
        error: The text of the error.
    """
    problem, _, place = error.rpartition(" - at `$")
    if not problem:
        problem, place = place, ""
    place = place.rstrip("`").lstrip(".")
    prefix = f"{place}: " if place else ""
    table = re.sub(r"\[.*?\]", "", place)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        key = match[1]
        tables = _TABLES[table]
        known = sorted({field for table in tables for field in table.__struct_fields__})
        known += ["kind"] if len(tables) > 1 else []
        if near := difflib.get_close_matches(key, known, n=1):
            return f"{prefix}there is no key {key!r}; the nearest is {near[0]!r}"
        keys = ", ".join(sorted(known))
        return f"{prefix}there is no key {key!r}; the keys here are {keys}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", problem, re.DOTALL):
        return f"{prefix}the key {match[1]!r} is missing"
    if match := re.fullmatch(r"Invalid value '(.*)'", problem, re.DOTALL):
        kinds = ", ".join(repr(kind.__struct_config__.tag) for kind in CREDENTIALS)
        return f"{prefix}there is no kind {match[1]!r}; write one of {kinds}"
    if match := re.fullmatch(r"Invalid enum value (.*)", problem, re.DOTALL):
        choices = " or ".join(map(repr, get_args(ListChoice)))  # the only key with choices
        problem = f"there is no value {match[1]}; write {choices}"
    if problem == "Expected `array`, got `object`" and table in _TABLES:
        return f"[{table}] may be there several times: write [[{table}]]"
    return prefix + problem[0].lower() + problem[1:].replace("`", "")
