"""The wheel and the sdist: they contain every file that the installed tagsync needs."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.processes

SHIPPED = {path.name: path.read_bytes() for path in (ROOT / "systemd").iterdir()}
SHIPPED["config.example.toml"] = (ROOT / "config.example.toml").read_bytes()


def build(source: Path, folder: Path, target: str) -> Path:
    """Build a wheel or an sdist from a source tree, without a network."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        capture_output=True,
        check=True,
        timeout=60,
    )
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def assert_init_works(wheel: Path, folder: Path) -> None:
    """Unpack a wheel elsewhere, and let its tagsync write the shipped files.

    The stylesheet of the drawings must be in it, too.
    """
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "unpacked")  # noqa: S202  a wheel of ours
    assert (folder / "unpacked/tagsync/drawing/drawing.css").is_file()
    program = "import tagsync, tagsync.cli; print(tagsync.__file__, flush=True); tagsync.cli.main()"
    finished = subprocess.run(
        [sys.executable, "-P", "-c", program, "init", "--files", "written"],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "unpacked")},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert finished.stdout.startswith(str(folder / "unpacked"))
    written = {path.name: path.read_bytes() for path in (folder / "written").iterdir()}
    assert written == SHIPPED


def test_the_wheel_contains_the_shipped_files(tmp_path: Path) -> None:
    """An installed tagsync writes the units and the example without a source tree."""
    assert_init_works(build(ROOT, tmp_path, "wheel"), tmp_path)


def test_a_wheel_can_be_built_from_the_sdist(tmp_path: Path) -> None:
    """The sdist contains the shipped files at the top level, and its wheel is as complete."""
    with tarfile.open(build(ROOT, tmp_path, "sdist")) as packed:
        packed.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("tagsync-*/")
    assert (source / "config.example.toml").read_bytes() == SHIPPED["config.example.toml"]
    assert {path.name for path in (source / "systemd").iterdir()} < SHIPPED.keys()
    assert_init_works(build(source, tmp_path, "wheel"), tmp_path)
