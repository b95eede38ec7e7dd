"""``verify`` for people: rows as they come, the time that is left, and the conclusion."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Any

import pytest

from tagsync.audit.proof import Link, Proof
from tagsync.cli.tables import View
from tagsync.cli.verify import print_data, print_table
from tagsync.cli.verify_result import Progress, conclusion, header, row_lines

HASH = "ab" * 32
OK: dict[str, Any] = {"check": "chain", "rows": 1234567, "result": "ok", "detail": f"head {HASH}"}
FAULT: dict[str, Any] = {
    "check": "tags",
    "rows": 2,
    "result": "fault",
    "detail": "swr/team/api tag '\x1b[2Jv1' is in tags, and no change added it " * 3,
}
NEWEST = Link(1234, "2026-11-26T12:38:00.123Z")
OLDER = Link(1230, "2026-11-25T09:00:00.000Z")

Printed = Callable[[], str]


def view(width: int = 200) -> View:
    return View(width, datetime(2026, 11, 26, 13, tzinfo=UTC))


# --- rows -----------------------------------------------------------------------------------------


def steps(printed: Printed, *expected: tuple[dict[str, Any], str]) -> Iterator[dict[str, Any]]:
    """Yield rows; before the next one, the text of each must have been printed."""
    for row, text in expected:
        yield row
        assert text in printed()


def test_a_row_of_the_table_is_shown_before_the_next_check() -> None:
    """The table shows a row as soon as its check has ended."""
    with redirect_stdout(io.StringIO()) as stream:
        rows = print_table(
            steps(stream.getvalue, (OK, "chain           1,234,567  ok"), (FAULT, "tags")), view()
        )
    assert rows == [OK, FAULT]


class Pipe(io.StringIO):
    """A stream with a buffer: `flushed` is what its reader has got."""

    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


@pytest.mark.parametrize(
    ("output_format", "first", "second"),
    [
        ("json", '"check": "chain"', '"check": "tags"'),
        ("jsonl", json.dumps(OK), json.dumps(FAULT)),
        ("csv", f"chain,1234567,ok,head {HASH}", "tags,2,fault"),
    ],
)
def test_a_row_of_data_is_flushed_before_the_next_check(
    output_format: str, first: str, second: str
) -> None:
    """Also through a pipe, a row is there before the next check begins."""
    with redirect_stdout(Pipe()) as stream:
        rows = print_data(
            steps(lambda: stream.flushed, (OK, first), (FAULT, second)), output_format
        )
    assert rows == [OK, FAULT]


def test_json_has_all_rows() -> None:
    """JSON is one list, at the end."""
    with redirect_stdout(io.StringIO()) as stream:
        assert print_data(iter([OK, FAULT]), "json") == [OK, FAULT]
    assert json.loads(stream.getvalue()) == [OK, FAULT]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("row", [OK, FAULT], ids=["ok", "fault"])
def test_a_row_fits_the_terminal(row: dict[str, Any], width: int) -> None:
    """A long detail has lines of its own, nothing is cut, and the columns are aligned."""
    lines = list(row_lines(row, view(width)))
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert text.endswith(" ".join(view().show(row["detail"]).split()))
    assert "\x1b" not in text
    titles = header(view(width))
    assert lines[0].index(row["result"]) == titles.index("result")
    assert lines[0][: titles.index("rows") + 4].endswith(f"{row['rows']:,}")


def test_results_are_coloured() -> None:
    """A fault has the colour of a failure."""
    painted = view()._replace(color=True)
    assert "\x1b[31mfault" in next(row_lines(FAULT, painted))
    assert "\x1b[32mok" in next(row_lines(OK, painted))


# --- progress -------------------------------------------------------------------------------------


def test_progress_estimates_the_time_that_is_left() -> None:
    """The estimate is by the rows of all checks; it needs a second of experience."""
    progress = Progress(4000, 100.0)
    assert progress.text("chain", 0, 100.0) == "chain  0/4,000 rows  0 %"
    assert progress.text("chain", 1000, 100.5) == "chain  1,000/4,000 rows  25 %"
    assert progress.text("chain", 1000, 110.0) == "chain  1,000/4,000 rows  25 %  about 30 s left"
    assert progress.text("tags", 0, 110.0) == "tags  1,000/4,000 rows  25 %  about 30 s left"
    assert progress.text("tags", 2000, 130.0) == "tags  3,000/4,000 rows  75 %  about 10 s left"


def test_progress_never_exceeds_the_total() -> None:
    """If there are more rows than expected, or none, the estimate stays in bounds."""
    progress = Progress(10, 0.0)
    assert progress.text("chain", 9000, 10.0) == "chain  10/10 rows  100 %  about < 1 s left"
    assert Progress(0, 0.0).text("schema", 0, 10.0) == "schema  0/0 rows  0 %"


# --- conclusion -----------------------------------------------------------------------------------


CONCLUSIONS = {
    "no witness": (
        "All 2 checks passed: the record has not been altered up to change 1,234 (2026-11-26"
        " 12:38 UTC), unless its hashes were computed anew. A head that was logged or kept"
        " elsewhere would rule that out: --head HASH."
    ),
    "the newest head": (
        "All 2 checks passed, and the given head proves that the record has not been altered"
        " up to change 1,234 (2026-11-26 12:38 UTC), the newest one."
    ),
    "older heads": (
        "All 2 checks passed, and the given heads prove that the record has not been altered"
        " up to change 1,230 (2026-11-25 09:00 UTC). For the 4 later changes, up to change"
        " 1,234 (2026-11-26 12:38 UTC), a later head would prove the same."
    ),
    "no change": "All 2 checks passed: the record is consistent, and has no change yet.",
}


@pytest.mark.parametrize(
    ("case", "proof", "heads"),
    [
        ("no witness", Proof(NEWEST, None), ()),
        ("the newest head", Proof(NEWEST, NEWEST), (HASH, HASH)),
        ("older heads", Proof(NEWEST, OLDER), (HASH, "cd" * 32)),
        ("no change", Proof(None, None), ()),
    ],
)
def test_conclusion_says_what_was_proven(case: str, proof: Proof, heads: tuple[str, ...]) -> None:
    """The last sentence says what is proven, up to when, and what a witness would add."""
    assert conclusion([OK, OK], proof, heads, view()) == CONCLUSIONS[case]


def test_conclusion_names_the_checks_that_failed() -> None:
    """After a fault, the last sentence names the checks and what to do."""
    assert conclusion([OK, FAULT], None, (), view()) == (
        "1 of 2 checks found a fault (tags): the record was altered or damaged. Keep the file as"
        " evidence, and compare it with a backup."
    )
