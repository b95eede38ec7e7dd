"""The container image: built, pushed, pulled, and run as its configuration says."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Final

import pytest

from tagsync.emulator import Emulator
from tagsync.emulator.signatures import Keys
from tests.support.containers import Builder, Image, let_in, require_builder
from tests.support.docker_registry import DockerRegistry, running
from tests.support.documents import fenced_blocks, section
from tests.support.paths import ROOT
from tests.support.processes import free_port
from tests.support.skopeo import skopeo_tags

pytestmark = pytest.mark.container

VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry to which the image was pushed, built by the documented commands."""
    require_builder()
    builder = Builder(tmp_path_factory.mktemp("builder"))
    builder.make_base("localhost/base")
    (build, *_) = fenced_blocks(section("docs/container.md", "Build the image"), "sh")
    builder.build(build, base="localhost/base")
    with running(tmp_path_factory.mktemp("registry")) as started:
        builder.push(f"localhost/tagsync:{VERSION}", f"{started.host}/team/tagsync:{VERSION}")
        yield started


@pytest.fixture(scope="module")
def image(registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image as it was pulled again."""
    return Image(f"{registry.host}/team/tagsync:{VERSION}", tmp_path_factory.mktemp("image"))


@pytest.fixture
def folder(tmp_path: Path, registry: DockerRegistry) -> Path:
    """A folder with a volume and a configuration that mirrors the registry of the image."""
    for name in ("data", "config"):
        (tmp_path / name).mkdir()
    let_in(tmp_path)
    (tmp_path / "config" / "config.toml").write_text(
        f'[schedule]\ninterval = "200ms"\n[metrics]\nlisten = "0.0.0.0:{free_port()}"\n'
        f'[[registries]]\nname = "local"\nkind = "oci"\nendpoint = "{registry.url}"\n'
        '[[registries.watch]]\nrepositories = ["team/tagsync"]\n'
    )
    return tmp_path


def test_the_image_says_how_it_runs(image: Image) -> None:
    """The image runs tagsync itself, as a user that is not root, and has labels without URLs."""
    settings = image.settings
    assert (settings["Entrypoint"], settings["Cmd"]) == (["tagsync"], ["run"])
    assert settings["User"] == "65532:65532"
    assert settings["StopSignal"] == "SIGINT"
    assert settings["Healthcheck"]["Test"] == ["CMD", "tagsync", "healthcheck"]
    assert list(settings["Volumes"]) == ["/data"]
    labels = {name: settings["Labels"][name] for name in settings["Labels"] if "open" in name}
    assert labels["org.opencontainers.image.version"] == VERSION
    assert "://" not in json.dumps(labels)
    assert not [name for name in settings["Env"] if name.startswith("PIP_")]


def test_the_image_contains_neither_pip_nor_sources(image: Image) -> None:
    """The virtual environment has tagsync and its dependencies, and the root has no sources."""
    packages = next((image.root / "opt/tagsync/lib").glob("python3*/site-packages"))
    assert list(packages.glob("tagsync-*.dist-info"))
    assert not list(packages.glob("pip*"))
    assert not (image.root / "source").exists()


def test_the_container_mirrors_its_own_image(
    image: Image, registry: DockerRegistry, folder: Path
) -> None:
    """The daemon works on a read-only root, answers probes, reloads, and stops with status 0."""
    config = (folder / "config" / "config.toml").read_text()
    port = re.findall(r"0\.0\.0\.0:(\d+)", config)[0]
    with image.running(folder) as container:
        container.await_log('"event": "repository.baselined"')
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"ok\n")
        (folder / "config" / "config.toml").write_text(config.replace("200ms", "300ms"))
        container.signal(signal.SIGHUP)
        container.await_log('"event": "config.reloaded"')
        container.signal(signal.SIGTERM)
        assert container.status(60) == 0
    with closing(sqlite3.connect(folder / "data" / "tagsync.db")) as database:
        rows = database.execute("SELECT tag, digest FROM current_tags").fetchall()
    assert dict(rows) == skopeo_tags(registry, "team/tagsync")
    assert {path.name.split("-")[0] for path in (folder / "data").iterdir()} == {
        *("tagsync.db", "tagsync.db.writer", "tagsync.db.daemon")
    }


def test_the_health_check_of_the_image_asks_the_daemon(image: Image, folder: Path) -> None:
    """The command of the health check succeeds beside the daemon, and fails without one."""
    _, *check = image.settings["Healthcheck"]["Test"]
    with image.running(folder) as container:
        container.await_log('"event": "daemon.started"')
        with image.running(folder, check[1:], entrypoint=check[:1]) as healthy:
            assert healthy.status(60) == 0, healthy.log()
        container.signal(signal.SIGINT)
        assert container.status(60) == 0
    with image.running(folder, check[1:], entrypoint=check[:1]) as unhealthy:
        assert unhealthy.status(60) == 1


def test_the_documented_configuration_and_secrets_work(image: Image, tmp_path: Path) -> None:
    """The container reads the sample and the keys as the documented commands have written them."""
    copytree(ROOT / "deploy", tmp_path / "deploy")
    (block, _) = fenced_blocks(section("docs/container.md", "Run it"), "sh")
    terminal, line = os.openpty()
    os.write(terminal, b"ACCESSKEY\n\x04made-up-secret\n\x04")
    subprocess.run(["bash", "-c", block], cwd=tmp_path, stdin=line, check=True, timeout=60)
    os.close(terminal)
    os.close(line)
    folder = tmp_path / "deploy"
    (folder / "data").mkdir()
    let_in(folder)
    with Emulator(keys={"ACCESSKEY": Keys("made-up-secret")}) as swr:
        swr.push("team-a/api", "v1", "one")
        config = (folder / "config" / "config.toml").read_text()
        config = re.sub(r'endpoint = ".*"', f'endpoint = "{swr.url}"', config)
        (folder / "config" / "config.toml").write_text(config)
        with image.running(folder, ["sync"]) as container:
            assert container.status(60) == 0, container.log()
    assert "swr/team-a/api" in container.log()


def test_the_container_ends_with_the_status_of_tagsync(image: Image, folder: Path) -> None:
    """The exit status of a command is that of the container: 0 if done, 2 if misconfigured."""
    with image.running(folder, ["sync"]) as container:
        assert container.status(60) == 0, container.log()
    (folder / "config" / "config.toml").write_text("nonsense = 1\n")
    with image.running(folder) as container:
        assert container.status(60) == 2
    assert "nonsense" in container.log()


def test_the_container_has_no_rights(image: Image, folder: Path) -> None:
    """PID 1 is not root, can write nothing but the volume, and has no capability."""
    script = (
        "import os, pathlib\n"
        "print(os.getpid(), os.getuid(), os.access('/', os.W_OK), os.access('/data', os.W_OK))\n"
        "print(pathlib.Path('/proc/self/status').read_text())\n"
    )
    with image.running(folder, ["-c", script], entrypoint=["python3"]) as container:
        assert container.status(60) == 0
    user = image.settings["User"].partition(":")[0]
    assert container.log().splitlines()[0] == f"1 {user} False True"
    assert re.findall(r"CapEff:\s+0+\n", container.log())
    assert os.geteuid() == 0
