"""A power cut leaves each file as it was at its last fsync, and no more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.power import Disk

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
