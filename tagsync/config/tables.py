"""The tables of the configuration file."""

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

import msgspec

from tagsync.config.values import Crontab, Duration, SecretName, Size

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
