"""Fixtures for the tests of one kind of registry."""

from collections.abc import Callable, Iterator

import pytest
import stamina

from tagsync.registries.credentials import Credential
from tagsync.registries.oci.api import Oci
from tagsync.registries.oci.auth import auth_for
from tests.support.clock import FakeClock
from tests.support.token_server import ENDPOINT, USER, Handler, registry_of


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once: tests/registries/test_client.py covers retries."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def opened(clock: FakeClock) -> Iterator[Callable[..., Oci]]:
    """Yield a function that opens registries with the test's clock."""
    registries: list[Oci] = []

    def open_with(handler: Handler, credential: Credential = USER, endpoint: str = ENDPOINT) -> Oci:
        registry = registry_of(handler, auth_for(credential, endpoint, clock), endpoint)
        registries.append(registry)
        return registry

    yield open_with
    for registry in registries:
        registry.close()
