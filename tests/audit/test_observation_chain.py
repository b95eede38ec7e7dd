"""Verification of observations and repositories: it finds each alteration, and names it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.database.hash_chain import GENESIS, OBSERVATION_COLUMNS, REPOSITORY_COLUMNS, checksum
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import Edit, altered_copy, faults_of
from tests.support.clock import FakeClock
from tests.support.record import rebuild_observation_chain
from tests.support.registries import INTERVAL, Scripted

OTHER_VALUES = {
    "repository_id": "3 - repository_id",
    "outcome": "iif(outcome = 'ok', 'failed', 'ok')",
    "first_at": "'2020-01-01T00:00:00.000Z'",
    "last_at": "'2020-01-01T00:00:00.000Z'",
    "last_attempt_at": "'2020-01-01T00:00:00.000Z'",
    "polls": "polls + 1",
    "tags": "coalesce(tags, 0) + 1",
    "change_id": "change_id - 1",
    "ended": "ended + 100",
    "version": "version + 1",
    "failures": "failures + 1",
    "unlogged_from": "1",
    "id": "id + 100",
}
"""SQL for a value that a column does not have; other columns get a text."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repositories, one without tags, over two days with failures and a gap."""
    path = tmp_path_factory.mktemp("original") / "tagsync.db"
    clock = FakeClock()
    scripted = Scripted(clock)
    with Store.open(path) as store:
        for number, minutes in enumerate((0, 5, 5, 60, 60 * 24, 5, 5)):
            clock.advance(minutes=minutes)
            for name, tags in (("team/api", "abcdefg"[: number + 1]), ("team/empty", "")):
                if number == 1 and tags:
                    scripted.script.append(Unreachable("no connection"))
                else:
                    scripted.then(*tags)
                poll(Job(Repository("swr", name), scripted, INTERVAL), store, clock=clock)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        assert connection.execute(
            "SELECT count(ended), count(*), min(change_id) > 1 FROM observations"
        ).fetchone() == (6, 8, 0)
    return path


def repair_checksums(connection: sqlite3.Connection) -> None:
    """Give each repository's row a matching checksum."""
    columns = ", ".join(REPOSITORY_COLUMNS)
    for row in connection.execute(f"SELECT {columns} FROM repositories").fetchall():
        connection.execute("UPDATE repositories SET hash = ? WHERE id = ?", (checksum(row), row[0]))


def swap(table: str, column: str, one: int, other: int, names: str) -> tuple[str, ...]:
    """Return SQL that swaps the values of two rows in the columns with these names."""
    partner = f"temp.swapped WHERE {column} = {one + other} - {table}.{column}"
    sets = ", ".join(f"{name} = (SELECT {name} FROM {partner})" for name in names.split())
    return (
        f"CREATE TEMP TABLE swapped AS SELECT * FROM {table} WHERE {column} IN ({one}, {other})",
        f"UPDATE {table} SET {sets} WHERE {column} IN ({one}, {other})",
    )


OF_GROWING = "WHERE ended IS NULL AND repository_id = {}"
WITHOUT_END = "ended = NULL, change_id = NULL, hash = NULL"
INSERT_ENDED = """
    INSERT INTO observations SELECT 99, repository_id, outcome, reasons, reason_key, source,
    clock_said, detail, first_at, last_at, polls, tags, 7, change_id, hash FROM observations
    WHERE ended = 6
"""
FORGET_LAST_LISTING = """
    UPDATE repositories SET last_complete_at = (SELECT max(last_at) FROM observations
    WHERE outcome = 'ok' AND repository_id = 2) WHERE id = 2
"""
INSERT_REPOSITORY = """
    INSERT INTO repositories (registry, name, last_attempt_at, hash)
    VALUES ('swr', 'team/forged', '2026-05-03T12:00:00.000Z', '')
"""

ALTERATIONS: dict[str, tuple[tuple[Edit, ...], str, str]] = {
    "a failure that becomes a success": (
        ("UPDATE observations SET outcome = 'ok', tags = 1 WHERE outcome = 'failed'",),
        "observations",
        "does not have the hash",
    ),
    "a failure deleted": (
        ("DELETE FROM observations WHERE outcome = 'failed'",),
        "observations",
        "observation number 2 is missing before observation ",
    ),
    "a failure deleted, later ones renumbered": (
        (
            "DELETE FROM observations WHERE outcome = 'failed'",
            "UPDATE observations SET ended = ended - 1000 WHERE ended > 2",
            "UPDATE observations SET ended = ended + 999 WHERE ended < 0",
        ),
        "observations",
        "number 2, swr/team/api",
    ),
    "an ended observation inserted": (
        (INSERT_ENDED,),
        "observations",
        "number 7, ",
    ),
    "two ended observations swapped": (
        (
            "UPDATE observations SET ended = 99 WHERE ended = 1",
            "UPDATE observations SET ended = 1 WHERE ended = 2",
            "UPDATE observations SET ended = 2 WHERE ended = 99",
        ),
        "observations",
        "number 1, ",
    ),
    "the contents of two ended observations swapped": (
        swap("observations", "ended", 1, 3, "outcome first_at last_at polls tags detail"),
        "observations",
        "number 1, ",
    ),
    "an ended observation that grows again": (
        ("UPDATE observations SET ended = NULL WHERE ended = 6",),
        "observations",
        "has a hash, so it had ended",
    ),
    "an ended observation in the middle that grows again": (
        (f"UPDATE observations SET {WITHOUT_END} WHERE ended = 3",),
        "observations",
        "observation number 3 is missing",
    ),
    "the newest ended observation grows again, without its hash": (
        (f"UPDATE observations SET {WITHOUT_END} WHERE ended = 6",),
        "observations",
        "the only one of its repository that grows",
    ),
    "a growing observation deleted": (
        (f"DELETE FROM observations {OF_GROWING.format(2)}",),
        "observations",
        "swr/team/empty was listed from",
    ),
    "a growing observation of failures only, deleted": (
        (
            f"UPDATE observations SET outcome = 'failed', tags = NULL {OF_GROWING.format(2)}",
            FORGET_LAST_LISTING,
            f"DELETE FROM observations {OF_GROWING.format(2)}",
            repair_checksums,
        ),
        "observations",
        "swr/team/empty was last polled at",
    ),
    "the growing observation said to be of a damaged record": (
        (
            f"UPDATE observations SET outcome = 'failed', tags = NULL {OF_GROWING.format(2)}",
            f"UPDATE observations SET reasons = 'damaged' {OF_GROWING.format(2)}",
            FORGET_LAST_LISTING,
            repair_checksums,
        ),
        "observations",
        "swr/team/empty was last polled at",
    ),
    "an ended observation with a newer id": (
        ("UPDATE observations SET id = 99 WHERE ended = 6",),
        "observations",
        "is not in the order of its repository's polls",
    ),
    "a change that is said to be missing": (
        ("UPDATE observations SET change_id = 4711 WHERE ended = 6", rebuild_observation_chain),
        "observations",
        "change 4711, the newest when observation",
    ),
    "a change that goes back": (
        ("UPDATE observations SET change_id = 1 WHERE ended = 6", rebuild_observation_chain),
        "observations",
        "but says that change 1 was the newest",
    ),
    "a change that is removed": (
        ("UPDATE observations SET change_id = NULL WHERE ended = 6", rebuild_observation_chain),
        "observations",
        "but says that change None was the newest",
    ),
    "the hash of the change of an observation": (
        ("UPDATE changes SET hash = 'x' WHERE id = 1",),
        "observations",
        "number 1, ",
    ),
    "a repository without changes renamed": (
        ("UPDATE repositories SET name = 'team/forged' WHERE id = 2",),
        "observations",
        "swr/team/forged",
    ),
    "a repository without changes removed": (
        (
            "DELETE FROM observations WHERE repository_id = 2",
            "DELETE FROM repositories WHERE id = 2",
        ),
        "observations",
        " is missing before observation ",
    ),
    "only the row of a repository removed": (
        ("DELETE FROM repositories WHERE id = 2",),
        "observations",
        "the repository of observation ",
    ),
    "two repositories swapped": (
        swap("repositories", "id", 1, 2, "listing_hash version failures last_complete_at hash"),
        "repositories",
        "the row of swr/team/api in repositories does not have the hash",
    ),
    "two names swapped, with their checksums": (
        (
            "UPDATE repositories SET name = 'team/x' WHERE id = 1",
            "UPDATE repositories SET name = 'team/api' WHERE id = 2",
            "UPDATE repositories SET name = 'team/empty' WHERE id = 1",
            repair_checksums,
        ),
        "observations",
        "number 1, ",
    ),
    "a repository added": (
        (
            INSERT_REPOSITORY,
            repair_checksums,
        ),
        "observations",
        "swr/team/forged was last polled at",
    ),
}


def test_the_unaltered_record_verifies(original: Path) -> None:
    """The record has no fault; the heads that the details show are those of a witness."""
    with Audit.open(original) as audit:
        rows = {row["check"]: row for row in audit.verify([GENESIS])}
        heads = audit.heads()
    assert {row["result"] for row in rows.values()} == {"ok"}
    assert rows["chain"]["detail"] == f"head {heads.changes.hash}"
    assert rows["observations"]["detail"] == f"head {heads.observations.hash}"
    counts = [rows[name]["rows"] for name in ("observations", "repositories", "heads")]
    assert counts == [8, 2, 1]


@pytest.mark.parametrize("name", ALTERATIONS)
def test_alteration_is_found(original: Path, database: Path, name: str) -> None:
    """Each alteration of observations and repositories is found and named."""
    edits, check, named = ALTERATIONS[name]
    assert named in (faults_of(altered_copy(original, database, *edits))[check] or "")


@pytest.mark.parametrize("ended", [1, 2, 6])
@pytest.mark.parametrize("column", [*OBSERVATION_COLUMNS, "ended", "change_id", "hash"])
def test_each_column_of_an_ended_observation_is_covered(
    original: Path, database: Path, column: str, ended: int
) -> None:
    """Another value in any column of an ended observation is a fault."""
    value = OTHER_VALUES.get(column, "'x'")
    edit = f"UPDATE observations SET {column} = {value} WHERE ended = {ended}"
    assert "observations" in faults_of(altered_copy(original, database, edit))


@pytest.mark.parametrize("column", [*REPOSITORY_COLUMNS, "hash"])
def test_each_column_of_a_repository_is_covered(
    original: Path, database: Path, column: str
) -> None:
    """Another value in any column of a repository's row is a fault."""
    value = OTHER_VALUES.get(column, "'x'")
    edit = f"UPDATE repositories SET {column} = {value} WHERE id = 2"
    fault = faults_of(altered_copy(original, database, edit))["repositories"]
    assert "does not have the hash that its columns give" in (fault or "")


def test_a_head_shows_what_was_cut_off(original: Path, database: Path) -> None:
    """A record without its newest observations is consistent, and lacks the head of a witness."""

    def forget_the_second_day(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM observations WHERE ended IS NULL AND repository_id = 2")
        connection.execute(f"UPDATE observations SET {WITHOUT_END} WHERE ended = 6")
        connection.execute(
            "UPDATE repositories SET (last_attempt_at, last_complete_at, not_before, version) ="
            " (SELECT max(last_at), max(last_at), max(last_at), sum(polls) FROM observations"
            "  WHERE repository_id = 2) WHERE id = 2"
        )
        repair_checksums(connection)

    with Audit.open(original) as audit:
        heads = audit.heads()
    shortened = altered_copy(original, database, forget_the_second_day)
    assert faults_of(shortened) == {}
    assert faults_of(shortened, heads.changes.hash) == {}
    (fault,) = faults_of(shortened, heads.changes.hash, heads.observations.hash).values()
    assert f"no change and no observation has the hash {heads.observations.hash}" in (fault or "")
    with Audit.open(shortened) as audit:
        assert faults_of(original, audit.heads().observations.hash) == {}


def test_all_heads_are_looked_for_at_once(original: Path) -> None:
    """Heads of both chains may be mixed; the first one that is missing is named."""
    with closing(sqlite3.connect(original)) as connection:
        rows = connection.execute(
            "SELECT hash FROM changes UNION SELECT hash FROM observations WHERE ended IS NOT NULL"
        ).fetchall()
    heads = [head for (head,) in rows]
    assert faults_of(original, GENESIS, *heads, *heads) == {}
    (fault,) = faults_of(original, *heads, "f" * 64, "e" * 64).values()
    assert f"has the hash {'e' * 64}" in (fault or "")


def test_status_tells_why_a_damaged_row_is_not_polled(original: Path, tmp_path: Path) -> None:
    """The row keeps its own values, so `status` has the failure from the observation."""
    damage = "UPDATE repositories SET listing_hash = 'forged' WHERE id = 2"
    damaged = altered_copy(original, tmp_path / "tagsync.db", damage)
    clock, repository = FakeClock(), Repository("swr", "team/empty")
    clock.advance(days=2)
    scripted = Scripted(clock)
    with Store.open(damaged) as store:
        for _ in range(2):
            scripted.then()
            poll(Job(repository, scripted, INTERVAL), store, clock=clock)
    with Audit.open(damaged) as audit:
        (row,) = audit.status({repository: None}, clock.now)
    assert (row["outcome"], row["failures"]) == ("failed", 2)
    assert row["last_error"] == "repository swr/team/empty: its hash is not that of its columns"


def test_a_poll_that_failed_as_damaged_is_no_further_fault(
    original: Path, database: Path, tmp_path: Path
) -> None:
    """The wrong row stays the only fault after polls of it have failed, until it is repaired."""
    damage = "UPDATE repositories SET listing_hash = 'forged' WHERE id = 2"
    damaged = altered_copy(original, database, damage)
    clock = FakeClock()
    clock.advance(days=2)
    scripted = Scripted(clock)
    scripted.then()
    with Store.open(damaged) as store:
        job = Job(Repository("swr", "team/empty"), scripted, INTERVAL)
        assert poll(job, store, clock=clock).reasons == ("damaged",)
        assert store.heads().observations.ended == 7
    assert faults_of(damaged).keys() == {"repositories"}
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    repair = "UPDATE repositories SET listing_hash = NULL WHERE id = 2"
    assert faults_of(altered_copy(damaged, tmp_path / "repaired.db", repair)) == {}
