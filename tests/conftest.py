"""Fixtures for all tests: a database, registries to poll, and a clock."""

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
from tagsync.polling.jobs import Job
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import NoCredential
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted

# Without a deadline, because a busy machine must not fail a test: speed is measured elsewhere.
# --hypothesis-profile=thorough tries more examples.
settings.register_profile("quick", deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def skip_system_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make HTTP clients load no CA certificates, which takes 30 ms per client."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture(scope="session", autouse=True)
def ignore_the_terminal() -> Iterator[None]:
    """Let output not depend on the terminal and the shell in which the tests run."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture
def clock() -> FakeClock:
    """A clock that only the test moves."""
    return FakeClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a database that does not exist yet."""
    return tmp_path / "tagsync.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    """An open store on the database."""
    with Store.open(database) as opened:
        yield opened


@pytest.fixture
def query(database: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Run SQL on the database through a connection of its own, as any client would."""

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
    """Let stamina retry immediately, up to six attempts."""
    stamina.set_testing(True, attempts=6)
    yield
    stamina.set_testing(False)


@pytest.fixture
def connect() -> Iterator[Callable[..., Registry]]:
    """Open registries at an endpoint, and close them after the test."""
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
    """A running emulated registry."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def scripted(clock: FakeClock) -> Scripted:
    """A registry whose listings and failures the test scripts."""
    return Scripted(clock)


@pytest.fixture
def job(scripted: Scripted) -> Job:
    """A job that polls the scripted registry."""
    return Job(REPOSITORY, scripted, timedelta(minutes=5))
