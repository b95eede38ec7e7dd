"""The command ``status``, which shows how fresh the record of each repository is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final

import click

from tagsync.audit.immutable_changes import ImmutableFilter
from tagsync.audit.queries import Audit
from tagsync.audit.rows import StatusRow
from tagsync.audit.selection import matching, without_tags
from tagsync.cli import Settings
from tagsync.cli.answers import answer
from tagsync.cli.exit_status import FAILED
from tagsync.cli.formats import count_text, reason_text
from tagsync.cli.immutable import alarm_blocks
from tagsync.cli.options import OutputOptions, StrictCommand, output_options, patterns_argument
from tagsync.cli.setup import load_config
from tagsync.cli.tables import Block, Column, Line, Row, Table, View, repository_column
from tagsync.clock import utc_now
from tagsync.config.notify_rules import rules_without_secrets
from tagsync.database.outbox import Outbox
from tagsync.database.verifications import Verification
from tagsync.errors import DamagedRecord
from tagsync.models import Repository, Watch, watch_of
from tagsync.notify.status import DestinationStatus, statuses
from tagsync.notify.targets import Rule
from tagsync.schedule import stale

ALARMS: Final = 5
"""Maximum number of changes of immutable tags above the table."""


@click.command(cls=StrictCommand)
@patterns_argument
@click.option("--all", "show_all", is_flag=True, help="Show every repository in the table.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if a repository is stale.")
@output_options
@click.pass_obj
def status(
    settings: Settings,
    patterns: tuple[str, ...],
    show_all: bool,
    exit_code: bool,
    output: OutputOptions,
) -> int:
    """Show how fresh the record of each repository is.

    The table has the totals of each registry, and the repositories with a problem, the worst first.
    A repository is stale if it has had no complete listing for three of its poll intervals. If
    tagsync has not polled any of the repositories for three poll intervals, a message on standard
    error says so. A repository that is no longer watched is never stale. PATTERN is a glob over
    registry/namespace/repository.

    Above the table are the newest moves and deletions of immutable tags, until tagsync accept.
    Below it are the destinations of notifications that fail.

    \b
    Example:
      tagsync status 'swr/team-a/*'
    """
    config = load_config(settings)
    configured = {repository for watch in config.watches for repository in watch.named}
    with Audit.open(config.database) as audit:
        known = sorted(configured | set(audit.repositories(())))
        watches = {
            repository: watch_of(repository, config.watches)
            for repository in matching(known, without_tags(patterns))
        }
        now = utc_now()
        rows = audit.status(watches, now)

        last = audit.last_verification()
        failing = failing_destinations(audit.outbox, rules_without_secrets(config), now)
        wanted = ImmutableFilter(repositories=[each.full_name for each in watches])

        def document(rows: Sequence[Row], view: View) -> Iterator[Block]:
            newest = audit.immutable_changes(wanted, ALARMS)
            yield from alarm_blocks(newest, audit.count_immutable_changes(wanted))
            yield from status_blocks(rows, show_all=show_all)
            yield from distrust_blocks(rows)
            yield from verification_block(last, view)
            yield from destination_blocks(failing, view)

        answer(settings, output, StatusRow, rows, document)
        _warn_if_not_polling(audit, watches, now)
    return FAILED if exit_code and any(row["stale"] for row in rows) else 0


def status_blocks(rows: Sequence[Row], *, show_all: bool) -> Iterator[Block]:
    """Yield the totals of each registry, the repositories with a problem, and the sum.

    Args:
        rows: A row for each repository.
        show_all: Whether to show the repositories without a problem, too.
    """
    registries = groupby(rows, key=lambda row: row["repository"].partition("/")[0])
    yield Table(REGISTRY_COLUMNS, [_totals(name, list(group)) for name, group in registries])
    shown = [row for row in rows if show_all or state(row) in _PROBLEMS]
    if shown:
        yield Line()
        yield Table(STATUS_COLUMNS, sorted(shown, key=_severity))
    states = Counter(map(state, rows))
    counts = ", ".join(f"{states[name]:,} {name}" for name in _STATES if states[name])
    sentence = count_text(len(rows), "repository", "repositories")
    sentence += f": {counts}" if counts else ""
    left_out = "; --all shows the others" if len(shown) < len(rows) and shown else ""
    yield Line(sentence + left_out, "faint")


def distrust_blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield a line about each repository whose registry's own list is not used."""
    for row in rows:
        if row["distrust"]:
            yield Line(f"{row['repository']}: {row['distrust']}", "held")


def verification_block(last: Verification | None, view: View) -> Iterator[Block]:
    """Yield a line about the daemon's last verification, unless it found no fault."""
    if last is None or last.result == "ok":
        return
    found = "found a fault" if last.result == "fault" else "did not finish"
    yield Line(f"the verification of {view.time(last.at)} {found}: run tagsync verify", "failed")


def failing_destinations(
    outbox: Outbox, rules: Sequence[Rule], now: datetime
) -> list[DestinationStatus]:
    """Return the state of each configured destination that fails.

    The events that wait for the others are not counted: many may wait, and each is read for that.
    """
    failing = [rule for rule in rules if _is_failing(outbox, rule.name)]
    return [each for each in statuses(outbox, failing, now) if each.kind is not None]


def _is_failing(outbox: Outbox, name: str) -> bool:
    try:
        destination = outbox.destination(name)
    except DamagedRecord:
        return True
    return destination is not None and destination.failures > 0


def destination_blocks(failing: Iterable[DestinationStatus], view: View) -> Iterator[Block]:
    """Yield a line about each destination of notifications that fails."""
    for each in failing:
        if each.failing_since is None:
            yield Line(f"{each.name} gets no notifications: {each.last_error}", "failed")
        else:
            yield Line(
                f"{each.name} has not accepted notifications since {view.time(each.failing_since)}"
                f" ({count_text(each.failures, 'attempt')}, {count_text(each.waiting, 'event')}"
                f" waiting): {each.last_error}",
                "failed",
            )


_STATES: Final = ("stale", "failed", "held", "ok", "not watched")
"""The states of a repository, the worst first."""

_PROBLEMS: Final = frozenset({"stale", "failed", "held"})


def state(row: Row) -> str:
    """Return the state of a repository: one word for the worst that is true of it."""
    if row["stale"] is None:
        return "not watched"
    if row["stale"]:
        return "stale"
    return row["outcome"] if row["outcome"] in _PROBLEMS else "ok"


def _severity(row: Row) -> tuple[int, str, str]:
    return _STATES.index(state(row)), row["last_complete_at"] or "", row["repository"]


def _totals(registry: str, rows: Sequence[Row]) -> Row:
    states = Counter(map(state, rows))
    return {
        "registry": registry,
        "repositories": len(rows),
        "tags": sum(row["tags"] or 0 for row in rows),
        "last listing": max((row["last_complete_at"] or "" for row in rows), default="") or None,
        **{name: states[name] or None for name in _STATES if name != "ok"},
    }


def _failures_text(row: Row, view: View) -> str:
    del view
    failures = row["failures"]
    return count_text(failures, "failed poll") if isinstance(failures, int) and failures else ""


def _error_text(row: Row, view: View) -> str:
    error = row["last_error"] or ""
    return error if view.full else reason_text(error, row["repository"])


def _constant(style: str, row: Row) -> str:
    del row
    return style


def _style(row: Row) -> str:
    return state(row) if state(row) in _PROBLEMS else ""


REGISTRY_COLUMNS: Final = (
    Column("registry", "name"),
    Column("repositories", "number"),
    Column("tags", "number", optional=2),
    Column("last listing", "age"),
    *(
        Column(name, "number", style=partial(_constant, name))
        for name in ("stale", "failed", "held")
    ),
    Column("not watched", "number", optional=1),
)
"""The columns of a registry's totals."""

STATUS_COLUMNS: Final = (
    Column("state", "name", text=lambda row, _: state(row), style=_style),
    repository_column(common=False),
    Column("last_complete_at", "age", line=2),
    Column("tags", "number", line=2, optional=2),
    Column("failures", "name", line=2, optional=1, text=_failures_text),
    Column("last_error", "cut", line=2, limit=40, text=_error_text),
)
"""The columns of one repository."""


def _warn_if_not_polling(
    audit: Audit, watches: Mapping[Repository, Watch | None], now: datetime
) -> None:
    """Print a message if tagsync no longer polls. Failed polls count as polls here."""
    watched = [watch for watch in watches.values() if watch is not None]
    last = audit.last_attempt_at(list(watches))
    if watched and all(stale(watch, last, now) for watch in watched):
        since = f"no poll since {last}" if last else "no poll yet"
        click.echo(
            f"tagsync: {since}: start the daemon (tagsync run), or check the timer that runs"
            " tagsync sync",
            err=True,
        )
