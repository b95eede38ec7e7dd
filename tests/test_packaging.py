"""The wheel and the sdist: they contain every file that the installed tagsync needs."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import environment
from tests.support.installed import Environment, build, unpack
from tests.support.paths import ROOT

pytestmark = pytest.mark.processes

SHIPPED = {path.name: path.read_bytes() for path in (ROOT / "systemd").iterdir()}
SHIPPED["config.example.toml"] = (ROOT / "config.example.toml").read_bytes()


def assert_init_works(wheel: Path, folder: Path) -> None:
    """Unpack a wheel elsewhere, and let its tagsync write the shipped files.

    The stylesheet of the drawings must be in it, too.
    """
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "unpacked")
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
    source = unpack(build(ROOT, tmp_path, "sdist"), tmp_path)
    assert (source / "config.example.toml").read_bytes() == SHIPPED["config.example.toml"]
    assert {path.name for path in (source / "systemd").iterdir()} < SHIPPED.keys()
    assert_init_works(build(source, tmp_path, "wheel"), tmp_path)


READING = (
    *(
        "docs",
        "screens",
        "cli/test_init.py",
        "config/test_effective.py",
        "registries/swr/test_signing.py",
    ),
)
"""The suites that read files beside the code: pages, pictures, the example, units, vectors."""


def test_the_sdist_passes_its_own_tests(tmp_path: Path) -> None:
    """In the unpacked sdist all tests are found, and those that read files pass."""
    source = unpack(build(ROOT, tmp_path / "dist", "sdist"), tmp_path)
    installed = Environment(tmp_path / "environment")
    installed.install(build(source, tmp_path / "dist", "wheel"))
    pytest_command = [str(installed.python), "-m", "pytest", "-p", "no:cacheprovider"]

    def run(*arguments: str) -> str:
        finished = subprocess.run(
            [*pytest_command, *arguments],
            cwd=source,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert finished.returncode == 0, finished.stdout
        return finished.stdout

    assert "test_packaging.py: " in run("--collect-only", "-q", "-m", "")
    assert " skipped" not in run(*(f"tests/{name}" for name in READING))


def test_the_classifiers_begin_with_the_oldest_python(tmp_path: Path) -> None:
    """The oldest Python that is named as tested is the oldest that tagsync can be installed on."""
    with zipfile.ZipFile(build(ROOT, tmp_path, "wheel")) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        described = packed.read(name).decode()
    named = re.findall(r"^Classifier: .*Python :: 3\.(\d+)$", described, re.MULTILINE)
    assert f"\nRequires-Python: >=3.{min(map(int, named))}\n" in described
    assert "\nLicense-Expression: Apache-2.0\nLicense-File: LICENSE\n" in described
