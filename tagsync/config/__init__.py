"""Load and validate the configuration file.

Secrets are not read here. A secret is read when its registry is opened, so that commands that only
read the database need no secrets.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec

from tagsync.config.checks import (
    check_registries,
    check_repository,
    check_scope,
    correct_endpoints,
)
from tagsync.config.notify_checks import check_notifications
from tagsync.config.tables import (
    File,
    RegistryTable,
    ScheduleTable,
    StoreTable,
    WatchTable,
    decode,
)
from tagsync.errors import ConfigError
from tagsync.models import Repository, Watch

SEARCHED: Final = (Path("config.toml"), Path("/etc/tagsync/config.toml"))
"""Where to look for the configuration file if ``--config`` and ``$TAGSYNC_CONFIG`` are not set."""

INTERVAL: Final = timedelta(minutes=5)
"""The time between two polls of a repository, if the configuration sets none."""

_JITTER: Final = timedelta(seconds=10)


class Config(msgspec.Struct, frozen=True):
    """A valid configuration.

    Attributes:
        database: Path of the database.
        registries: By name.
        watches: In file order. A repository belongs to the first watch that matches it.
        listen: Host and port at which the daemon serves metrics. None if it does not serve them.
        folder: The folder of the configuration file. Relative paths in the file start there.
        file: The tables of the file as they are written, with the default for each missing key.
        hooks_listen: Host and port at which the daemon receives push hints. None if it does not.
    """

    database: Path
    registries: Mapping[str, RegistryTable]
    watches: tuple[Watch, ...]
    listen: tuple[str, int] | None
    folder: Path
    file: File = msgspec.field(default_factory=File)
    hooks_listen: tuple[str, int] | None = None

    @property
    def secret_tables(self) -> list[msgspec.Struct]:
        """The tables that name the places of secrets."""
        auths = [registry.auth for registry in self.registries.values()]
        return [*auths, *self.file.notify, self.file.hooks]


def find(given: str | None, env: Mapping[str, str]) -> Path:
    """Return the path of the configuration file.

    Args:
        given: The path on the command line. It takes precedence over ``$TAGSYNC_CONFIG``.
        env: The environment.

    Raises:
        ConfigError: If no file is named, and none of `SEARCHED` exists.
    """
    if named := given or env.get("TAGSYNC_CONFIG"):
        return Path(named)
    for path in SEARCHED:
        if path.is_file():
            return path
    raise ConfigError(
        f"there is no configuration in {SEARCHED[0]} or {SEARCHED[1]}: write one with tagsync init,"
        " or name one with --config or $TAGSYNC_CONFIG"
    )


def load(path: Path, env: Mapping[str, str]) -> Config:
    """Read and validate a configuration file.

    Raises:
        ConfigError: If the file cannot be read, or its content is invalid.
    """
    try:
        # Some editors on Windows write a byte order mark, which the encoding "utf-8" keeps.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(text, env, path.absolute().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__


def parse(text: str, env: Mapping[str, str], folder: Path) -> Config:
    """Parse and validate the text of a configuration file. No other file is read.

    Args:
        text: The text of the file, in TOML.
        env: The environment. ``$STATE_DIRECTORY`` is the default folder of the database.
        folder: The folder where relative paths start.

    Raises:
        ConfigError: If the text is not TOML, if a key is unknown or missing, or if a value is
            invalid.
    """
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5000 digits
        raise ConfigError(f"not valid TOML: {error}") from error
    file = decode(content)
    correct_endpoints(file.registries)
    check_registries(file.registries)
    check_notifications(file.notify)
    return Config(
        database=_database(file.store, env, folder),
        registries={registry.name: registry for registry in file.registries},
        watches=tuple(_watches(file)),
        listen=_listen_address("metrics.listen", file.metrics.listen),
        folder=folder,
        file=file,
        hooks_listen=_hooks_address(file),
    )


def _hooks_address(file: File) -> tuple[str, int] | None:
    address = _listen_address("hooks.listen", file.hooks.listen)
    if address is None:
        return None
    if file.hooks.secret is None:
        raise ConfigError(
            "hooks.listen needs hooks.secret, without which any program could cause polls: name"
            ' the place of a secret, such as "env:TAGSYNC_HOOKS_SECRET"'
        )
    if address == _listen_address("metrics.listen", file.metrics.listen):
        raise ConfigError(
            "hooks.listen is the address of metrics.listen: choose another port, because push hints"
            " come from other hosts than scrapes"
        )
    return address


def _watches(file: File) -> Iterator[Watch]:
    named: set[Repository] = set()
    for registry in file.registries:
        for watch in registry.watch:
            for name in watch.repositories:
                check_repository(registry, name)
                repository = Repository(registry.name, name)
                if repository in named:
                    raise ConfigError(f"{repository.full_name} is named twice: remove one of them")
                named.add(repository)
            interval, cron, jitter = _times(watch, file.schedule, registry.name)
            check_scope(registry, watch)
            yield Watch(
                registry.name,
                tuple(watch.repositories),
                tuple(watch.exclude),
                interval=interval,
                cron=cron,
                jitter=jitter,
                discovery_interval=watch.discovery_interval or file.schedule.discovery_interval,
                agreeing_listings=registry.agreeing_listings,
                agree_after=registry.agree_after,
                shared=watch.shared,
                tags=watch.tags,
                exclude_tags=watch.exclude_tags,
                immutable=watch.immutable,
                manifests=watch.manifests,
                allow_empty=watch.allow_empty,
            )


def _times(
    watch: WatchTable, schedule: ScheduleTable, registry: str
) -> tuple[timedelta, str | None, timedelta]:
    """Return the interval, cron expression and jitter of a watch.

    If the watch has an interval or a cron expression, the schedule's interval and cron expression
    are both ignored.
    """
    for table, name in ((watch, f"a watch of {registry!r}"), (schedule, "schedule")):
        if table.interval and table.cron:
            raise ConfigError(f"{name} has both interval and cron: keep one of them")
    own = watch if watch.interval or watch.cron else schedule
    interval = own.interval or INTERVAL
    jitter = schedule.jitter if watch.jitter is None else watch.jitter
    if jitter is None:
        return interval, own.cron, min(_JITTER, interval / 10)
    if own.cron is None and jitter > interval / 2:
        raise ConfigError(
            f"a watch of {registry!r} has a jitter of more than half its interval, which would"
            " cause gaps in coverage: shorten the jitter"
        )
    return interval, own.cron, jitter


def _listen_address(key: str, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]*)):(\d{1,5})", text)
    if not match or int(match[3]) > 65535:  # noqa: PLR2004  the highest port
        raise ConfigError(f'{key}: invalid address {text!r}; write it like ":9180"')
    return match[1] or match[2] or "127.0.0.1", int(match[3])


def _database(store: StoreTable, env: Mapping[str, str], folder: Path) -> Path:
    if store.path is not None:
        if not store.path or "\0" in store.path:
            raise ConfigError(
                "store.path is empty or contains a NUL character: name a file, or remove the key"
            )
        return folder / store.path
    # systemd lists the state folders of a unit separated by colons. tagsync uses the first one.
    return Path(env.get("STATE_DIRECTORY", "").split(":")[0] or folder) / "tagsync.db"
