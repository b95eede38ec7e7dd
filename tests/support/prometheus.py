"""A client of a running Prometheus, and the folder of the files that tagsync ships for it."""

import time
from collections.abc import Callable
from math import isnan
from typing import Any, Final, TypeVar

import httpx

from tests.support.paths import ROOT

T = TypeVar("T")

SHIPPED: Final = ROOT / "deploy" / "prometheus"

_PATIENCE: Final = 300.0
"""Seconds until a query must have data. A verification runs only when the processor is free."""


class Prometheus:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, transport=httpx.HTTPTransport(), timeout=10)

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def await_ready(self) -> None:
        """Wait until it answers queries. It listens a moment before that."""
        self._await(lambda: self._client.get("/-/ready").status_code, lambda status: status == 200)

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
