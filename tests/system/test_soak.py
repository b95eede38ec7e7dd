"""Ten thousand polls: an hour of a busy daemon, or weeks of a quiet one."""

import json
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.database.connection import WAL_SIZE
from tagsync.emulator import Emulator
from tests.support.processes import Process, configure, free_port, registry

BROKEN = """
SELECT count(*) FROM (
    SELECT first_at, outcome, lag(last_at) OVER each AS before, lag(outcome) OVER each AS earlier
    FROM observations WINDOW each AS (PARTITION BY repository_id ORDER BY id)
)
WHERE outcome = earlier AND substr(first_at, 1, 10) = substr(before, 1, 10)
  AND round((julianday(first_at) - julianday(before)) * 86400000) <= 2 * 250
"""
"""Observations that repeat the one before them, on the same day and within two intervals."""

POLLS = 10_000
REPOSITORIES = 50
TAGS = 20


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def sizes(database: Path) -> dict[str, int]:
    """The size of the database, the part in the WAL included, and of the WAL file."""
    with closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
    wal = database.with_name(f"{database.name}-wal")
    return {"database": size, "wal": wal.stat().st_size}


@pytest.mark.soak
def test_ten_thousand_polls_leave_no_more_than_a_thousand(
    tmp_path: Path,
    run: Callable[..., Process],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memory stays flat, and equal polls do not make the database grow."""
    port = free_port()
    database = tmp_path / "tagsync.db"
    names = [f"team/r{number}" for number in range(REPOSITORIES)]
    with Emulator() as swr:
        for name in names:
            for number in range(TAGS):
                swr.push(name, f"v{number}", f"build {number}")
        more = f'[metrics]\nlisten = ":{port}"\n'
        one = registry("swr", swr.url, *names).replace(
            "retry_for", "requests_per_second = 1000\nretry_for"
        )
        configure(tmp_path, one, interval="250ms", more=more)
        process = run()
        figures = []
        for polls in range(1000, POLLS + 1, 1000):
            for _ in range(1000):
                process.await_event("sync.finished")
            memory = metrics(port)["process_resident_memory_bytes"]
            figures.append({"polls": polls, "memory": memory, **sizes(database)})
            swr.push(names[polls // 1000], "v0", f"after {polls}")
            # The emulator's list of requests would be most of this process's memory.
            swr.requests.clear()
        assert process.stop() == 0
    with closing(sqlite3.connect(database)) as connection:
        ((broken,),) = connection.execute(BROKEN)
        rows, polled, changes = connection.execute(
            "SELECT (SELECT count(*) FROM observations), (SELECT sum(polls) FROM observations),"
            " (SELECT count(*) FROM changes WHERE not_before IS NOT NULL)"
        ).fetchone()
    figures.append({"observations": rows, "polls": polled, "changes": changes})
    with capsys.disabled():
        print("\n".join(map(json.dumps, ["", *figures])))  # noqa: T201  the figures are the point
    settled, last = figures[1], figures[-2]
    assert polled >= POLLS
    assert last["memory"] < settled["memory"] * 1.1
    assert last["database"] < settled["database"] * 1.5 + 1000 * rows
    assert last["wal"] < WAL_SIZE * 1.1
    assert changes <= 10
    # If the machine is busy for more than two intervals, a gap is recorded, which is right.
    assert broken == 0


@pytest.mark.soak
def test_memory_does_not_grow_with_the_number_of_repositories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the caches are full, four times as many repositories take hardly more memory."""
    peaks = {}
    with Emulator() as swr:
        for number in range(400):
            for tag in range(100):
                swr.push(f"team/r{number}", f"v{tag}", f"build {number} {tag}")
        for count in (100, 400):
            folder = tmp_path / str(count)
            folder.mkdir()
            names = [f"team/r{number}" for number in range(count)]
            rate = "requests_per_second = 1000\nretry_for"
            configure(folder, registry("swr", swr.url, *names).replace("retry_for", rate))
            peaks[count] = peak_memory(folder)
    with capsys.disabled():
        print(f"\n{json.dumps({'repositories': peaks})}")  # noqa: T201  the figures are the point
    assert peaks[400] < peaks[100] * 1.15


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "tagsync", "sync"], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def peak_memory(folder: Path) -> int:
    """Return the peak memory of a first pass in bytes, as the kernel measures it.

    A small process is started in between, because a child of this large one would count this one's
    memory as its own until it calls exec (see getrusage(2)).
    """
    command = [sys.executable, "-c", PEAK]
    finished = subprocess.run(
        command, cwd=folder, capture_output=True, check=True, text=True, timeout=120
    )
    return int(finished.stdout)
