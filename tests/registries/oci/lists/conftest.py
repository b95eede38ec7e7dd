"""Fixtures for the tests of registries' own lists."""

from collections.abc import Iterator
from typing import Any

import pytest
import stamina

from tagsync.emulator.oci import OciEmulator
from tests.support.clock import FakeClock
from tests.support.lists import ListedRegistry, Open


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once: tests/registries/test_client.py covers retries."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def listed(clock: FakeClock) -> Iterator[Open]:
    """Yield a function that opens the registry of an emulator, with the test's clock."""
    opened: list[ListedRegistry] = []

    def open_at(emulator: OciEmulator, **settings: Any) -> ListedRegistry:
        registry = ListedRegistry(emulator, clock, **settings)
        opened.append(registry)
        return registry

    yield open_at
    for registry in opened:
        registry.close()
