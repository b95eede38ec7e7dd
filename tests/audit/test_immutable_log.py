"""The alarms about immutable tags: which are open, and who accepted the others."""

from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.immutable_changes import ImmutableFilter
from tagsync.audit.queries import Audit
from tagsync.audit.rows import ImmutableLogRow, as_rows
from tagsync.errors import DamagedRecord
from tests.support.audit import PollAt, RunQuery, altered_copy, at, pointing
from tests.support.immutable import ACCEPTED_AT, add_acceptance, add_violation
from tests.support.record import copy
from tests.support.registries import REPOSITORY

NAME = REPOSITORY.full_name
ALL = ChangeFilter(immutable="all")
OPEN = ChangeFilter(immutable="open")


@pytest.fixture
def alarmed(poll_at: PollAt, database: Path) -> Path:
    """A database in which v1 moves by change 4, is deleted by 6, and v2 is another digest by 7."""
    poll_at(0, pointing("v1", "1"), pointing("v2", "1"), pointing("latest", "1"))
    poll_at(5, pointing("v1", "2"), pointing("v2", "1"), pointing("latest", "2"))
    poll_at(10, pointing("v2", "3"), pointing("latest", "2"))
    poll_at(15, pointing("v2", "3"), pointing("latest", "2"))
    kinds = {"latest": None, "v1": "immutable_moved", "v2": "immutable_moved"}
    with Audit.open(database) as audit:
        for row in audit.log([]):
            kind = "immutable_deleted" if row["kind"] == "deleted" else kinds[row["tag"]]
            if kind and row["not_before"]:
                add_violation(database, row["id"], kind, row["old_digest"])  # type: ignore[arg-type]
    return database


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def test_open_changes_are_listed_until_they_are_accepted(
    alarmed: Path, run_query: RunQuery
) -> None:
    """The log of immutable tags has the open changes, and on request those that were accepted."""
    first, second, third = ids(run_query("log", [], OPEN))
    add_acceptance(alarmed, second)
    assert ids(run_query("log", [], OPEN)) == [first, third]
    assert ids(run_query("log", [], ALL)) == [first, second, third]
    with Audit.open(alarmed) as audit:
        assert audit.count_immutable_changes() == 2
        assert [each.change_id for each in audit.immutable_changes()] == [third, first]
        assert [each.change_id for each in audit.immutable_changes(newest=1)] == [third]
        accepted = audit.immutable_change(second)
        assert audit.immutable_change(1) is None
    assert accepted is not None
    assert (accepted.is_open, accepted.accepted_at, accepted.accepted_by, accepted.reason) == (
        False,
        ACCEPTED_AT,
        "alice (uid 1000)",
        "a rebuild",
    )


def test_rows_say_what_was_there_before_and_who_accepted(
    alarmed: Path, run_query: RunQuery
) -> None:
    """A row of the log has the fields of the change, of the alarm and of its acceptance."""
    change = ids(run_query("log", [], OPEN))[0]
    add_acceptance(alarmed, change)
    row = next(as_rows(run_query("log", [], ALL), ImmutableLogRow))
    assert (row.id, row.tag, row.moved, row.observed_at) == (change, "v1", True, at(5))
    assert (row.violation, row.previous_digest, row.pattern) == (
        "immutable_moved",
        "sha256:1",
        "v*",
    )
    assert (row.accepted_at, row.accepted_by, row.reason) == (
        ACCEPTED_AT,
        "alice (uid 1000)",
        "a rebuild",
    )


@pytest.mark.usefixtures("alarmed")
def test_other_filters_narrow_the_alarms(run_query: RunQuery) -> None:
    """The patterns, times, kinds, tags and numbers of the log count for immutable tags, too."""
    v1_moved, *others = ids(run_query("log", [], OPEN))
    assert ids(run_query("log", ["*:v1"], OPEN))[0] == v1_moved
    assert len(run_query("log", ["*:v1"], OPEN)) == 2
    assert ids(run_query("log", [], ChangeFilter(immutable="open", after=v1_moved))) == others
    assert ids(run_query("log", [], ChangeFilter(since=at(7), immutable="open"))) == others
    deleted = run_query("log", [], ChangeFilter(kinds=["deleted"], immutable="open"))
    assert [row["violation"] for row in deleted] == ["immutable_deleted"]
    assert ids(run_query("log", [], OPEN, newest=1)) == others[-1:]
    assert ids(run_query("log", [], OPEN, reverse=True)) == [*reversed(others), v1_moved]


def test_the_baseline_has_no_alarm(alarmed: Path) -> None:
    """No tag of the baseline counts as left out of the list of alarms."""
    with Audit.open(alarmed) as audit:
        assert audit.count_baseline([], ALL) == (0, 0)
        assert audit.count_baseline([], ChangeFilter()) == (3, 1)


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (ImmutableFilter(repositories=[NAME]), 3),
        (ImmutableFilter(repositories=["swr/team/other"]), 0),
        (ImmutableFilter(repositories=[]), 0),
        (ImmutableFilter(tag="v1"), 2),
        (ImmutableFilter(repositories=[NAME], tag="latest"), 0),
    ],
)
def test_alarms_of_repositories_and_tags(
    alarmed: Path, wanted: ImmutableFilter, number: int
) -> None:
    """The number of alarms, and the alarms, are those of some repositories or of one tag."""
    with Audit.open(alarmed) as audit:
        assert audit.count_immutable_changes(wanted) == number
        assert len(audit.immutable_changes(wanted)) == number


def test_damaged_alarms_are_reported(alarmed: Path, tmp_path: Path) -> None:
    """An event whose detail tagsync did not write is reported as damage, not as a bug."""
    edit = "UPDATE events SET detail = '{}' WHERE kind = 'immutable_moved'"
    copy(alarmed, tmp_path / "whole.db")
    damaged = altered_copy(tmp_path / "whole.db", tmp_path / "altered.db", edit)
    with Audit.open(damaged) as audit, pytest.raises(DamagedRecord):
        audit.immutable_changes()
    with Audit.open(damaged) as audit, pytest.raises(DamagedRecord):
        list(audit.log([], ALL))
