"""Run registries with a list of their own: zot and GitLab's, whose programs variables name."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import pytest

from tests.support.docker_registry import Auth, DockerRegistry, serving

ZOT: Final = "TAGSYNC_ZOT"
GITLAB: Final = "TAGSYNC_GITLAB_REGISTRY"

_POSTGRES: Final = Path("/usr/lib/postgresql")
"""Where Debian has the programs of each version of PostgreSQL."""

_SERVER_USER: Final = "postgres"
"""The user of Debian's PostgreSQL, which does not run as root."""

_REQUEST: Final = re.compile(
    r'"method":"([A-Z]+)",(?:"path"|[^\n]*"msg":"access"[^\n]*"uri"):"([^"]+)"'
)
"""A request in the log of zot (``path``) and of GitLab's registry (``uri``)."""

_DATABASE: Final = "postgres"
"""The database that each cluster has."""


class LoggedRegistry(DockerRegistry):
    """A real registry that remembers its requests, as an emulator does, because it logs them."""

    def __init__(self, folder: Path, host: str, auth: Auth | None) -> None:
        super().__init__(folder / "data", host, auth=auth, verify=True)
        self._log = folder / "registry.log"
        self._forgotten = 0

    @property
    def requests(self) -> list[str]:
        """The method and the path of each request since they were last forgotten."""
        return self._logged()[self._forgotten :]

    def clear_requests(self) -> None:
        """Forget all requests."""
        self._forgotten = len(self._logged())

    def _logged(self) -> list[str]:
        return [" ".join(each) for each in _REQUEST.findall(self._log.read_text())]


def named_by(variable: str) -> str:
    """Return the program that a variable names; skip the test without one, in CI, too."""
    program = os.environ.get(variable)
    if not program:
        pytest.skip(f"{variable} names no program; docs/CONTRIBUTING.md says how to build it")
    return program


@contextmanager
def running_zot(
    folder: Path, *, access: Mapping[str, Any] | None = None, auth: Auth | None = None
) -> Iterator[LoggedRegistry]:
    """Run zot with its search extension, on a port that the system chose.

    Args:
        folder: Where zot keeps its log, its configuration and, in ``data``, its images.
        access: ``auth`` and ``accessControl`` of its configuration. By default it is open.
        auth: The credential of the client that fills it.
    """
    http = {"address": "127.0.0.1", "port": "0", "compat": ["docker2s2"], **(access or {})}
    configuration = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": str(folder / "data"), "gc": False},
        "http": http,
        "log": {"level": "info"},
        "extensions": {"search": {"enable": True}},
    }
    path = folder / "zot.json"
    path.write_text(json.dumps(configuration))
    command = [named_by(ZOT), "serve", str(path)]
    with serving(command, folder, r'kernel chosen port","port":(\d+)') as host:
        yield from _filled(folder, host, auth)


@contextmanager
def running_gitlab(
    folder: Path,
    *,
    access: Mapping[str, Any] | None = None,
    auth: Auth | None = None,
    has_database: bool = True,
) -> Iterator[LoggedRegistry]:
    """Run GitLab's registry on a port that the system chose.

    Args:
        folder: Where it keeps its log, its configuration and, in ``data``, its images.
        access: The ``auth`` section of its configuration. By default it is open.
        auth: The credential of the client that fills it.
        has_database: Whether it has a metadata database, and with it the list.
    """
    program = named_by(GITLAB)
    configuration = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": "127.0.0.1:0", "secret": "made-up"},
        **({"auth": access} if access else {}),
    }
    with _postgres() if has_database else nullcontext() as socket:
        if socket:
            database = {"host": str(socket), "port": 5432, "user": _SERVER_USER}
            database |= {"dbname": _DATABASE, "sslmode": "disable"}
            configuration["database"] = {"enabled": True, **database}
        path = folder / "registry.yml"
        path.write_text(json.dumps(configuration))  # JSON is valid YAML
        if socket:
            _run([program, "database", "migrate", "up", str(path)])
        command = [program, "serve", str(path)]
        with serving(command, folder, r"listening on 127\.0\.0\.1:(\d+)") as host:
            yield from _filled(folder, host, auth)


def _filled(folder: Path, host: str, auth: Auth | None) -> Iterator[LoggedRegistry]:
    registry = LoggedRegistry(folder, host, auth)
    with registry.client:
        yield registry


@contextmanager
def _postgres() -> Iterator[Path]:
    """Run a cluster of PostgreSQL, and yield the folder of its socket."""
    versions = sorted(_POSTGRES.glob("*/bin"))
    if not versions:
        pytest.skip("needs postgresql, which Debian has in a package of that name")
    # A short path, because that of a socket is limited, in a folder that another user may enter.
    folder = Path(mkdtemp(prefix="tagsync-pg-"))
    user = _SERVER_USER if os.getuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    try:
        cluster = str(folder / "data")
        initdb = [str(versions[-1] / "initdb"), "-D", cluster, "-U", _SERVER_USER, "-A", "trust"]
        _run([*initdb, "--no-sync"], user=user)
        pg_ctl = [str(versions[-1] / "pg_ctl"), "-D", cluster]
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        _run([*pg_ctl, "-w", "-l", str(folder / "log"), "-o", options, "start"], user=user)
        try:
            yield folder
        finally:
            _run([*pg_ctl, "-w", "-m", "immediate", "stop"], user=user)
    finally:
        shutil.rmtree(folder)


def _run(command: Sequence[str], user: str | None = None) -> None:
    subprocess.run(
        command,
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
