"""Build distributions of tagsync, and install them into environments of their own, offline."""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

TIMEOUT: Final = 600
"""Seconds for one build or one installation."""


def build(source: Path, folder: Path, target: str) -> Path:
    """Build a distribution from a source tree, without a network.

    Args:
        source: The source tree.
        folder: Where to put the distribution.
        target: ``wheel`` or ``sdist``.
    """
    _run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], source)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist into a folder, and return the path of the source tree."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


class Environment:
    """A virtual environment with an installed tagsync and the libraries of these tests.

    Attributes:
        python: The path of its interpreter.
    """

    def __init__(self, folder: Path) -> None:
        """Create the environment. It reads the libraries where they are, and downloads nothing."""
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
        self.python: Final = folder / "bin/python"
        (packages,) = folder.glob("lib/python*/site-packages")
        libraries = [path for path in sys.path if Path(path).name.endswith("-packages")]
        (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))

    def install(self, wheel: Path) -> None:
        """Install a wheel of tagsync in the place of the one that was there."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        options = ["--no-deps", "--no-index", "--force-reinstall", "--quiet"]
        _run([*pip, "install", *options, str(wheel)], wheel.parent)

    def command(self, *arguments: object) -> list[str]:
        """Return the argument list that runs tagsync in this environment."""
        return [str(self.python), "-m", "tagsync", *map(str, arguments)]


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=TIMEOUT)
