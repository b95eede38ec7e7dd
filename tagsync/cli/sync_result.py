"""Pure: the result of a pass for people: a table, the totals, and what a dry run expects."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tagsync.cli.formats import count_text, duration_text
from tagsync.cli.tables import Block, Column, Line, Table, View, repository_column, tag_column
from tagsync.models import Repository, is_glob
from tagsync.polling.jobs import Poll

Row = Mapping[str, Any]

_OF_A_REGISTRY: Final = frozenset(
    {"unreachable", "login_refused", "refused", "throttled", "timeout"}
)
"""Reasons of failures that probably concern the whole registry, and not one repository."""

_MANY: Final = 10
"""So many failures of a registry, for one of these reasons, are summed up in one row."""

_LONG: Final = 60
"""From this number of seconds, a duration is shown without tenths of a second."""


def to_row(poll: Poll) -> dict[str, Any]:
    """Return a poll with its repository's full name: at least the fields of `SyncRow`."""
    return {**msgspec.structs.asdict(poll), "repository": poll.repository.full_name}


class Tally:
    """Counts the polls of a pass while it runs, for the line of progress."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._outcomes: Counter[str] = Counter()
        self._moved = 0

    def add(self, poll: Poll) -> None:
        """Count a poll that has ended."""
        self._outcomes[poll.outcome] += 1
        self._moved += poll.moved

    def __str__(self) -> str:
        held = f"  {self._outcomes['held']} held" if self._outcomes["held"] else ""
        return (
            f"{self._outcomes.total()}/{self._total}  {self._outcomes['failed']} failed{held}"
            f"  {self._moved} moved"
        )


def result_blocks(polls: Sequence[Poll], *, show_all: bool, dry_run: bool) -> Iterator[Block]:
    """Yield what changed, was held or failed, the worst last.

    Args:
        polls: The polls of the pass.
        show_all: Whether to show every repository, and to sum up nothing.
        dry_run: Whether the pass was a dry run. `dry_run_blocks` shows its changes.
    """
    if show_all:
        yield Table(_POLLS, [to_row(poll) for poll in polls])
        yield from _details([to_row(poll) for poll in polls if poll.detail])
        return
    changed = [poll for poll in polls if _changed(poll) and not dry_run]
    first = [poll for poll in changed if poll.first]
    if len(first) > _MANY:
        changed = [poll for poll in changed if not poll.first]
        tags = sum(poll.added for poll in first)
        yield Line(
            f"first listing of {len(first):,} repositories, with {tags:,} tags (--all shows each)"
        )
    yield Table(_CHANGED, [to_row(poll) for poll in changed])
    yield from _details([to_row(poll) for poll in polls if poll.outcome == "held"])
    yield from _details(_failed_rows(polls))


def _details(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield each row's outcome and repository, and below them the detail."""
    for row in rows:
        yield Line(f"{row['outcome']}  {row['repository']}", _style(row))
        yield Line(row["detail"] or "", indent=2)


def _changed(poll: Poll) -> bool:
    return poll.outcome == "ok" and bool(poll.added or poll.updated or poll.deleted)


def _failed_rows(polls: Sequence[Poll]) -> list[dict[str, Any]]:
    """Return the rows of failed polls. One row sums up those with the reason of their registry."""
    polled = Counter(poll.repository.registry for poll in polls if _is_repository(poll))
    groups: dict[object, list[Poll]] = defaultdict(list)
    for poll in polls:
        if poll.outcome == "failed":
            groups[poll.repository.registry, poll.reasons].append(poll)
    rows = []
    for group in groups.values():
        registry = group[0].repository.registry
        if _is_of_the_registry(group, polled[registry]):
            rows.append(_sum_up(group, polled[registry]))
        else:
            rows += map(to_row, group)
    return rows


def _is_of_the_registry(group: Sequence[Poll], polled: int) -> bool:
    """Return whether failures for one reason are probably one failure of their registry.

    Args:
        group: All polls of the registry that failed for this reason.
        polled: Number of repositories of the registry that were polled.
    """
    if len(group) == 1 or not group[0].reasons:
        return False
    repositories = sum(map(_is_repository, group))
    return repositories == polled or (
        repositories >= _MANY and _OF_A_REGISTRY.issuperset(group[0].reasons)
    )


def _sum_up(group: Sequence[Poll], polled: int) -> dict[str, Any]:
    """Return one row for several failed polls of a registry."""
    repositories = [poll for poll in group if _is_repository(poll)]
    patterns = len(group) - len(repositories)
    counts = []
    if repositories:
        of = f"{len(repositories):,} of " if len(repositories) < polled else ""
        counts.append(f"{of}{count_text(polled, 'repository', 'repositories')}")
    if patterns:
        counts.append(count_text(patterns, "pattern"))
    example, *_ = repositories or group
    same = {poll.detail for poll in group} == {example.detail}
    return {
        **to_row(example),
        "repository": f"{example.repository.registry} ({', '.join(counts)})",
        "detail": example.detail if same else f"for example: {example.detail}",
    }


def _is_repository(poll: Poll) -> bool:
    """Return whether a poll is of a repository, and not about a glob of a watch."""
    return not is_glob(poll.repository.name)


def totals(polls: Sequence[Poll], seconds: float, *, dry_run: bool) -> str:
    """Return the totals of a pass in one line.

    Args:
        polls: The polls of the pass.
        seconds: The duration of the pass.
        dry_run: Whether the pass was a dry run.
    """
    repositories = [poll for poll in polls if _is_repository(poll)]
    took = f"{seconds:.1f} s" if seconds < _LONG else duration_text(seconds)
    count = count_text(len(repositories), "repository", "repositories")
    result = ", ".join(_counts(polls, repositories)) or "no change"
    if dry_run:
        return f"dry run: {count} in {took}: {result.replace(' changed', ' would change')}"
    return f"{count} in {took}: {result}"


def _counts(polls: Sequence[Poll], repositories: Sequence[Poll]) -> list[str]:
    """Return the number of repositories with each outcome but those that are unchanged."""
    changed = [poll for poll in repositories if _changed(poll)]
    outcomes = Counter(poll.outcome for poll in repositories)
    counts = [f"{len(changed):,} changed ({_tags(changed)})"] if changed else []
    for outcome in ("dropped", "held", "failed"):
        counts += [f"{outcomes[outcome]:,} {outcome}"] if outcomes[outcome] else []
    if failed := sum(poll.outcome == "failed" for poll in polls) - outcomes["failed"]:
        counts.append(f"{count_text(failed, 'pattern')} failed")
    return counts


def _tags(changed: Sequence[Poll]) -> str:
    """Return the number of tags that were added, updated, deleted and moved."""
    numbers = {
        "+": sum(poll.added for poll in changed),
        "~": sum(poll.updated for poll in changed),
        "-": sum(poll.deleted for poll in changed),
    }
    moved = sum(poll.moved for poll in changed)
    signed = " ".join(f"{sign}{number:,}" for sign, number in numbers.items() if number)
    return f"{signed} tags, {moved:,} moved" if moved else f"{signed} tags"


def dry_run_blocks(
    polls: Sequence[Poll], changes_of: Callable[[Repository], Sequence[Row]], *, show_all: bool
) -> Iterator[Block]:
    """Yield what a real pass would change. Many long first listings share one line.

    Args:
        polls: The polls of a dry run.
        changes_of: Returns the changes of a repository, as `tagsync.cli.expected_changes` keeps
            them.
        show_all: Whether to list each tag.
    """
    long = [poll for poll in polls if poll.first and poll.added > _MANY and not show_all]
    summed_up = {poll.repository for poll in long} if len(long) > _MANY else set()
    if summed_up:
        tags = sum(poll.added for poll in long)
        yield Line(
            f"would record the first listing of {len(long):,} repositories, with {tags:,} tags"
            " (--all lists each)",
            "added",
        )
    for poll in polls:
        if poll.repository not in summed_up:
            yield from expected_blocks(poll, changes_of(poll.repository), show_all=show_all)


def expected_blocks(poll: Poll, changes: Sequence[Row], *, show_all: bool) -> Iterator[Block]:
    """Yield what a real pass would change in one repository.

    Args:
        poll: The poll of the repository.
        changes: Its changes, as `tagsync.cli.expected_changes` keeps them.
        show_all: Whether to list each tag even if the first listing of a repository has many.
    """
    name = poll.repository.full_name
    if poll.first and len(changes) > _MANY and not show_all:
        tags = f"{len(changes):,} tags"
        yield Line(f"{name}  would add {tags} (first listing, --all lists each)", "added")
    elif changes:
        yield Line(name, "heading")
        yield Table(_EXPECTED, changes, header=False)


def _expected(change: Row, _: View) -> str:
    return f"would {_VERBS[_kind(change)]}"


def _kind(change: Row) -> str:
    return "moved" if change["moved"] else str(change["kind"])


def _difference(change: Row, view: View) -> str:
    """Return what a change changes: digests, or the names of the fields that differ."""
    old, new = view.digest(change["old_digest"]), view.digest(change["new_digest"])
    if change["kind"] != "updated":
        return old or new
    if old == new:
        return ", ".join(change["fields"])
    return f"{old or 'no digest'} {view.arrow} {new or 'no digest'}"


_VERBS: Final = {"added": "add", "moved": "move", "updated": "update", "deleted": "delete"}

_EXPECTED: Final = (
    Column("kind", "text", text=_expected, style=_kind),
    tag_column(line=1),
    Column("difference", "words", text=_difference),
)

_COUNTS: Final = (
    Column("tags", "number", line=2, optional=1),
    Column("added", "number", line=2),
    Column("updated", "number", line=2),
    Column("deleted", "number", line=2),
)

_CHANGED: Final = (repository_column(), *_COUNTS)


def _style(row: Row) -> str:
    return "faint" if row["outcome"] == "dropped" else str(row["outcome"])


_POLLS: Final = (repository_column(), Column("outcome", "text", style=_style), *_COUNTS)
