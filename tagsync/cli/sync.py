"""``sync``: one pass over the configured repositories."""

import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from os import environ
from time import monotonic
from typing import Final

import click
import msgspec
from click.core import ParameterSource

from tagsync import log
from tagsync.audit.rows import as_rows
from tagsync.audit.selection import matching, selected, without_tags
from tagsync.cli import Settings
from tagsync.cli.exit_status import FAILED, HELD
from tagsync.cli.expected_changes import ExpectedChanges
from tagsync.cli.lines import make_view, print_lines, use_color
from tagsync.cli.options import StrictCommand, format_option, patterns_argument
from tagsync.cli.output import show
from tagsync.cli.progress import Show, error_columns, progress_line
from tagsync.cli.rows import SyncDryRunRow, SyncRow
from tagsync.cli.setup import load_config, open_registries, require_watches
from tagsync.cli.short_log import ShortLines
from tagsync.cli.sync_result import (
    Tally,
    dry_run_blocks,
    result_blocks,
    to_row,
    totals,
)
from tagsync.cli.tables import Block, Line, render
from tagsync.clock import timestamp, utc_now
from tagsync.config import Config
from tagsync.config.notify_rules import load_rules
from tagsync.config.tables import RegistryTable
from tagsync.database.store import Store
from tagsync.models import Repository, Watch, is_glob, watch_of
from tagsync.notify.targets import Rule
from tagsync.notify.workers import add_destinations, deliver_within
from tagsync.polling.discovery import (
    EMPTY_AFTER,
    EMPTY_DETAIL,
    discover,
    empty_watches,
    log_empty,
)
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.run_once import run_once
from tagsync.registries import Registry
from tagsync.registries.deadline import patience_within
from tagsync.registries.lanes import LanePool

_SHOWN: Final = frozenset({"sync.failed", "sync.held", "discovery.failed", "watch.empty"})
"""The events that the table shows as failed and held repositories, and as failed globs."""


@click.command(cls=StrictCommand)
@patterns_argument
@click.option("--dry-run", is_flag=True, help="Show what would be recorded, but record nothing.")
@click.option(
    "--accept-deletions",
    is_flag=True,
    help="Record suspicious deletions and stale listings instead of holding them.",
)
@click.option("--all", "show_all", is_flag=True, help="Show every repository in the table.")
@format_option
@click.pass_obj
def sync(
    settings: Settings,
    patterns: tuple[str, ...],
    dry_run: bool,
    accept_deletions: bool,
    show_all: bool,
    output_format: str,
) -> int:
    """Poll the configured repositories once.

    PATTERN is a glob over registry/namespace/repository; without one, all repositories are polled.
    Then tagsync sends notifications, for at most ten seconds to each destination. The table shows
    what changed, failed or was held, and then totals. The exit status is 1 if a repository failed
    or a watch matched nothing, 3 if a listing was held and nothing failed, and otherwise 0.

    \b
    Example:
      tagsync sync
      tagsync sync 'swr/team-a/*' --dry-run
    """
    began = monotonic()
    without_tags(patterns)
    config = load_config(settings)
    options = Options(accept_deletions, dry_run)
    rules = () if dry_run else load_rules(config, environ)
    with ExpectedChanges() as expected:
        with (
            progress_line(wanted=not settings.quiet) as show_progress,
            _log(settings, dry_run=dry_run, table=output_format == "table"),
        ):
            polls = run_pass(
                config,
                patterns,
                options,
                rules=rules,
                on_poll=expected.add,
                show_progress=show_progress,
            )
        if output_format == "table":
            summary = totals(polls, monotonic() - began, dry_run=dry_run)
            blocks = _document(polls, summary, expected, show_all=show_all, dry_run=dry_run)
            print_lines(render(blocks, make_view(settings)))
        else:
            _print_rows(polls, expected, output_format, dry_run=dry_run)
    outcomes = {poll.outcome for poll in polls}
    return FAILED if "failed" in outcomes else HELD if "held" in outcomes else 0


@contextmanager
def _log(settings: Settings, *, dry_run: bool, table: bool) -> Iterator[None]:
    """Set up the log of a pass.

    On a terminal there are short lines, and only warnings and errors: the table shows the rest,
    failed and held repositories, when the pass ends. ``-v``, ``--log-level`` and ``--log-format``
    turn that off.

    Args:
        settings: The global options.
        dry_run: Whether to mark every event.
        table: Whether the result is a table.
    """
    source = click.get_current_context().find_root().get_parameter_source("log_level")
    is_brief = source is ParameterSource.DEFAULT and not settings.verbose and sys.stderr.isatty()
    level = "warning" if is_brief and not settings.quiet else settings.log_level
    lines = ShortLines(
        error_columns,
        color=use_color(settings.color, environ, terminal=sys.stderr.isatty()),
        withheld=_SHOWN if table and sys.stdout.isatty() else (),
    )
    log.configure(
        settings.log_format,  # type: ignore[arg-type]  # click checked it
        level,
        dry_run=dry_run,
        first_failures=is_brief,
        render=lines if is_brief and settings.log_format == "auto" else None,
    )
    try:
        yield
    except BaseException:
        lines.write_withheld()
        raise


def _document(
    polls: Sequence[Poll], summary: str, expected: ExpectedChanges, *, show_all: bool, dry_run: bool
) -> Iterator[Block]:
    """Yield the result of a pass for people."""
    if dry_run:
        yield from dry_run_blocks(polls, expected.of, show_all=show_all)
    yield from result_blocks(polls, show_all=show_all, dry_run=dry_run)
    yield Line(summary)
    if dry_run:
        yield Line("nothing was recorded, because this was a dry run")


def _print_rows(
    polls: Sequence[Poll], expected: ExpectedChanges, output_format: str, *, dry_run: bool
) -> None:
    """Print a row for each poll. In a dry run, each has two more columns; see docs/output.md."""
    if not dry_run:
        show(as_rows(map(to_row, polls), SyncRow), SyncRow, output_format)
        return
    rows = (
        {**to_row(poll), "dry_run": True, "changes": expected.of(poll.repository)} for poll in polls
    )
    show(as_rows(rows, SyncDryRunRow), SyncDryRunRow, output_format)


def run_pass(
    config: Config,
    patterns: Sequence[str],
    options: Options,
    env: Mapping[str, str] = environ,
    *,
    rules: Sequence[Rule] = (),
    on_poll: Callable[[Poll], None] = lambda _: None,
    show_progress: Show = lambda _: None,
) -> list[Poll]:
    """Poll each matching repository once, then send the notifications.

    Args:
        config: The registries and watches.
        patterns: Globs over full names. Without any, all repositories are polled.
        options: Options of the pass.
        env: Environment variables that secrets may refer to.
        rules: The destinations of notifications. A dry run sends nothing to them.
        on_poll: Called after each poll of a repository.
        show_progress: Shows the progress of the pass.

    Raises:
        ConfigError: If a secret is missing, or no repository is configured.
        UnknownRepository: If a pattern matches no configured repository.
        StoreError: If the database failed.
    """
    require_watches(config)
    with ExitStack() as stack:
        config = _without_unneeded_registries(config, patterns)
        registries = open_registries(config, env, stack)
        show_progress("finding repositories")
        watches, failures = _select(config, patterns, registries)
        # Open the database last, so that a wrong command line creates no file.
        open_store = Store.open_for_reading if options.dry_run else Store.open
        store = stack.enter_context(open_store(config.database))
        now = utc_now()
        rules = () if options.dry_run else rules
        if rules:
            add_destinations(store.outbox, rules)
        jobs = [
            Job.of(repository, watch, registries[repository.registry], now)
            for repository, watch in watches.items()
        ]
        pools = {name: _open_pool(config.registries[name]) for name in registries}
        # The garbage collector then skips imported modules. An idle pass is 4 % faster.
        gc.freeze()
        tally = Tally(len(jobs))
        show_progress(str(tally))

        def count(poll: Poll) -> None:
            on_poll(poll)
            tally.add(poll)
            show_progress(str(tally))

        polls = run_once(jobs, store, pools, options, count)
        if not options.dry_run:
            # A repository that was just listed is not stale.
            missed = [poll.repository for poll in polls if poll.outcome in {"failed", "held"}]
            store.report_stale({each: watches[each] for each in missed}, utc_now())
        if rules:
            show_progress("sending notifications")
            deliver_within(store.outbox, rules)
        return [*failures, *polls]


def _without_unneeded_registries(config: Config, patterns: Sequence[str]) -> Config:
    """Return the configuration without the registries in which no pattern can match."""
    prefixes = [re.split(r"[*?\[]", pattern, maxsplit=1)[0] for pattern in patterns]
    names = {
        name
        for name in config.registries
        if not patterns
        or any(p.startswith(f"{name}/") or f"{name}/".startswith(p) for p in prefixes)
    }
    if not names:
        return config
    return msgspec.structs.replace(
        config,
        registries={name: config.registries[name] for name in config.registries if name in names},
        watches=tuple(watch for watch in config.watches if watch.registry in names),
    )


def _select(
    config: Config, patterns: Sequence[str], registries: Mapping[str, Registry]
) -> tuple[dict[Repository, Watch], list[Poll]]:
    """Return the repositories of a pass in order, each with its watch, and the failed globs.

    Raises:
        UnknownRepository: If a pattern matches no configured repository.
        StoreError: If the database failed.
    """
    known = {repository for watch in config.watches for repository in watch.named}
    with Store.open_for_reading(config.database) as recorded:
        known |= set(recorded.repositories())
    watches, failures, empty = _find_watches(config, patterns, known, registries)
    # After a failed discovery, a pattern without a match is not an error if its repository may
    # exist, but was not discovered.
    matching(sorted(watches), [each for each in patterns if not _may_exist(each, failures)])
    repositories = selected(sorted(watches), patterns)
    return {each: watches[each] for each in repositories}, [*failures, *empty]


def _find_watches(
    config: Config,
    patterns: Sequence[str],
    known: set[Repository],
    registries: Mapping[str, Registry],
) -> tuple[dict[Repository, Watch], list[Poll], list[Poll]]:
    """Return the watch of each known or discovered repository, and the globs that found none.

    If every pattern is the full name of a known repository, discovery is skipped.

    Returns:
        The watches; a failed poll for each glob that could not be expanded; and a failed poll for
        each glob of a watch that matches nothing.
    """
    discovered: set[Repository] = set()
    failures: list[Poll] = []
    empty: list[Poll] = []
    if not patterns or not {repository.full_name for repository in known}.issuperset(patterns):
        discovered, failures = discover(config.watches, registries)
        empty = _find_empty_watches(config, patterns, discovered, failures)
    watches = {
        repository: watch
        for repository in known | discovered
        if (watch := watch_of(repository, config.watches)) is not None
    }
    return watches, failures, empty


def _may_exist(pattern: str, failures: Iterable[Poll]) -> bool:
    """Return whether a discovery that failed might have found a match of a pattern."""
    globs = [poll.repository.full_name for poll in failures]
    return any(is_glob(pattern) or fnmatchcase(pattern, glob) for glob in globs)


def _find_empty_watches(
    config: Config, patterns: Sequence[str], discovered: set[Repository], failures: list[Poll]
) -> list[Poll]:
    """Log the watches that match nothing, and return a failed poll for each of their globs.

    A repository that was listed completely within the last day still counts as a match. With
    patterns, only globs that a pattern matches are reported.
    """
    if not empty_watches(config.watches, discovered, failures):
        return []
    since = timestamp(utc_now() - EMPTY_AFTER)
    with Store.open_for_reading(config.database) as recorded:
        recent = {
            repository
            for repository, fresh in recorded.freshness().items()
            if fresh.last_complete_at is not None and fresh.last_complete_at >= since
        }
    polls = []
    for watch in empty_watches(config.watches, discovered | recent, failures):
        globs = [Repository(watch.registry, glob) for glob in watch.globs]
        reported = selected(globs, patterns)
        if reported:
            log_empty(watch)
        polls += [Poll(each, "failed", detail=EMPTY_DETAIL) for each in reported]
    return polls


def _open_pool(registry: RegistryTable) -> LanePool:
    """Return the threads for the polls of a registry."""
    return LanePool(registry.concurrency, patience_within(registry.timeout.total_seconds()))
