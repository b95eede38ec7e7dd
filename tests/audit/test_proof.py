"""What a verification proves, and how far it has come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.proof import Link, Proof
from tagsync.audit.queries import Audit
from tagsync.audit.verify_progress import RowCounter
from tagsync.database.hash_chain import GENESIS
from tests.support.audit import PollAt, at

Query = Callable[..., list[tuple[Any, ...]]]


def proof_of(database: Path, *heads: str) -> Proof:
    with Audit.open(database) as audit:
        return audit.proof(heads)


@pytest.mark.usefixtures("store")
def test_a_record_without_a_change_proves_nothing(database: Path) -> None:
    """Without a change there is no newest one, and the first hash of a chain is no witness."""
    assert proof_of(database, GENESIS) == Proof(None, None)


def test_newest_head_of_a_witness_counts(poll_at: PollAt, database: Path, query: Query) -> None:
    """The proof has the newest change, and the newest one among the given heads."""
    for minute, tags in enumerate((("a",), ("a", "b"), ("a", "b", "c"))):
        poll_at(minute, *tags)
    hashes = [row[0] for row in query("SELECT hash FROM changes ORDER BY id")]
    newest = Link(3, at(2))
    assert proof_of(database) == Proof(newest, None)
    assert proof_of(database, "f" * 64) == Proof(newest, None)
    assert proof_of(database, hashes[1], hashes[0], hashes[1]) == Proof(newest, Link(2, at(1)))
    assert proof_of(database, hashes[2]) == Proof(newest, newest)


def test_head_of_the_observations_covers_changes(
    poll_at: PollAt, database: Path, query: Query
) -> None:
    """The head of the observations proves the changes until its newest observation ended."""
    poll_at(0, "a")
    poll_at(1, fails=True)
    poll_at(2, "a", "b")
    ((head,),) = query("SELECT hash FROM observations WHERE ended = 1")
    assert proof_of(database, head) == Proof(Link(2, at(2)), Link(1, at(0)))


def test_each_check_reports_its_rows(poll_at: PollAt, database: Path) -> None:
    """A check reports when it begins, and a row is there before the next check begins."""
    poll_at(0, *(f"v{number}" for number in range(2500)))
    seen: list[tuple[str, int]] = []
    with Audit.open(database) as audit:
        assert audit.rows_to_verify() >= 2500 * 4
        for row in audit.verify((), lambda check, rows: seen.append((check, rows))):
            assert seen[-1][0] == row["check"]
    assert [(check, rows) for check, rows in seen if check == "chain"] == [
        ("chain", 0),
        ("chain", 1000),
        ("chain", 2000),
    ]
    assert {check for check, rows in seen if not rows} >= {"schema", "images", "tags"}
    of_schema = [rows for check, rows in seen if check == "schema"]
    assert of_schema == [1000 * number for number in range(len(of_schema))]
    assert 2500 <= of_schema[-1] <= 7500


def test_an_interrupt_ends_the_first_check(poll_at: PollAt, database: Path) -> None:
    """An interrupt is not taken for a fault of SQLite, while that reads the whole file."""
    poll_at(0, *(f"v{number}" for number in range(2500)))

    def interrupt(check: str, rows: int) -> None:
        if rows:
            raise KeyboardInterrupt(check)

    with Audit.open(database) as audit:
        with pytest.raises(KeyboardInterrupt, match="schema"):
            list(audit.verify((), interrupt))
        assert {row["result"] for row in audit.verify()} == {"ok"}


def test_rows_are_reported_at_intervals() -> None:
    """Rows that are counted one by one or many at once are reported at most every 1,000."""
    seen: list[tuple[str, int]] = []
    counter = RowCounter("tags", lambda *report: seen.append(report))
    for _ in range(1500):
        counter[""] += 1
    counter[""] += 5000
    assert seen == [("tags", 0), ("tags", 1000), ("tags", 6500)]
    assert counter[""] == 6500
