"""Build the image from the Containerfile, and run it without a container engine.

buildah builds it on a base that mmdebstrap makes. bubblewrap runs it as the image's configuration
says: its user, environment and command, as PID 1 of its own namespace, on a read-only root.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.docker_registry import require
from tests.support.paths import ROOT
from tests.support.skopeo import skopeo

_TIMEOUT: Final = 600
"""Seconds that a step of the build may take."""

_PYTHON: Final = "python3,python3-venv,ca-certificates"


class Builder:
    """Builds images in a storage of its own, which a folder holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._storage = f"vfs@{folder}/storage+{folder}/run"
        self._buildah = (
            f"buildah --storage-driver vfs --root {folder}/storage --runroot {folder}/run"
        )

    def make_base(self, name: str) -> None:
        """Make an image of the host's Debian with Python, in place of one of an index."""
        release = Path("/etc/os-release").read_text()
        (suite,) = re.findall(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
        self.run(
            f"mmdebstrap --quiet --variant=minbase --include={_PYTHON} {suite} base.tar\n"
            f"container=$({self._buildah} from scratch)\n"
            f'{self._buildah} add --quiet "$container" base.tar /\n'
            f"{self._buildah} config --env PATH=/usr/bin:/bin $container\n"
            f'{self._buildah} commit --quiet "$container" {name}\n'
            f'{self._buildah} rm "$container"\n'
        )

    def build(self, commands: str, base: str) -> None:
        """Run documented commands with `podman build`, which buildah carries out.

        pip gets its settings from a file, as the base would have it, so that the image has none.
        """
        settings = {
            name.removeprefix("PIP_").lower().replace("_", "-"): value
            for name, value in os.environ.items()
            if name.startswith("PIP_")
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._folder / "pip.conf").write_text(f"[global]\n{lines}")
        mounts = [f"{self._folder}/pip.conf:/etc/pip.conf:ro", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        options = " ".join(f"--volume {mount}" for mount in mounts)
        self.run(
            f"podman() {{ {self._buildah} bud --isolation chroot --format docker"
            f' --build-arg BASE={base} {options} "${{@:2}}"; }}\ncd {ROOT}\n{commands}'
        )

    def push(self, image: str, to: str) -> None:
        """Let skopeo push an image to a registry on loopback."""
        source = f"containers-storage:[{self._storage}]{image}"
        copy(source, f"docker://{to}", "--dest-tls-verify=false")

    def run(self, script: str) -> None:
        """Run a script in the builder's folder."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Image:
    """An image that was pulled and unpacked.

    Attributes:
        settings: The configuration of the image, as Docker names its keys.
    """

    def __init__(self, reference: str, folder: Path) -> None:
        """Pull an image from a registry on loopback, and unpack it below a folder."""
        source = f"docker://{reference}"
        inspected = skopeo("inspect", "--config", "--raw", "--tls-verify=false", source)
        self.settings: dict[str, Any] = json.loads(inspected)["config"]
        copy(source, f"oci:{folder}/layout:image", "--src-tls-verify=false")
        command = ["umoci", "unpack", "--image", f"{folder}/layout:image", str(folder / "bundle")]
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT)
        self.root = folder / "bundle" / "rootfs"
        self._user = int(self.settings["User"].partition(":")[0])
        let_in(folder / "bundle")

    @contextmanager
    def running(
        self, folder: Path, arguments: Sequence[str] = (), *, entrypoint: Sequence[str] = ()
    ) -> Iterator["Container"]:
        """Run the image, and kill it at the end of the block.

        Args:
            folder: Contains ``data``, which is mounted at the volume. If it contains ``config`` and
                ``secrets``, they are mounted read-only at /etc/tagsync and /run/secrets.
            arguments: In place of the image's own command, if there are any.
            entrypoint: In place of the image's own entry point, if there is one.
        """
        os.chown(folder / "data", self._user, self._user)
        command = [
            *(entrypoint or self.settings["Entrypoint"]),
            *(arguments or self.settings["Cmd"]),
        ]
        path = folder / f"log-{len(list(folder.glob('log-*')))}"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*self._unprivileged(), *self._sandbox(folder), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"]},
            )
        container = Container(process, path)
        try:
            yield container
        finally:
            process.kill()
            process.wait(10)

    def _unprivileged(self) -> list[str]:
        user = f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups"
        return ["setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]

    def _sandbox(self, folder: Path) -> list[str]:
        (volume,) = self.settings["Volumes"]
        variables = dict(each.split("=", 1) for each in self.settings["Env"])
        options = [
            *("--unshare-user", "--unshare-pid", "--as-pid-1", "--die-with-parent", "--clearenv"),
            *("--uid", str(self._user), "--gid", str(self._user)),
            *("--ro-bind", str(self.root), "/", "--bind", str(folder / "data"), volume),
            *("--proc", "/proc", "--dev", "/dev", "--chdir", self.settings["WorkingDir"]),
        ]
        for name, value in variables.items():
            options += ["--setenv", name, value]
        for name, place in (("config", "/etc/tagsync"), ("secrets", "/run/secrets")):
            if (folder / name).exists():
                options += ["--ro-bind", str(folder / name), place]
        return ["bwrap", *options]


class Container:
    """A container that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def signal(self, number: int) -> None:
        """Send a signal to the container's PID 1."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        (first,) = children.read_text().split()
        os.kill(int(first), number)

    def status(self, seconds: float) -> int:
        """Wait for the end of the container, and return its exit status."""
        return self._process.wait(seconds)

    def log(self) -> str:
        """Return what the container has written."""
        return self._log.read_text()

    def await_log(self, text: str, seconds: float = 60) -> None:
        """Wait until the container has written a text."""
        until = time.monotonic() + seconds
        while text not in self.log():
            running = self._process.poll() is None
            assert running and time.monotonic() < until, f"no {text}, but {self.log()}"  # noqa: PT018
            time.sleep(0.02)


def let_in(folder: Path) -> None:
    """Let every user enter a folder of the tests, which only its owner may otherwise."""
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)


def copy(source: str, target: str, *options: str) -> None:
    """Let skopeo copy an image."""
    skopeo("--insecure-policy", "copy", "--quiet", *options, source, target)


def require_builder() -> None:
    """Skip the module without root or without the programs; in CI, fail instead."""
    require("buildah", "bwrap", "docker-registry", "mmdebstrap", "setpriv", "skopeo", "umoci")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make the file system of the base", allow_module_level=True)
