"""The record that the pictures show: a day of polls of an emulated registry.

All times come from one clock, so the record is the same each time.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tests.support.clock import FakeClock
from tests.support.registries import World

BEGIN: Final = datetime(2026, 11, 25, 12, 40, tzinfo=UTC)
"""The time of the first poll."""

END: Final = BEGIN + timedelta(days=1)
"""The time at which the pictures are taken."""

TICK: Final = timedelta(minutes=10)
"""The interval between two polls."""

CHECKOUT: Final = "pay/checkout"
LEDGER: Final = "pay/ledger"
LIVE: Final = "prod/checkout"
FRONTEND: Final = "web/frontend"
GATEWAY: Final = "edge/gateway"
PYTHON: Final = "base/python"
INDEXER: Final = "search/indexer"
FEATURES: Final = "ml/features"

REPOSITORIES: Final = (CHECKOUT, LEDGER, LIVE, FRONTEND, GATEWAY, PYTHON, INDEXER, FEATURES)

_STOPPED: Final = range(90, 95)
"""The polls that are left out, because tagsync was stopped."""

_FAILING: Final = {FEATURES: range(118, 144), INDEXER: range(47, 55)}
"""The polls of a repository that fail."""


class Scene:
    """An emulated registry with its record, at `END`."""

    def __init__(self, folder: Path, swr: Emulator, clock: FakeClock) -> None:
        """Poll the registry for a day.

        Args:
            folder: A folder for the configuration and the database.
            swr: An empty registry.
            clock: The clock of this registry.
        """
        self._swr = swr
        clock.now = BEGIN - TICK
        write_config(folder, swr.url)
        self._fill()
        with Store.open(folder / "tagsync.db") as store:
            world = World(swr, store, clock)
            events = self._events()
            for turn in range(int((END - BEGIN) / TICK)):
                events.get(turn, lambda: None)()
                self._poll(world, turn)
            world.close()

    def _poll(self, world: World, turn: int) -> None:
        failing = [repository for repository, turns in _FAILING.items() if turn in turns]
        for repository in failing:
            self._contradict(repository)
        world.poll(*(() if turn in _STOPPED else REPOSITORIES), after=TICK)

    def change(self) -> None:
        """Change the registry after the last poll; one repository loses most of its tags."""
        self._release(CHECKOUT, "v2.16.0")
        self._swr.push(PYTHON, "3.13", "python 3.13.10")
        self._swr.delete(FRONTEND, "pr-4711")
        self._swr.push(FRONTEND, "pr-4718", "frontend 4718")
        for number in range(18):
            self._swr.delete(INDEXER, f"v1.{number}.0")
        self._contradict(FEATURES)

    def digest(self, repository: str, tag: str) -> str:
        """Return the first 12 digits of the digest to which a tag points."""
        return self._swr.tags(repository)[tag].removeprefix("sha256:")[:12]

    def _events(self) -> dict[int, Callable[[], object]]:
        """Return what happens before each poll, by its number."""
        push, delete = self._swr.push, self._swr.delete
        return {
            9: lambda: self._release(CHECKOUT, "v2.14.1"),
            15: lambda: self._promote("v2.14.1"),
            22: lambda: push(FRONTEND, "pr-4702", "frontend 4702"),
            31: lambda: push(PYTHON, "3.13", "python 3.13.9"),
            64: lambda: delete(FRONTEND, "pr-4702"),
            92: lambda: self._release(LEDGER, "v5.3.0"),
            110: lambda: self._release(CHECKOUT, "v2.15.0"),
            112: lambda: self._promote("v2.15.0"),
            116: lambda: push(FRONTEND, "pr-4711", "frontend 4711"),
            121: lambda: self._promote("v2.14.1"),
            131: lambda: self._release(GATEWAY, "v1.12.0"),
        }

    def _fill(self) -> None:
        for repository, tag in (
            *((CHECKOUT, "v2.14.0"), (LEDGER, "v5.2.3"), (GATEWAY, "v1.11.4")),
            *((FRONTEND, "v41"), (FEATURES, "v0.9.2"), (INDEXER, "v1.18.0")),
        ):
            self._release(repository, tag)
        self._promote("v2.14.0")
        for number in range(18):
            self._swr.push(INDEXER, f"v1.{number}.0", f"indexer {number}")
        for version in ("3.11", "3.12", "3.13"):
            self._swr.push(PYTHON, version, f"python {version}")

    def _release(self, repository: str, version: str) -> None:
        """Push an image under its version and as the newest one."""
        self._swr.push(repository, version, f"{repository} {version}")
        self._swr.push(repository, "latest", f"{repository} {version}")

    def _promote(self, version: str) -> None:
        """Point the tag of what is live to a version."""
        self._swr.push(LIVE, "live", f"{CHECKOUT} {version}")

    def _contradict(self, repository: str) -> None:
        """Let the reads of one poll give an empty page of a list with one row."""
        path = "/repos/".join(repository.split("/", 1))
        total = {"Content-Range": "0-0/1"}
        self._swr.answer_next(200, [], total, times=3, matching=f"{path}/tags")


def write_config(folder: Path, endpoint: str) -> None:
    """Write the configuration of the record."""
    (folder / "config.toml").write_text(
        '[store]\npath = "tagsync.db"\n\n[schedule]\ninterval = "10m"\n\n'
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\nconcurrency = 1\n'
        'retry_for = "100ms"\n\n'
        f"[[registries.watch]]\nrepositories = {list(REPOSITORIES)}\n"
    )
