"""Fixtures for the tests of one kind of registry."""

from collections.abc import Iterator

import pytest
import stamina


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once: tests/registries/test_client.py covers retries."""
    with stamina.set_testing(True, attempts=1):
        yield
