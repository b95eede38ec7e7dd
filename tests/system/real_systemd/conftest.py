"""The machine of the tests, with a registry and an installed tagsync."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT
from tests.system.real_systemd.machine import Machine, wait_until
from tests.system.real_systemd.service import CONFIG, Registry, blocks

_SECONDS: Final = 3600
"""Time after which the machine is killed."""

_TREE: Final = Path(os.environ.get("TAGSYNC_TEST_TREE", "/"))
"""The file system of the machine: the host's, or that of another release of Debian."""

_SHIPPED: Final = ("pyproject.toml", "README.md", "LICENSE", "config.example.toml")

ANSWERS: Final = {
    "install -m 600 /dev/stdin /etc/tagsync/swr-access-key": "AKEXAMPLE",
    "install -m 600 /dev/stdin /etc/tagsync/swr-secret-key": "SKEXAMPLE",
}
"""What a person types when the documented commands read from the terminal."""


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the source tree, the packages that pip needs, and a registry."""
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can boot a systemd")
    shared = tmp_path_factory.mktemp("machine")
    copy_source(shared / "source")
    machine = Machine(_TREE, shared, _SECONDS)
    try:
        _download_packages(machine)
        start_registry(machine)
        yield machine
    finally:
        machine.close()


def copy_source(target: Path) -> None:
    """Copy what is needed to install tagsync, and the configuration of the tests."""
    for folder in ("tagsync", "systemd"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
    for name in _SHIPPED:
        shutil.copy(ROOT / name, target)
    (target / "config.toml").write_text(CONFIG)


def _download_packages(machine: Machine) -> None:
    """Download the packages for the machine's Python, because it has no network."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = machine.run(f'python3 -c "{asked}"').stdout.strip()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *("--python-version", python, "--dest", str(machine.shared / "wheels"), *needed),
        ],
        check=True,
        timeout=300,
    )


def start_registry(machine: Machine) -> None:
    """Start an emulated registry in the machine, with 15 repositories."""
    os.mkfifo(machine.shared / "registry.fifo")
    shutil.copy(Path(__file__).with_name("registry.py"), machine.shared)
    machine.run("""
        python3 -m venv /opt/registry
        /opt/registry/bin/pip install -q /srv/check/source
        systemd-run -q --unit=registry /opt/registry/bin/python /srv/check/registry.py \
            /srv/check/registry.fifo
    """)
    order = Registry(machine)
    for number in range(60):
        order(f"push team-{number % 3}/repo-{number % 5} v{number} build-{number}")


@pytest.fixture(scope="package")
def registry(machine: Machine) -> Registry:
    return Registry(machine)


@pytest.fixture(scope="package")
def installed(machine: Machine) -> tuple[int, str]:
    """The exit status and the terminal of the documented installation, which was pasted."""
    (block,) = blocks("Install under systemd")
    outcome = machine.paste(block, ANSWERS)
    machine.run("""
        useradd alice && useradd bob && usermod --append --groups tagsync alice
        mkdir -p /etc/systemd/system/tagsync.service.d
        printf '[Service]\\nRestartSec=100ms\\n' >/etc/systemd/system/tagsync.service.d/test.conf
        systemctl daemon-reload
    """)
    return outcome


@pytest.fixture
def service(
    machine: Machine,
    installed: tuple[int, str],  # noqa: ARG001  only installed
) -> Iterator[Callable[[str], str]]:
    """Return a property of the service's unit. The service runs, and all is well."""
    machine.run("""
        cp /srv/check/source/config.toml /etc/tagsync/config.toml
        systemctl reset-failed
        systemctl restart tagsync
    """)

    def show(name: str) -> str:
        return machine.run(f"systemctl show --value -p {name} tagsync").stdout.strip()

    wait_until(lambda: show("StatusText").endswith("all is well."), 60)
    yield show
    machine.attempt("systemctl stop tagsync")
