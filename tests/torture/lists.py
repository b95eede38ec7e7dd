"""Registries' own lists under random faults: ``python -m tests.torture.lists --seeds 20``.

Each run has one vendor's emulated registry, whose tags are pushed, moved and deleted at random
while its list has random faults. tagsync polls it with a clock of the run, and forgets what it
knows of the list at random, as each ``tagsync sync`` does. No poll is concurrent with a push, so:

* each change that is recorded after the first listing is one that the registry had at this poll;
* at the end, after polls without faults, the record is that of the registry;
* a list that does not move a tag is noticed within 100 polls.
"""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import stamina
import structlog

from tagsync.audit.verify import verify
from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.emulator.oci import (
    Acr,
    DockerHub,
    GitLab,
    Google,
    Harbor,
    ListFault,
    OciEmulator,
    Quay,
    Vendor,
    Zot,
)
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, fill

VENDORS: Final[Mapping[str, Callable[[], Vendor]]] = {
    "gitlab": lambda: GitLab(max_page=10),
    "google": Google,
    "acr": lambda: Acr(max_page=10),
    "harbor": Harbor,
    "zot": Zot,
    "quay": lambda: Quay(max_page=10),
    "dockerhub": lambda: DockerHub(max_page=10),
}
"""The emulated registries by the name of their list, with small pages if they can have them."""

_OF_NAMES: Final = frozenset({ListFault.CUT, ListFault.EMPTY, ListFault.NO_SIGNATURES})
"""Faults that Google does not get: its list is ``tags/list``, so nothing contradicts its names."""

TAGS: Final = 30
POLLS: Final = 60
WITHIN: Final = 100
"""Number of polls within which a list that lies must be noticed."""

_EVERY: Final = timedelta(minutes=2)
_FULL_NAME: Final = Repository("reg", REPOSITORY)
_CHANGES: Final = """
    SELECT id, tag, kind, new_digest FROM changes WHERE id > ? AND not_before IS NOT NULL
"""


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        name: The vendor and the seed.
        wrong: One sentence for everything that is wrong.
        figures: Counts by name.
        found_after: Number of polls after which the list that lied was noticed.
    """

    name: str
    wrong: list[str]
    figures: Mapping[str, int]
    found_after: int


def torture(vendor: str, seed: int, folder: Path, polls: int = POLLS) -> Outcome:
    """Run once in an empty folder, where the database stays."""
    with ExitStack() as stack:
        stack.enter_context(stamina.set_testing(True, attempts=1))
        clock = FakeClock()
        emulator = stack.enter_context(OciEmulator(VENDORS[vendor](), page=10, clock=clock))
        run = stack.enter_context(closing(_Run(f"{vendor} {seed}", emulator, folder, clock)))
        run.poll()
        for _ in range(polls):
            run.act()
            run.poll()
        run.settle()
        return Outcome(run.name, run.wrong, run.figures, run.lie())


class _Run:
    def __init__(self, name: str, emulator: OciEmulator, folder: Path, clock: FakeClock) -> None:
        self.name = name
        self.wrong: list[str] = []
        self.figures: Counter[str] = Counter()
        self._random = Random(name)
        is_google = name.startswith("google")
        self._faults = [each for each in ListFault if not (is_google and each in _OF_NAMES)]
        self._emulator = emulator
        self._clock = clock
        self._path = folder / "tagsync.db"
        self._store = Store.open(self._path)
        self._last = 0
        self._contents = TAGS
        fill(emulator, TAGS)
        self._registry = ListedRegistry(emulator, self._clock)

    def close(self) -> None:
        self._registry.close()
        self._store.close()

    def act(self) -> None:
        """Change some tags, begin or end a fault, and sometimes forget what is known of lists."""
        for _ in range(self._random.choice((0, 0, 1, 2))):
            self._change_a_tag()
        if self._random.random() < 0.3:
            fault = self._random.choice(self._faults)
            self._emulator.begin(fault)
            self.figures[f"fault {fault}"] += 1
        for fault in sorted(self._emulator.faults):
            if self._random.random() < 0.3:
                self._emulator.end(fault)
        if self._random.random() < 0.3:
            self._restart()

    def poll(self) -> None:
        """Poll once, and compare each change that is recorded with the registry."""
        self._clock.now += _EVERY
        job = Job(_FULL_NAME, self._registry.oci, 2 * _EVERY, manifests=False)
        result = poll(job, self._store, clock=self._clock)
        self.figures[f"polls {result.outcome}"] += 1
        self._emulator.clear_requests()
        truth = self._emulator.tags(REPOSITORY)
        for number, tag, kind, digest in self._query(_CHANGES, self._last):
            self._last = number
            self.figures[f"changes {kind}"] += 1
            if truth.get(tag) != digest:
                faults = sorted(self._emulator.faults)
                self.wrong.append(f"{self.name}: {kind} {tag}, and it was not so, under {faults}")

    def settle(self) -> None:
        """Poll without faults, and compare the record with the registry."""
        for fault in list(self._emulator.faults):
            self._emulator.end(fault)
        for _ in range(3):
            self._clock.now += timedelta(days=1)
            self._restart()
            self.poll()
        sources = self._query("SELECT source, sum(polls) FROM observations GROUP BY source")
        self.figures.update({f"polls by {source}": count for source, count in sources if source})
        if self._recorded() != self._emulator.tags(REPOSITORY):
            self.wrong.append(f"{self.name}: the record is not that of the registry")
        with reading(self._path) as db:
            faults = [row for row in verify(db, set()) if row["result"] == "fault"]
        self.wrong += [f"{self.name}: verify finds {row}" for row in faults]

    def lie(self) -> int:
        """Let the list lie about a tag. Return the number of polls until the record is right."""
        self._emulator.begin(ListFault.FROZEN)
        tag = self._random.choice(list(self._emulator.tags(REPOSITORY)))
        self._emulator.push(REPOSITORY, tag, "the truth")
        is_sync = self._random.random() < 0.5
        polls = 0
        while self._recorded() != self._emulator.tags(REPOSITORY) and polls < WITHIN:
            if is_sync:
                self._restart()
            self.poll()
            polls += 1
        if self._recorded() != self._emulator.tags(REPOSITORY):
            self.wrong.append(f"{self.name}: the move of {tag} was not found in {WITHIN} polls")
        self._clock.now += timedelta(days=1)  # longer than any list may be behind
        self.poll()
        if not self._query("SELECT 1 FROM observations WHERE instr(reasons, 'list_distrusted')"):
            self.wrong.append(f"{self.name}: the list is not distrusted")
        return polls

    def _change_a_tag(self) -> None:
        tags = list(self._emulator.tags(REPOSITORY))
        kind = self._random.choice(("push", "move", "move", "delete"))
        if kind == "delete" and len(tags) > TAGS // 2:
            self._emulator.delete(REPOSITORY, self._random.choice(tags))
            return
        if self._random.random() < 0.8:
            self._contents += 1
        content = f"image {self._random.randrange(self._contents)}"
        absent = {f"v{number:05}" for number in range(2 * TAGS)} - {*tags}
        choice = sorted(absent) if kind == "push" and absent else tags
        self._emulator.push(REPOSITORY, self._random.choice(choice), content)

    def _restart(self) -> None:
        """Forget everything that is known of the list, as another process."""
        self._registry.close()
        self._registry = ListedRegistry(self._emulator, self._clock)

    def _recorded(self) -> dict[str, str | None]:
        return {name: tag.digest for name, tag in self._store.tags(_FULL_NAME).items()}

    def _query(self, sql: str, *values: int) -> list[tuple[Any, ...]]:
        with reading(self._path) as db:
            return db.execute(sql, values).fetchall()


def main() -> int:
    """Run seed after seed with each vendor; return 1 if any run found something wrong."""
    parser = ArgumentParser("python -m tests.torture.lists", description=torture.__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs for each vendor")
    parser.add_argument("--polls", type=int, default=POLLS, help="the length of each run")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    outcomes = []
    for vendor in VENDORS:
        for seed in range(given.seed, given.seed + given.seeds):
            with TemporaryDirectory() as folder:
                outcomes.append(torture(vendor, seed, Path(folder), given.polls))
    for line in _report(outcomes):
        print(line, flush=True)  # noqa: T201  the report of the runs
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _report(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield what is wrong, and the figures of all runs together."""
    for outcome in outcomes:
        yield from outcome.wrong
    figures = sum((Counter(outcome.figures) for outcome in outcomes), Counter[str]())
    yield ", ".join(f"{count} {name}" for name, count in sorted(figures.items()))
    found = [outcome.found_after for outcome in outcomes]
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    yield f"{len(outcomes)} runs, {wrong} of them wrong; a lie was found after {max(found)} polls"


if __name__ == "__main__":
    sys.exit(main())
