"""The configuration: what may stand in it, and what is wrong with what does.

`parse` is pure. Secrets are only named here; `resolve` reads one, when a registry is opened, so
that commands which merely read the database need none.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec

from tagsync.config.checks import _check_registries, _check_repository, _check_scope
from tagsync.config.tables import (
    RegistryTable,
    ScheduleTable,
    StoreTable,
    WatchTable,
    _decode,
    _File,
    _sentence,
)
from tagsync.config.values import Duration
from tagsync.errors import ConfigError
from tagsync.models import Repository, Watch

SEARCHED: Final = (Path("config.toml"), Path("/etc/tagsync/config.toml"))
"""Where the configuration is looked for when none is named."""

_INTERVAL: Final = Duration(minutes=5)

_JITTER: Final = Duration(seconds=10)


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


def _database(store: StoreTable, env: Mapping[str, str], folder: Path) -> Path:
    if store.path is not None:
        if not store.path or "\0" in store.path:
            raise ConfigError("store.path: it names no file; name one, or leave the key out")
        return folder / store.path
    # systemd lists several folders with colons between them; the first is ours.
    return Path(env.get("STATE_DIRECTORY", "").split(":")[0] or folder) / "tagsync.db"
