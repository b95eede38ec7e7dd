"""The process that verifies the database: its outcome, its bounds, and its end."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from tagsync.daemon.verify_child import DETAIL_LIMIT, check_rows
from tagsync.daemon.verify_runner import Outcome, VerifyProcess
from tagsync.database.store import Store
from tagsync.errors import UnusableDatabase
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import CHECKS, altered_copy
from tests.support.clock import FakeClock
from tests.support.registries import Scripted

WITHIN = 10.0
TIMEOUT = 60.0

ROW = '{"check": "chain", "rows": 1, "result": "%s", "detail": %s}'
FAULT = ROW % ("fault", '"change 1 is wrong"')
FINE = ROW % ("ok", "null")


def shell(script: str, database: Path) -> VerifyProcess:
    """A runner whose process is a shell; ``$1`` is the database."""
    return VerifyProcess(database, ("/bin/sh", "-c", script, "sh"))


@pytest.fixture
def recorded(
    database: Path, store: Store, job: Job, scripted: Scripted, clock: FakeClock
) -> tuple[Path, str]:
    """A database that is open elsewhere, with one change, and its head."""
    scripted.then("a")
    poll(job, store, clock=clock)
    return database, store.heads().changes.hash


# --- the checks -----------------------------------------------------------------------------------


def test_the_process_runs_all_checks(recorded: tuple[Path, str]) -> None:
    """The rows are those of `tagsync verify`, while the daemon has the database open."""
    database, head = recorded
    rows = list(check_rows(database, [head]))
    assert [row["check"] for row in rows] == list(CHECKS)
    assert {row["result"] for row in rows} == {"ok"}
    assert rows[-1]["rows"] == 1
    (wrong,) = (row for row in check_rows(database, ["0" * 63 + "1"]) if row["result"] == "fault")
    assert wrong["check"] == "heads"


def test_the_detail_of_a_fault_is_bounded(recorded: tuple[Path, str], tmp_path: Path) -> None:
    """A fault that quotes a long name from the database is cut."""
    database, _ = recorded
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    name = f"UPDATE changes SET tag = '{'x' * 10_000}'"
    altered = altered_copy(database, tmp_path / "altered.db", name)
    details = [row["detail"] for row in check_rows(altered, []) if row["result"] == "fault"]
    assert max(map(len, details)) == DETAIL_LIMIT


def test_a_missing_database_is_an_error(tmp_path: Path) -> None:
    """The process does not create a database that is missing."""
    with pytest.raises(UnusableDatabase):
        list(check_rows(tmp_path / "missing.db", []))
    assert list(tmp_path.iterdir()) == []


# --- the process ----------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_real_process_finds_faults_and_missing_heads(recorded: tuple[Path, str]) -> None:
    """A verification in a process ends without a fault, or names the check that found one."""
    database, head = recorded
    runner = VerifyProcess(database)
    assert runner.run({head}, TIMEOUT) == Outcome("ok", None)
    missing = runner.run({head, "f" * 64}, TIMEOUT)
    assert missing is not None
    assert missing.result == "fault"
    assert "heads: no change and no observation has the hash fff" in (missing.detail or "")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TRIGGER changes_are_never_deleted")
    altered = runner.run(set(), TIMEOUT)
    assert altered is not None
    assert "schema: the trigger changes_are_never_deleted is missing" in (altered.detail or "")


@pytest.mark.processes
def test_a_database_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    """If the database cannot be read, the verification fails, and finds no fault."""
    outcome = VerifyProcess(tmp_path / "missing.db").run(set(), TIMEOUT)
    assert outcome is not None
    assert outcome.result == "failed"
    assert "did not finish: " in (outcome.detail or "")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (f"echo '{FINE}'", Outcome("ok", None)),
        (f"echo '{FAULT}'; echo '{FINE}'", Outcome("fault", "chain: change 1 is wrong")),
        (f"echo '{FAULT}'; exit 1", Outcome("fault", "chain: change 1 is wrong")),
        (
            f"echo '{FINE}'; echo the disk is gone; exit 1",
            Outcome("failed", "the verification did not finish: the disk is gone"),
        ),
        (
            "kill -9 $$",
            Outcome("failed", "the verification did not finish: its process ended with -9"),
        ),
        ("true", Outcome("failed", "the verification did not finish: its output is incomplete")),
        (
            f"echo '{FINE}'; echo hello",
            Outcome("failed", "the verification did not finish: its output is incomplete"),
        ),
        (
            "exec yes",
            Outcome("failed", "the verification did not finish: y"),
        ),
        ("kill $$", None),
        ("kill -INT $$", None),
    ],
)
def test_each_end_of_a_process_has_an_outcome(
    script: str, outcome: Outcome | None, database: Path
) -> None:
    """Faults count however the process ends; it has to finish for a result without one."""
    assert shell(script, database).run(set(), TIMEOUT) == outcome


@pytest.mark.processes
def test_a_process_that_cannot_start_is_a_failure(database: Path, tmp_path: Path) -> None:
    """A missing program is an outcome, and raises no error."""
    outcome = VerifyProcess(database, (str(tmp_path / "missing"),)).run(set(), TIMEOUT)
    assert outcome is not None
    assert outcome.result == "failed"


@pytest.mark.processes
def test_a_process_that_hangs_is_ended(database: Path) -> None:
    """After the timeout the verification has failed, and its process has ended."""
    began = time.monotonic()
    outcome = shell("exec sleep 60", database).run(set(), 0.2)
    assert time.monotonic() - began < WITHIN
    assert outcome is not None
    assert "took longer than 0 s" in (outcome.detail or "")


@pytest.mark.processes
def test_the_process_gets_no_secrets(database: Path, tmp_path: Path) -> None:
    """Of the daemon's variables the process gets only those that Python and SQLite need."""
    script = f"env > {tmp_path}/env; echo '{FINE}'"
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp", "SWR_SECRET_KEY": "secret"}
    runner = VerifyProcess(database, ("/bin/sh", "-c", script, "sh"), environment)
    assert runner.run(set(), TIMEOUT) == Outcome("ok", None)
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "TMPDIR"}


@pytest.mark.processes
def test_a_stop_ends_the_process_at_once(database: Path, tmp_path: Path) -> None:
    """A verification that is stopped has no outcome, and no other one begins."""
    os.mkfifo(tmp_path / "begun")
    runner = shell(f"echo begun > {tmp_path}/begun; exec sleep 60", database)
    outcomes: list[Outcome | None] = []
    thread = Thread(target=lambda: outcomes.append(runner.run(set(), TIMEOUT)))
    thread.start()
    assert (tmp_path / "begun").read_text() == "begun\n"
    runner.stop()
    thread.join(WITHIN)
    assert outcomes == [None]
    assert runner.run(set(), TIMEOUT) is None


@pytest.mark.processes
def test_the_process_has_the_lowest_priority_and_ends_with_the_daemon() -> None:
    """The process lowers its priority, and ends when its parent is killed."""
    child = (
        "import os, sys, time\n"
        "from tagsync.daemon.verify_child import end_with, lower_priority\n"
        "lower_priority()\n"
        "end_with(sys.stdin.fileno())\n"
        "is_idle = os.sched_getscheduler(0) == os.SCHED_IDLE\n"
        "print('[%d, %d]' % (os.nice(0), is_idle), flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline()) == [19, 1]
        process.kill()
        began = time.monotonic()
        # The pipe has an end only when the child has ended, too.
        assert process.stdout.read() == b""
    assert time.monotonic() - began < WITHIN
