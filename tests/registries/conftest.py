"""Fixtures for the tests of registry clients."""

import pytest

from tagsync.registries.pacing import Pacer
from tests.support.http_client import Time


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pacer(time: Time) -> Pacer:
    return Pacer(1.0, monotonic=time.monotonic, sleep=time.sleep)
