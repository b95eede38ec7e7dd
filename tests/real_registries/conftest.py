"""Fixtures of the tests against real registries, each of which is started once per module."""

from collections.abc import Iterator

import pytest

from tagsync.registries import Registry
from tests.support.real_registries import (
    PASSWORD,
    USER,
    WAYS,
    Server,
    Way,
    serve,
)
from tests.support.token_service import Authority, TokenService, make_authority


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
