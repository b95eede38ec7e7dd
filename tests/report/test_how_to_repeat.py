"""The SQL and the script of a report give its content without tagsync."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.audit.rows import TagsAtRow
from tagsync.database.hash_chain import Head
from tagsync.report.content import Report
from tagsync.report.how_to_repeat import check_script, literal
from tests.support.record import query, without_triggers
from tests.support.reports import HOSTILE, ReportOn

QUESTIONS = [
    ("swr/team/api", None, None),
    ("swr/team/api", 5, 40),
    ("swr/team/api:latest", 12, 62),
    ("swr/*:[nl]*", 62, 100),
    ("swr/*:[!nl]*", 5, 100),
    ("swr/team/*:*e*", 60, 65),
    ("swr/team/api:new", 30, None),
    ("*", None, 20),
    *((f"swr/team/api:{name}", 5, None) for name in HOSTILE if not set(name) & set("*[?")),
]


def run_sql(database: Path, sql: str) -> list[dict[str, Any]]:
    """Run a query with the program sqlite3."""
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("the program sqlite3 is not installed")
    finished = subprocess.run(
        [program, "-readonly", "-json", str(database)],
        input=sql,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert finished.stderr == ""
    rows: list[dict[str, Any]] = json.loads(finished.stdout or "[]")
    return rows


def digests(rows: Sequence[TagsAtRow]) -> set[tuple[str | None, str | None]]:
    return {(row.tag, row.digest) for row in rows if row.present}


@pytest.mark.parametrize(("pattern", "start", "end"), QUESTIONS)
def test_the_queries_give_the_rows_of_the_report(
    pattern: str, start: int | None, end: int | None, report_on: ReportOn, record: Path
) -> None:
    """The program sqlite3 gives the same digests at both times, and the same changes."""
    report = report_on(pattern, start, end)
    first, second, changes = (run_sql(record, each.sql) for each in report.queries)
    for rows, name in ((first, "at_from"), (second, "at_to")):
        expected = [row for answer in report.answers for row in getattr(answer, name)]
        assert {(row["tag"], row["digest"]) for row in rows} == digests(expected)
    names = ("id", "observed_at", "not_before", "repository", "tag", "kind", "moved", "hash")
    assert [tuple(row[name] for name in names) for row in changes] == [
        tuple(getattr(change, name) for name in names) for change in report.changes
    ]


@given(st.text())
def test_a_literal_is_exactly_the_text(text: str) -> None:
    """SQLite reads each literal as the text, and a literal is one printable line."""
    written = literal(text)
    assert written.isprintable()
    with closing(sqlite3.connect(":memory:")) as connection:
        # The encoding of hex does not end at a zero byte.
        assert connection.execute(f"SELECT hex({written})").fetchone() == (
            text.encode().hex().upper(),
        )


def check(report: Report, database: Path) -> subprocess.CompletedProcess[str]:
    """Run the script of a report, without tagsync's packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", report.check, str(database)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (None, ""),
        ("UPDATE changes SET tag = 'other' WHERE id = 3", "change 3 does not fit"),
        ("UPDATE repositories SET name = 'other'", "change 1 does not fit"),
        ("DELETE FROM changes WHERE id = 17", "another record"),
        ("DELETE FROM changes WHERE id = 2", "change 3 does not fit"),
    ],
)
def test_the_script_finds_alterations(
    edit: str | None, message: str, report_on: ReportOn, record: Path, tmp_path: Path
) -> None:
    """The script of ten lines passes on the record, and fails after each alteration."""
    report, copied = report_on(), tmp_path / "copy.db"
    shutil.copy(record, copied)
    assert len(report.check.splitlines()) == 10
    if edit is not None:
        with (
            closing(sqlite3.connect(copied)) as connection,
            connection,
            without_triggers(connection),
        ):
            connection.execute(edit)
    finished = check(report, copied)
    if edit is None:
        assert (finished.returncode, finished.stderr) == (0, "")
        assert finished.stdout == "changes 1 to 17 are those of the report\n"
    else:
        assert finished.returncode == 1
        assert message in finished.stderr


@pytest.mark.processes
def test_the_script_accepts_a_record_that_went_on(report_on: ReportOn, record: Path) -> None:
    """A record with newer changes than the report passes its script."""
    report = report_on()
    number, hash_ = query(record, "SELECT id, hash FROM changes ORDER BY id LIMIT 1 OFFSET 14")[0]
    shorter = check_script(Head(number, hash_))
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", shorter, str(record)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert finished.stdout == f"changes 1 to {number} are those of the report\n"
    assert number < report.heads[0].id
