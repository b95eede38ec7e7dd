"""The command ``check``, which checks everything that the configuration names."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Final

import click
import msgspec

from tagsync.cli import Settings
from tagsync.cli.check_line import Line, Result
from tagsync.cli.check_lists import list_line
from tagsync.cli.check_notify import check_destinations
from tagsync.cli.exit_status import FAILED, REFUSED
from tagsync.cli.formats import count_text
from tagsync.cli.options import StrictCommand, format_option
from tagsync.cli.output import show
from tagsync.cli.rows import CheckRow
from tagsync.cli.setup import display_path, find_config, open_configured, set_up
from tagsync.clock import timestamp, utc_now
from tagsync.config import Config
from tagsync.config.secret_sources import read_hook_secret, resolve_credential
from tagsync.database import migrations
from tagsync.database.connection import reading
from tagsync.errors import (
    ConfigError,
    EndpointNotFound,
    Forbidden,
    NotFound,
    RegistryError,
    StoreError,
    Throttled,
    Unauthorized,
    Unreachable,
    Untrusted,
    UnusableDatabase,
)
from tagsync.models import Listing, ListUse, Repository, Scope, Watch, watch_of
from tagsync.registries import Registry
from tagsync.registries.credentials import NoCredential

_ORDER: Final[Mapping[Result, int]] = {"ok": 0, "warning": 1, "failed": 2}

_NAMES_ONLY: Final = Scope(tags=())
"""A check lists the names of tags. The digests of an OCI registry would cost a request each."""

_ADVICE: Final[Mapping[type[RegistryError], str]] = {
    Untrusted: "check the host name, or set ca_file to the certificate of your own CA",
    Unreachable: "check the endpoint, the network and the proxy",
    Unauthorized: "check the credential under [registries.auth]",
    Forbidden: "let the login read this repository",
    EndpointNotFound: "check the endpoint",
    NotFound: "check the name under [[registries.watch]]",
    Throttled: "lower requests_per_second, or try again later",
}
"""The advice for an error of a registry; the first class that the error belongs to counts."""

_OTHER_ADVICE: Final = "run tagsync check again; if the error stays, ask the registry's operator"


@click.command(cls=StrictCommand)
@format_option
@click.pass_obj
def check(settings: Settings, output_format: str) -> int:
    """Check the configuration, then each registry.

    Checks the configuration, the database, the clock, the login of each registry, each repository
    and glob that the configuration names, and each destination of notifications. Prints a line for
    each of them, the worst ones last. The column advice says what to do. Records and sends nothing.
    If a line failed, the exit status is 1, or 2 if the configuration or a secret is wrong.

    \b
    Example:
      tagsync check
    """
    config = set_up(settings)
    lines = [
        _check_configuration(config, find_config(settings)),
        *_check_database(config.database),
        _check_clock(config.database),
        *_check_hooks(config),
    ]
    with ExitStack() as stack:
        for name in config.registries:
            lines += _check_registry(config, name, stack)
    lines += check_destinations(config, os.environ)
    lines.sort(key=lambda line: _ORDER[line.result])
    rows = [CheckRow(line.subject, line.result, line.detail, line.advice) for line in lines]
    show(rows, CheckRow, output_format)
    if any(line.refused for line in lines):
        return REFUSED
    return FAILED if any(line.result == "failed" for line in lines) else 0


def _check_configuration(config: Config, path: Path) -> Line:
    subject = f"configuration {display_path(path)}"
    if not config.registries:
        advice = "add one as [[registries]]"
        return Line(subject, "failed", "no registry is configured", advice, refused=True)
    if not config.watches:
        advice = "name some under [[registries.watch]]"
        return Line(subject, "failed", "no repository is configured", advice, refused=True)
    counts = f"valid; registries: {len(config.registries)}, watches: {len(config.watches)}"
    return Line(subject, "ok", counts)


def _check_database(path: Path) -> Iterator[Line]:
    """Check the folder, the permissions and the schema of the database. Creates no file."""
    folder, subject = path.parent, f"database folder {path.parent}"
    if not folder.is_dir():
        yield Line(subject, "failed", "it does not exist", f"create it: mkdir -p {folder}")
    elif not os.access(folder, os.W_OK | os.X_OK):
        advice = "run tagsync as its owner, or permit this user to write"
        yield Line(subject, "failed", "this user cannot create files in it", advice)
    else:
        yield Line(subject, "ok", "this user can create files in it")
    yield check_permissions(path)
    yield _check_schema(path)


def _may_use(file: Path) -> bool:
    return os.access(file, os.R_OK | os.W_OK)


def check_permissions(path: Path, may_use: Callable[[Path], bool] = _may_use) -> Line:
    """Return whether this user can read and write the files of a database.

    Args:
        path: The database.
        may_use: Returns whether this user can read and write a file.
    """
    subject = f"database permissions {path}"
    endings = ("", "-wal", "-shm", ".writer-lock", ".daemon-lock")
    files = [Path(f"{path}{ending}") for ending in endings]
    present = [file for file in files if file.exists()]
    # A process that closes the database meanwhile removes the files beside it.
    if closed := [file for file in present if not may_use(file) and file.exists()]:
        advice = f"run tagsync as the owner of the file, or: chown $USER {closed[0]}"
        return Line(subject, "failed", f"this user cannot read and write {closed[0]}", advice)
    if path.exists() and not path.is_file():
        return Line(subject, "failed", "it is not a file", "set store.path to a file")
    if not present:
        return Line(subject, "ok", "there is no file yet; tagsync sync creates it")
    return Line(subject, "ok", "this user can read and write it")


def _check_schema(path: Path) -> Line:
    subject = "database schema"
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return Line(subject, "ok", "there is no database yet; tagsync sync creates it")
    try:
        with reading(path) as db:
            if migrations.is_current(db):
                return Line(subject, "ok", "it is the schema of this version")
    except UnusableDatabase as error:
        return Line(subject, "failed", str(error), "set store.path to a file of this tagsync")
    except StoreError as error:
        return Line(subject, "failed", str(error), "run tagsync verify, or restore a backup")
    detail = "an older tagsync wrote the database"
    return Line(subject, "warning", detail, "run tagsync sync, which brings it up to date")


def _check_clock(path: Path) -> Line:
    """Compare the clock with the newest time in the database."""
    now, newest = timestamp(utc_now()), None
    try:
        with reading(path) as db:
            (newest,) = db.execute("SELECT max(last_attempt_at) FROM repositories").fetchone()
    except StoreError:
        pass  # If the database is missing or unusable, its own lines say so.
    if isinstance(newest, str) and newest > now:
        advice = "set the clock, for instance with an NTP service"
        detail = f"it says {now}, but the newest poll in the database began at {newest}"
        return Line("clock", "failed", detail, advice)
    return Line("clock", "ok", f"it says {now}")


def _check_hooks(config: Config) -> Iterator[Line]:
    """Check the secret for push hints, if the daemon receives any."""
    if config.hooks_listen is None:
        return
    host, port = config.hooks_listen
    subject = f"push hints at {host}, port {port}"
    try:
        read_hook_secret(config.file.hooks, os.environ, config.folder)
    except ConfigError as error:
        advice = "correct the key, file or variable that the detail is about"
        yield Line(subject, "failed", str(error), advice, refused=True)
    else:
        yield Line(subject, "ok", "the secret can be read")


def _check_registry(config: Config, name: str, stack: ExitStack) -> Iterator[Line]:
    """Check the login of a registry, and everything that its watches name."""
    table = config.registries[name]
    subject = f"registry {name}"
    try:
        credential = resolve_credential(table, os.environ, config.folder)
        registry = open_configured(table, credential, config.folder)
    except ConfigError as error:
        advice = "correct the key, file or variable that the detail is about"
        yield Line(subject, "failed", str(error), advice, refused=True)
        return
    stack.callback(registry.close)
    watches = [watch for watch in config.watches if watch.registry == name]
    checks: list[Callable[[], Line]] = []
    for watch in watches:
        checks += [_named_check(registry, repository, watch) for repository in watch.named]
        checks += [_glob_check(registry, watch, glob, watches) for glob in watch.globs]
    with ThreadPoolExecutor(table.concurrency) as pool:
        lines = list(pool.map(lambda run: run(), checks))
    yield _check_login(subject, lines, anonymous=isinstance(table.auth, NoCredential))
    yield from lines
    if line := list_line(name, lines):
        yield line


def _check_login(subject: str, lines: Sequence[Line], *, anonymous: bool) -> Line:
    """Return whether a registry accepts the login, by the results for its repositories."""
    accepted = "it answers anonymous requests" if anonymous else "it accepts the login"
    if not lines:
        advice = "name repositories under [[registries.watch]], or remove the registry"
        return Line(subject, "warning", "no watch names a repository of it", advice)
    if any(line.error is None or isinstance(line.error, NotFound | Forbidden) for line in lines):
        return Line(subject, "ok", accepted)
    first = next(
        (line for line in lines if isinstance(line.error, Unauthorized | Unreachable | Untrusted)),
        lines[0],
    )
    return msgspec.structs.replace(first, subject=subject)


def _named_check(registry: Registry, repository: Repository, watch: Watch) -> Callable[[], Line]:
    subject = f"repository {repository.full_name}"

    def run() -> Line:
        try:
            cost = _list_once(registry, repository)
            uses = _uses(registry, [repository], watch)
            return Line(subject, "ok", cost, uses=uses)
        except RegistryError as error:
            return _failed(subject, error)

    return run


def _glob_check(
    registry: Registry, watch: Watch, glob: str, watches: Sequence[Watch]
) -> Callable[[], Line]:
    subject = f"glob {watch.registry}/{glob}"

    def run() -> Line:
        try:
            names = registry.list_repositories([glob], shared=watch.shared)
            found = [Repository(watch.registry, name) for name in sorted(names)]
            matched = [each for each in found if watch_of(each, watches) is watch]
            if not matched:
                if watch.allow_empty:
                    return Line(subject, "ok", "no repository matches, which allow_empty permits")
                return _no_match(subject, earlier=any(watch_of(each, watches) for each in found))
            cost = _list_once(registry, matched[0])
            uses = _uses(registry, matched[:1], watch)
        except RegistryError as error:
            return _failed(subject, error)
        detail = f"{len(matched)} match; {matched[0].full_name}: {cost}"
        return Line(subject, "ok", detail, uses=uses)

    return run


def _no_match(subject: str, *, earlier: bool) -> Line:
    """Return the line of a glob without a match.

    Args:
        subject: The subject of the line.
        earlier: Whether an earlier watch covers a repository that the glob matches.
    """
    if earlier:
        detail = "all matches belong to an earlier watch"
        return Line(
            subject, "warning", detail, "remove the glob, or change the order of the watches"
        )
    advice = "check the names under [[registries.watch]]"
    return Line(subject, "failed", "no repository matches", advice)


def _list_once(registry: Registry, repository: Repository) -> str:
    """List a repository, and return how many tags it has and what that cost.

    Raises:
        RegistryError: If the registry gives no complete listing.
    """
    began = monotonic()
    listing = registry.list_tags(repository.name, scope=_NAMES_ONLY)
    seconds = monotonic() - began
    assert isinstance(listing, Listing), "without a fingerprint to compare, there is no `Unchanged`"  # noqa: S101  tells the type checker
    amounts = {"tag": len(listing.tags), "request": listing.requests, "byte": listing.size}
    counts = (count_text(number, noun) for noun, number in amounts.items())
    return f"{', '.join(counts)}, {seconds:.1f} s"


def _uses(
    registry: Registry, repositories: Sequence[Repository], watch: Watch
) -> Mapping[str, ListUse]:
    """Return how polls would resolve the tags of some repositories, by full name.

    Raises:
        RegistryError: If the names of the tags cannot be read.
    """
    scope = Scope(watch.tags, watch.exclude_tags)
    found = {each.full_name: registry.list_use(each.name, scope) for each in repositories}
    return {name: use for name, use in found.items() if use is not None}


def _failed(subject: str, error: RegistryError) -> Line:
    advice = next(
        (advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), _OTHER_ADVICE
    )
    return Line(subject, "failed", str(error), advice, error)
