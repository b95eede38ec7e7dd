"""A real Prometheus that scrapes a real daemon, with the shipped configuration and alerts."""

import re
import time
from collections.abc import Callable, Iterator
from math import isnan
from shutil import copy
from typing import Any, Final, TypeVar

import httpx
import pytest

from tagsync.emulator import Emulator
from tests.support.docker_registry import require, serving
from tests.support.paths import ROOT
from tests.support.processes import Process, configure, free_port, registry

T = TypeVar("T")

SHIPPED: Final = ROOT / "deploy" / "prometheus"

_PATIENCE: Final = 30.0
"""Seconds until a query must have data."""


class Prometheus:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, transport=httpx.HTTPTransport(), timeout=10)

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def await_data(self, query: str) -> list[float]:
        """Return the values of a query once there are some, none of which is NaN."""

        def read() -> list[float]:
            rows = self.get("query", query=query)["result"]
            return [float(row["value"][1]) for row in rows]

        return self._await(read, lambda values: bool(values) and not any(map(isnan, values)))

    def await_health(self, expected: dict[str, str]) -> None:
        """Wait until the alerts have been evaluated, with these results."""

        def read() -> dict[str, str]:
            rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
            return {rule["name"]: rule["health"] for rule in rules}

        self._await(read, lambda health: health == expected)

    def _await(self, read: Callable[[], T], is_expected: Callable[[T], bool]) -> T:
        until = time.monotonic() + _PATIENCE
        while not is_expected(found := read()):
            assert time.monotonic() < until, f"after {_PATIENCE} s it is still {found}"
            time.sleep(0.1)
        return found

    def close(self) -> None:
        self._client.close()


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
        yield client
        client.close()
