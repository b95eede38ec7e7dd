"""Registries written in Go, built from their modules: ``python -m tests.support.go_programs``."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp
from typing import Final, NamedTuple

import pytest

_BUILD_TIMEOUT: Final = 900
"""Seconds for one build, which may have to download all modules."""

_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()

_INSTALLED: Final = "/usr/local/go/bin"
"""The folder of the official archive, which nothing adds to the PATH."""


class GoProgram(NamedTuple):
    """A program of a Go module, at one version.

    Attributes:
        package: The package of its ``main``.
        version: The version of its module.
    """

    package: str
    version: str

    @property
    def path(self) -> Path:
        """The path of the program once it is built."""
        name = self.package.rpartition("/")[2]
        return _CACHE / "tagsync-tests" / f"{name}-{self.version}" / name

    def build(self) -> None:
        """Build the program unless it is there.

        Raises:
            subprocess.CalledProcessError: If Go cannot build it. Its output is on standard error.
        """
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and renamed, so that a build that is interrupted leaves no program.
        aside = Path(mkdtemp(dir=self.path.parent))
        try:
            subprocess.run(
                [_go() or "go", "install", f"{self.package}@{self.version}"],
                cwd=aside,
                env={**os.environ, "GOBIN": str(aside), "GOFLAGS": "-mod=mod"},
                stdin=subprocess.DEVNULL,
                check=True,
                timeout=_BUILD_TIMEOUT,
            )
            (aside / self.path.name).rename(self.path)
        finally:
            rmtree(aside)


DISTRIBUTION: Final = GoProgram("github.com/distribution/distribution/v3/cmd/registry", "v3.1.2")
CRANE: Final = GoProgram("github.com/google/go-containerregistry/cmd/crane", "v0.22.1")


def built(program: GoProgram) -> Path:
    """Return the path of a program; skip the test if Go is missing, but not in CI."""
    if not program.path.exists() and not _go() and os.environ.get("CI") != "true":
        pytest.skip(f"needs Go to build {program.package}")
    program.build()
    return program.path


def _go() -> str | None:
    """Return the path of Go."""
    return which("go", path=os.pathsep.join((os.environ.get("PATH", ""), _INSTALLED)))


if __name__ == "__main__":
    for each in (DISTRIBUTION, CRANE):
        each.build()
        sys.stdout.write(f"{each.path}\n")
