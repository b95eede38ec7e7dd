"""What several tests stand on: a database, a registry to poll, and a clock that they own."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina
import structlog
from hypothesis import settings
from structlog.testing import LogCapture

from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.models import EVERYTHING, Image, Listing, Repository, Scope, Tag, Unchanged
from tagsync.polling.jobs import Job
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import NoCredential

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


@contextmanager
def without_triggers(connection: sqlite3.Connection) -> Iterator[None]:
    """Nothing is guarded within it; after it everything is again."""
    kept = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in kept:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in kept:
        connection.execute(sql)


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


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


def ended(what: Callable[[], object], seconds: float = 10) -> BaseException | None:
    """What ended a call that should not wait for ever, or null where it came back.

    Raises:
        TimeoutError: it waits still; its thread ends with the process.
    """
    call: Future[object] = Future()

    def run() -> None:
        try:
            call.set_result(what())
        except BaseException as error:  # noqa: BLE001  told to whoever asked
            call.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return call.exception(timeout=seconds)


class Scripted:
    """A registry whose listings, and failures, the test writes itself."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.script: list[Listing | Unchanged | BaseException] = []

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def list_repositories(self, globs: Sequence[str], *, shared: bool = False) -> set[str]:
        return set()

    def close(self) -> None:
        pass

    def then(self, *tags: Tag | str, pages: int = 1, **times: str) -> None:
        """Appends a listing of these tags, a mere name being a tag on an image of that name."""
        listed = [tag if isinstance(tag, Tag) else Tag(tag, f"sha256:{tag}") for tag in tags]
        images = {tag.digest: Image(tag.digest) for tag in listed if tag.digest}
        now = timestamp(self._clock.now)
        self.script.append(
            Listing(
                {tag.tag: tag for tag in listed},
                images,
                times.get("started_at", now),
                times.get("finished_at", now),
                fingerprint=None,
                pages=pages,
            )
        )


@pytest.fixture
def scripted(clock: FakeClock) -> Scripted:
    return Scripted(clock)


REPOSITORY = Repository("swr", "team/api")


@pytest.fixture
def job(scripted: Scripted) -> Job:
    return Job(REPOSITORY, scripted, timedelta(minutes=5))
