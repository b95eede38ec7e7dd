"""A power cut leaves each file as it was at its last fsync, and no more."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.verify import verify
from tagsync.database.connection import reading
from tagsync.emulator import Emulator
from tests.support.processes import configure, registry
from tests.torture.power import Disk
from tests.torture.processes import PATIENCE, End, Process, environment

SCRIPT = """
import os

def write(name, content):
    with open(name, "wb") as file:
        file.write(content)

def sync(name):
    descriptor = os.open(name, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

"""

KEEP = "write('data', b'1'); sync('data'); sync('.')"

pytestmark = pytest.mark.torture


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path, "data*")


def run(disk: Disk, folder: Path, script: str) -> None:
    environment = {**os.environ, **disk.environment}
    subprocess.run([sys.executable, "-c", SCRIPT + script], cwd=folder, env=environment, check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("data*")}


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("write('data', b'1')", {}),
        ("write('data', b'1'); sync('data')", {}),
        ("write('data', b'1'); sync('.')", {"data": b""}),
        (KEEP, {"data": b"1"}),
        (f"{KEEP}; write('data', b'2')", {"data": b"1"}),
        (f"{KEEP}; os.remove('data')", {"data": b"1"}),
        (f"{KEEP}; os.remove('data'); sync('.')", {}),
        (f"{KEEP}; os.remove('data'); write('data', b'2'); sync('data')", {"data": b"1"}),
    ],
)
def test_only_what_was_synced_survives(
    script: str, left: dict[str, bytes], disk: Disk, tmp_path: Path
) -> None:
    """A file survives with what was synced, if its folder was synced after it was created."""
    run(disk, tmp_path, script)
    disk.cut_power()
    assert contents(tmp_path) == left
    disk.cut_power()
    assert contents(tmp_path) == left


def test_other_files_are_left_alone(disk: Disk, tmp_path: Path) -> None:
    """Files with other names, such as logs, lose nothing."""
    run(disk, tmp_path, "write('log', b'1')")
    disk.cut_power()
    assert (tmp_path / "log").read_bytes() == b"1"


def test_what_survived_a_cut_survives_the_next(disk: Disk, tmp_path: Path) -> None:
    """After a power cut, the files are as durable as before, and later syncs replace them."""
    run(disk, tmp_path, f"{KEEP}; write('data', b'2')")
    disk.cut_power()
    run(disk, tmp_path, "write('data', b'3')")
    disk.cut_power()
    assert contents(tmp_path) == {"data": b"1"}
    run(disk, tmp_path, "write('data', b'4'); sync('data'); write('data', b'5')")
    disk.cut_power()
    assert contents(tmp_path) == {"data": b"4"}


def test_logged_head_survives_a_power_cut(tmp_path: Path) -> None:
    """A power cut undoes no head that a pass has logged, while a daemon has the database open."""
    disk = Disk(tmp_path, "tagsync.db*")
    with Emulator() as swr:
        swr.push("team/api", "v1")
        configure(tmp_path, registry("swr", swr.url, "team/api"), interval="1h")
        with running("run", disk, tmp_path) as daemon:
            await_event(daemon, "repository.baselined")
            swr.push("team/api", "v2")
            with running("sync", disk, tmp_path) as sync:
                event = await_event(sync, "pass.finished")
    assert event["change_id"] == 2
    disk.cut_power()
    with reading(tmp_path / "tagsync.db") as db:
        rows = list(verify(db, [event["head"], event["observations_head"]]))
    assert [row for row in rows if row["result"] == "fault"] == []


@contextmanager
def running(command: str, disk: Disk, folder: Path) -> Iterator[Process]:
    """Run tagsync in this block, and kill it at its end."""
    variables = environment() | disk.environment
    log = folder / f"{command}.log"
    process = Process(command, folder / "config.toml", log, variables, End("spared", 0.0, 0))
    try:
        yield process
    finally:
        process.kill()


def await_event(process: Process, name: str) -> dict[str, Any]:
    """Wait until a process has logged an event, and return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for line in process.log.read_text().split("\n")[:-1]:
            if json.loads(line)["event"] == name:
                return dict(json.loads(line))
        time.sleep(0.002)
    raise AssertionError(f"{name} was not logged: {process.log.read_text()}")
