"""The effective configuration: every default is written out, and every path is absolute."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from tagsync.config import INTERVAL, Config
from tagsync.config.values import SecretName, Size, format_duration, format_size
from tagsync.models import Watch


def effective_tables(config: Config) -> dict[str, Any]:
    """Return the tables of a configuration file that means the same as a configuration.

    A secret is represented by its place. A key without a value and without a default is left out.
    The watches have the schedule that applies to them.
    """
    tables: dict[str, Any] = _plain(config.file, config.folder)
    tables["store"]["path"] = str(config.database.absolute())
    if "cron" not in tables["schedule"]:
        tables["schedule"] = {"interval": format_duration(INTERVAL), **tables["schedule"]}
    if config.listen is not None:
        tables["metrics"]["listen"] = _address(*config.listen)
    if config.hooks_listen is not None:
        tables["hooks"]["listen"] = _address(*config.hooks_listen)
    watches = iter(config.watches)
    for registry in tables["registries"]:
        for key in ("ca_file", "client_cert_file", "client_key_file"):
            if key in registry:
                registry[key] = str(config.folder / registry[key])
        for table in registry["watch"]:
            for key in ("interval", "cron", "jitter", "discovery_interval"):
                table.pop(key, None)
            table.update(_schedule_of(next(watches)))
    return tables


def _schedule_of(watch: Watch) -> Iterator[tuple[str, str]]:
    """Yield the keys of a watch about time, with their values.

    A default jitter that has a fraction of a millisecond cannot be written, so it is left out.
    """
    if watch.cron is not None:
        yield "cron", watch.cron
    for key in ("interval", "jitter", "discovery_interval"):
        text = format_duration(getattr(watch, key))
        if text is not None and not (key == "interval" and watch.cron):
            yield key, text


def _plain(value: Any, folder: Path) -> Any:
    """Return a table, or a value in it, as TOML and JSON have it. None is left out of tables."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__
        table = {tag.tag_field: tag.tag} if tag.tag_field else {}
        for key, inner in msgspec.structs.asdict(value).items():
            if inner is not None:
                table[key] = _plain(inner, folder)
        return table
    if isinstance(value, list | tuple):
        return [_plain(inner, folder) for inner in value]
    return _plain_value(value, folder)


def _plain_value(value: object, folder: Path) -> object:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Size):
        return format_size(value)
    if isinstance(value, Path):
        return str(value if value.parts[:1] == ("~",) else folder / value)
    scheme, _, place = value.partition(":") if isinstance(value, SecretName) else ("", "", "")
    return f"file:{folder / place}" if scheme == "file" else value


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
