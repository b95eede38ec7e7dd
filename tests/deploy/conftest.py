"""A real Prometheus that scrapes a real daemon, with the shipped configuration and alerts."""

import re
from collections.abc import Iterator
from shutil import copy

import pytest

from tagsync.emulator import Emulator
from tests.support.docker_registry import require, serving
from tests.support.processes import Process, configure, free_port, registry
from tests.support.prometheus import SHIPPED, Prometheus


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the endpoint of a daemon that polls an emulated registry."""
    folder = tmp_path_factory.mktemp("daemon")
    listen = f"127.0.0.1:{free_port()}"
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        configure(
            folder,
            registry("swr", swr.url, "team/*"),
            more=f'verify = "1s"\n[metrics]\nlisten = "{listen}"\n',
        )
        process = Process(folder)
        try:
            process.await_message("READY=1")
            yield listen
        finally:
            process.stop()


@pytest.fixture(scope="module")
def prometheus(daemon: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the shipped configuration; only address and intervals are others."""
    require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    text = (SHIPPED / "prometheus.yaml").read_text()
    assert "tagsync:9180" in text
    text = re.sub(r"interval: \d+s", "interval: 200ms", text.replace("tagsync:9180", daemon))
    (folder / "prometheus.yaml").write_text(text)
    copy(SHIPPED / "alerts.yaml", folder)
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
    ]
    with serving(command, folder, r'"Listening on" address=127\.0\.0\.1:(\d+)') as host:
        client = Prometheus(f"http://{host}")
        client.await_ready()
        yield client
        client.close()
