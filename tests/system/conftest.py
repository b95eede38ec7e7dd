"""Fixtures of the tests that start real processes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start daemons in the test's folder, and kill the running ones after the test."""
    running: list[Process] = []

    def begin(**options: Any) -> Process:
        running.append(Process(tmp_path, **options))
        return running[-1]

    yield begin
    for process in running:
        process.stop(signal.SIGKILL)
