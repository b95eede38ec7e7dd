"""Fixtures of the tests against real registries, each of which is started once per module."""

from collections.abc import Callable, Iterator

import pytest

from tagsync.registries import Registry
from tests.support.real_registries import (
    CRANE,
    IMPLEMENTATIONS,
    PASSWORD,
    USER,
    Access,
    Implementation,
    Server,
    serve,
)
from tests.support.token_service import Authority, TokenService, make_authority

Way = tuple[Implementation, Access]

WAYS: list[Way] = [(each, access) for each in IMPLEMENTATIONS for access in each.accesses]
"""Each registry with each of its access controls."""


def ways(condition: Callable[[Way], bool], *fails: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """Run a test with the ways that meet a condition; crane's gets the marks."""
    chosen = [
        pytest.param(way, marks=fails if way[0] is CRANE else (), id=f"{way[0].name}-{way[1]}")
        for way in WAYS
        if condition(way)
    ]
    return pytest.mark.parametrize("way", chosen, indirect=True, scope="module")


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="package")
def tokens(authority: Authority) -> Iterator[TokenService]:
    with TokenService(authority, USER, PASSWORD).serving() as service:
        yield service


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"{way[0].name}-{way[1]}")
def way(request: pytest.FixtureRequest) -> Way:
    """A registry and an access control of it."""
    way: Way = request.param
    return way


@pytest.fixture(scope="module")
def server(
    way: Way, authority: Authority, tokens: TokenService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The registry, which runs with this access control."""
    with serve(*way, tmp_path_factory.mktemp(way[0].name), authority, tokens) as running:
        yield running


@pytest.fixture(scope="module")
def registry(server: Server) -> Iterator[Registry]:
    """The registry as a poll reads it."""
    with server.opened() as client:
        yield client
