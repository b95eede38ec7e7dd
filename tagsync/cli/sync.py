"""``sync``: one pass over the configured repositories."""

import gc
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import environ
from pathlib import Path

import click
import msgspec

from tagsync.audit.queries import matching, selected
from tagsync.cli import Settings
from tagsync.cli.output import format_option, show
from tagsync.cli.wiring import configuration
from tagsync.clock import utc_now
from tagsync.config import Config
from tagsync.config.secret_sources import resolve_credential
from tagsync.config.tables import RegistryTable
from tagsync.database.store import Store
from tagsync.errors import ConfigError
from tagsync.models import Repository, Watch, watch_of
from tagsync.polling.discovery import discover
from tagsync.polling.poll import Job, Poll
from tagsync.polling.run_once import Options, sync_all
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import Credential
from tagsync.schedule import spacing

COLUMNS = ("repository", "outcome", "tags", "added", "updated", "deleted", "detail")

FAILED, HELD = 1, 3
"""Exit statuses."""


@click.command()
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Tell what would be recorded, and record nothing.")
@click.option("--accept-deletions", is_flag=True, help="Record deletions that would be held.")
@format_option
@click.pass_obj
def sync(
    settings: Settings,
    patterns: tuple[str, ...],
    dry_run: bool,
    accept_deletions: bool,
    output_format: str,
) -> int:
    """Poll the configured repositories once.

    PATTERN is a glob over registry/namespace/repository; without one, all are polled. The exit
    status is 1 if a repository failed, 3 if a listing was held and nothing failed, else 0.

    \b
    Example:
      tagsync sync
      tagsync sync 'swr/team-a/*' --dry-run
    """
    config = configuration(settings)
    polls = run(config, patterns, Options(accept_deletions, dry_run))
    show((row_of(poll) for poll in polls), COLUMNS, output_format)
    outcomes = {poll.outcome for poll in polls}
    return FAILED if "failed" in outcomes else HELD if "held" in outcomes else 0


def run(
    config: Config, patterns: Sequence[str], options: Options, env: Mapping[str, str] = environ
) -> list[Poll]:
    """Makes one pass over the repositories that match.

    Args:
        config: names them.
        patterns: globs over full names; none for all.
        options: how the pass is made.
        env: where secrets may be kept.

    Raises:
        ConfigError: a secret is missing, or there is nothing to poll.
        UnknownRepository: a pattern matches no configured repository.
        StoreError: the database failed.
    """
    check_watches(config)
    with ExitStack() as stack:
        config = _concerned(config, patterns)
        registries = open_registries(config, env, stack)
        known = {repository for watch in config.watches for repository in watch.named}
        with Store.open_for_reading(config.database) as recorded:
            known |= set(recorded.repositories())
        watched, failures = _watched(config, patterns, known, registries)
        # What discovery failed to find may be what a pattern means.
        chosen = (selected if failures else matching)(sorted(watched), patterns)
        # Only now, so that a command that cannot be carried out leaves no file.
        open_store = Store.open_for_reading if options.dry_run else Store.open
        store = stack.enter_context(open_store(config.database))
        jobs = [_job(repository, watched[repository], registries) for repository in chosen]
        concurrency = {name: config.registries[name].concurrency for name in registries}
        # All that was imported stays: not to look at it again takes 4 % off an idle pass.
        gc.freeze()
        with _progress(len(jobs)) as on_poll:
            return [*failures, *sync_all(jobs, store, concurrency, options, on_poll)]


def check_watches(config: Config) -> None:
    """Makes sure that there is something to poll.

    Raises:
        ConfigError: there is nothing.
    """
    if not config.watches:
        raise ConfigError(
            "no repository is configured: name some under [[registries.watch]]"
            " (config.example.toml shows how)"
        )


def _concerned(config: Config, patterns: Sequence[str]) -> Config:
    """The configuration without the registries that no pattern can mean."""
    beginnings = [re.split(r"[*?\[]", pattern, maxsplit=1)[0] for pattern in patterns]
    names = {
        name
        for name in config.registries
        if not patterns
        or any(b.startswith(f"{name}/") or f"{name}/".startswith(b) for b in beginnings)
    }
    if not names:
        return config
    return msgspec.structs.replace(
        config,
        registries={name: config.registries[name] for name in config.registries if name in names},
        watches=tuple(watch for watch in config.watches if watch.registry in names),
    )


def _watched(
    config: Config,
    patterns: Sequence[str],
    known: set[Repository],
    registries: Mapping[str, Registry],
) -> tuple[dict[Repository, Watch], list[Poll]]:
    """Every repository to poll, with its watch; and what discovery failed at.

    Patterns that spell out repositories which are known already need no discovery.
    """
    found: set[Repository] = set()
    failures: list[Poll] = []
    if not patterns or not {repository.full_name for repository in known}.issuperset(patterns):
        found, failures = discover(config.watches, registries)
    watched = {
        repository: watch
        for repository in known | found
        if (watch := watch_of(repository, config.watches)) is not None
    }
    return watched, failures


def open_registries(
    config: Config, env: Mapping[str, str], stack: ExitStack
) -> dict[str, Registry]:
    """Opens all registries, until the stack is left; every secret is read before any is asked.

    Raises:
        ConfigError: a secret is missing.
    """
    opened: dict[str, Registry] = {}
    for name, table in config.registries.items():
        asked_with = resolve_credential(table, env, config.folder)
        opened[name] = open_one(table, asked_with, config.folder)
        stack.callback(opened[name].close)
    return opened


def open_one(table: RegistryTable, asked_with: Credential, folder: Path) -> Registry:
    """Opens a registry as the configuration in a folder has it; whoever asked closes it.

    Raises:
        ConfigError: its credential or its file of certificates cannot be used.
    """
    return open_registry(
        table.endpoint,
        asked_with,
        timeout=table.timeout.total_seconds(),
        retry_for=table.retry_for.total_seconds(),
        max_listing_bytes=table.max_listing_size,
        requests_per_second=table.requests_per_second,
        connections=table.concurrency,
        kind="oci" if table.kind == "oci" else "swr",
        ca_file=None if table.ca_file is None else folder / table.ca_file,
    )


def _job(repository: Repository, watch: Watch, registries: Mapping[str, Registry]) -> Job:
    registry = registries[repository.registry]
    return Job(
        repository,
        registry,
        spacing(watch, utc_now()),
        watch.agreeing_listings,
        watch.tags,
        watch.manifests,
    )


def row_of(poll: Poll) -> dict[str, object]:
    """The row that tells what a poll came to."""
    return {**msgspec.structs.asdict(poll), "repository": poll.repository.full_name}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Poll], None]]:
    """A progress bar on standard error while polls come in, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  only a terminal needs it
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("repositories", total=total)
        yield lambda _: progress.advance(task)
