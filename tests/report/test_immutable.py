"""A report names the changes of tags that must not move, and who accepted them."""

from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.report.build import build
from tagsync.report.collect import LIMITS, Limits, ask, collect
from tagsync.report.content import Report
from tagsync.report.shorten import shorten
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.immutable import add_acceptance, add_violation
from tests.support.record import copy, query
from tests.support.reports import ONE, TWO, ReportOn


@pytest.fixture
def moves(record: Path, tmp_path: Path) -> Path:
    """The record, in which both moves of ``latest`` are alarms, and the first one is accepted."""
    path = tmp_path / "moves.db"
    copy(record, path)
    sql = "SELECT id, previous_digest FROM tag_moves WHERE tag = 'latest' ORDER BY id"
    (first, before), (second, later) = query(path, sql)
    add_violation(path, first, previous=before)
    add_violation(path, second, previous=later)
    add_acceptance(path, first, reason="<b>a rebuild</b>")
    return path


def report(path: Path, pattern: str, end: float | None = None, limits: Limits = LIMITS) -> Report:
    with Audit.open(path) as audit:
        made_at = FakeClock().now + timedelta(days=1)
        until = None if end is None else at(end)
        return collect(audit, ask(pattern, None, until), made_at, limits=limits)


def test_the_changes_are_those_of_the_question(moves: Path) -> None:
    """The list has the changes of the pattern and the times, accepted ones included."""
    found = report(moves, "swr/team/api").immutable
    assert [(row.previous_digest, row.new_digest, row.reason) for row in found] == [
        (ONE.digest, TWO.digest, "<b>a rebuild</b>"),
        (TWO.digest, ONE.digest, None),
    ]
    assert report(moves, "swr/team/api:latest", end=20).immutable == found[:1]
    assert report(moves, "swr/team/api:new").immutable == []


def test_the_list_is_cut_from_the_oldest(moves: Path) -> None:
    """A cut list has the newest changes, the number of all, and the command that gives them."""
    cut = report(moves, "swr/team/api", limits=Limits(immutable=1))
    assert cut.immutable == report(moves, "swr/team/api").immutable[1:]
    length = cut.length_of("immutable")
    assert (length.shown, length.total) == (1, 2)
    assert length.command == "tagsync log swr/team/api --immutable --accepted --format json"
    assert shorten(report(moves, "swr/team/api")).immutable == cut.immutable


def test_it_warns_and_says_who_accepted(moves: Path) -> None:
    """The file warns at its top, and its table has the acceptance, whose reason stays text."""
    page = build(report(moves, "swr/team/api"), "html").decode()
    assert "In this time, 2 changes moved or deleted tags that must not move." in page
    assert "not accepted" in page
    assert "&lt;b&gt;a rebuild&lt;/b&gt;" in page
    assert "<b>a rebuild" not in page
    text = build(report(moves, "swr/team/api"), "md").decode()
    assert "2026-05-03 13:00:00 by `alice (uid 1000)`: `<b>a rebuild</b>`" in text


def test_without_such_changes_there_is_no_section(report_on: ReportOn) -> None:
    """A report on tags that did not break a promise does not mention promises."""
    assert "must not move" not in build(report_on(), "html").decode()
