"""What several tests stand on: a database, a registry to poll, and a clock that they own."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina
import structlog
from hypothesis import settings
from structlog.testing import LogCapture

from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.polling.poll import Job
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import NoCredential
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

# A busy machine is no failure: speed is measured, not tested. While one works a few examples will
# do; --hypothesis-profile=thorough tries more.
settings.register_profile("quick", deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def nobody_usual_is_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets clients read no certificates, which takes 30 ms for each: none of them is needed."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "tagsync.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store.open(database) as opened:
        yield opened


@pytest.fixture
def query(database: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Asks the database as anybody would: through a connection of one's own."""

    def ask(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return ask


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events that are logged during the test."""
    capture = LogCapture()
    structlog.configure(
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        cache_logger_on_first_use=False,
    )
    yield capture.entries  # type: ignore[misc]  # an entry is a mutable mapping of names to anything
    structlog.reset_defaults()


@pytest.fixture
def without_waiting() -> Iterator[None]:
    """Tries again at once what would be tried again after a while."""
    stamina.set_testing(True, attempts=6)
    yield
    stamina.set_testing(False)


@pytest.fixture
def connect() -> Iterator[Callable[..., Registry]]:
    """Opens registries at an endpoint, and closes them after the test."""
    opened: list[Registry] = []

    def open_at(endpoint: str, **limits: Any) -> Registry:
        settings: dict[str, Any] = {
            "timeout": 5.0,
            "retry_for": 5.0,
            "max_listing_bytes": 2**26,
            "requests_per_second": 10_000.0,
            "connections": 4,
        }
        registry = open_registry(endpoint, NoCredential(), **settings | limits)
        opened.append(registry)
        return registry

    yield open_at
    for registry in opened:
        registry.close()


@pytest.fixture
def swr() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def scripted(clock: FakeClock) -> Scripted:
    return Scripted(clock)


@pytest.fixture
def job(scripted: Scripted) -> Job:
    return Job(REPOSITORY, scripted, timedelta(minutes=5))
