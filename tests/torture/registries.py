"""Three emulated registries that change at random, and a journal of their contents.

``paged`` is an SWR that sends totals, signs users in, and is watched by globs; its totals are
sometimes missing. ``bare`` is an SWR that sends no total, requires signed requests, and is watched
by names. ``oci`` implements the OCI specification, is open to everybody, and its manifests are
fetched. tagsync reaches each of them through a front server.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import httpx

from tagsync.emulator import LIES, MISHAPS, Emulator, Fault, Faults, Keys, User
from tagsync.emulator.repositories import TagRow
from tests.torture.front import Front
from tests.torture.oci import OciRegistry
from tests.torture.truth import Journal, Served, State

MISHAP_RATES: Final = {"paged": 0.25, "bare": 0.25, "oci": 0.08}
"""The rate of mishaps per request. A listing of ``oci`` needs a request for each tag."""

LIE_RATE: Final = 0.2
STALE_RATE: Final = 0.25
"""The rates of lies and of stale states per page of a tag list."""

NO_TOTAL_RATE: Final = 0.15
"""The rate of pages of ``paged`` without a total."""

FRONT_RATES: Final = {"paged": 0.04, "bare": 0.04, "oci": 0.02}
"""The rate per request at which tricks of the front server begin."""

PAGE: Final = 10

KEEPS_STATES: Final = 20
"""How many changes a stale replica may be behind."""

HOLDS_STALE: Final = frozenset({"paged", "bare"})
"""The registries whose stale listings tagsync must hold if a known tag's time goes back."""

OCI_LIES: Final = (Fault.PARTIAL, Fault.EMPTIED, Fault.VANISHED)

SECRETS: Final = {
    "TORTURE_PASSWORD": "made-up-password-of-the-torture",
    "TORTURE_ACCESS_KEY": "MADEUPACCESSKEY00001",
    "TORTURE_SECRET_KEY": "made-up-secret-key-of-the-torture",
}
"""The secrets of tagsync, by environment variable."""

_TOKEN: Final = "made-up-token-of-the-journal"

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

SIZES: Final = {"paged": (3, 9, 24, 40), "bare": (3, 9, 14, 31), "oci": (2, 6, 12)}
"""The initial number of tags of each repository, by registry."""

CONFIG: Final = """\
[store]
path = "tagsync.db"
[schedule]
interval = "300ms"
discovery_interval = "2s"

[[registries]]
name = "paged"
endpoint = "{paged}"
{limits}
[registries.auth]
kind = "password"
iam_endpoint = "{paged}"
username = "tester"
password = "env:TORTURE_PASSWORD"
domain = "account"
project = "eu-de"
[[registries.watch]]
repositories = ["team/*"]

[[registries]]
name = "bare"
endpoint = "{bare}"
{limits}
[registries.auth]
kind = "aksk"
access_key = "env:TORTURE_ACCESS_KEY"
secret_key = "env:TORTURE_SECRET_KEY"
[[registries.watch]]
repositories = [{names}]

[[registries]]
name = "oci"
kind = "oci"
endpoint = "{oci}"
{limits}
[[registries.watch]]
repositories = ["team/*"]
manifests = true
"""

_LIMITS: Final = """\
timeout = "{timeout}"
retry_for = "{retry_for}"
concurrency = 4
requests_per_second = 500
agree_after = 0
"""


class EmulatedRegistries:
    """All registries, their faults and front servers, and all operations on them."""

    def __init__(self, seed: str) -> None:
        self.journal = Journal(lambda: datetime.now(UTC))
        self._random = Random(f"{seed} operations")
        self.faults = {name: _faults(seed, name) for name in SIZES}
        self._emulators = self._emulated_swr()
        self._oci = OciRegistry(self.faults["oci"], page=PAGE // 2, keeps_states=KEEPS_STATES)
        self.fronts = {
            name: Front(
                self._emulators[name].respond if name in self._emulators else self._oci.respond,
                rate=rate,
                seed=f"{seed} front of {name}",
            )
            for name, rate in FRONT_RATES.items()
        }
        self.repositories = {
            f"{registry}/team/{registry}{number}": size
            for registry, sizes in SIZES.items()
            for number, size in enumerate(sizes)
        }
        self._tags: dict[str, dict[str, State]] = {}
        self._contents: dict[str, int] = {}
        self._pushes = 0
        for repository, size in self.repositories.items():
            for _ in range(size):
                self._add(repository)

    def _emulated_swr(self) -> dict[str, Emulator]:
        user = User(SECRETS["TORTURE_PASSWORD"], domain="account", project="eu-de")
        keys = Keys(SECRETS["TORTURE_SECRET_KEY"])
        return {
            "paged": Emulator(
                token=_TOKEN,
                users={"tester": user},
                token_lifetime=timedelta(seconds=3),
                max_page=PAGE,
                keeps_states=KEEPS_STATES,
                faults=self.faults["paged"],
            ),
            "bare": Emulator(
                token=_TOKEN,
                keys={SECRETS["TORTURE_ACCESS_KEY"]: keys},
                max_page=PAGE,
                sends_total=False,
                ignores_paging=self._random.random() < 0.3,
                keeps_states=KEEPS_STATES,
                faults=self.faults["bare"],
            ),
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve all registries in this block."""
        with ExitStack() as stack:
            for emulator in self._emulators.values():
                stack.enter_context(emulator)
            for front in self.fronts.values():
                stack.enter_context(front)
            yield

    @property
    def requests(self) -> int:
        """The number of requests that have reached a registry."""
        return self._oci.requests + sum(len(each.requests) for each in self._emulators.values())

    def be_honest(self) -> None:
        """End all faults and tricks."""
        for faults in self.faults.values():
            faults.on = False
        for front in self.fronts.values():
            front.on = False

    def suspend_lies(self) -> None:
        """Tell no lie about any repository until `Faults.renew` allows it."""
        for repository in self.repositories:
            registry, _, name = repository.partition("/")
            self.faults[registry].suspend(name)

    def served(self) -> dict[str, list[Served]]:
        """Return the stale states that were served, by repository."""
        found: dict[str, list[Served]] = {}
        for registry, faults in self.faults.items():
            for lie in faults.lies:
                if lie.rows is not None:
                    tags = {tag: _state_of(row) for tag, row in lie.rows.items()}
                    found.setdefault(f"{registry}/{lie.repository}", []).append(
                        Served(lie.at, tags)
                    )
        return found

    def config(self, *, timeout: str = "400ms", retry_for: str = "1500ms") -> str:
        """Return the configuration that watches all of them.

        Args:
            timeout: By default short, because some requests are never answered.
            retry_for: By default short as well.
        """
        names = ", ".join(
            f'"{name.partition("/")[2]}"' for name in self.repositories if name.startswith("bare")
        )
        urls = {name: front.url for name, front in self.fronts.items()}
        limits = _LIMITS.format(timeout=timeout, retry_for=retry_for)
        return CONFIG.format(**urls, limits=limits, names=names)

    def answers(self, repository: str) -> list[dict[str, Any]]:
        """Return the rows of a repository, as its registry sends them."""
        registry, _, full_name = repository.partition("/")
        with httpx.Client(headers={"X-Auth-Token": _TOKEN}, trust_env=False, timeout=30) as client:
            if registry == "oci":
                tags = self.tags(repository).items()
                return [{"Tag": tag, "digest": state.digest} for tag, state in tags]
            namespace, _, name = full_name.partition("/")
            url = self._emulators[registry].url
            path = f"{url}/v2/manage/namespaces/{namespace}/repos/{name}/tags"
            rows: list[dict[str, Any]] = []
            while len(rows) < len(self.tags(repository)):
                page = client.get(path, params={"offset": len(rows), "limit": PAGE})
                rows += page.raise_for_status().json()
        return rows

    def tags(self, repository: str) -> dict[str, State]:
        """Return the tags of a repository, oldest push first; empty if it does not exist."""
        return self._tags.get(repository, {})

    def restore(self, repository: str) -> None:
        """Create a repository if it does not exist."""
        if repository not in self._tags:
            self._add(repository)

    def act(self) -> None:
        """Run one random operation on one repository."""
        repository = self._random.choice(list(self.repositories))
        what = self._random.choices(
            (self._add, self._move, self._delete, self._again, self._trust),
            (25, 30, 25, 10, 10),
        )[0]
        if self._random.random() < 0.02:
            what = self._random.choice((self._empty, self._drop))
        if self._tags.get(repository):
            what(repository)
        else:
            self._add(repository)

    def _add(self, repository: str) -> None:
        """Push a tag that does not exist; it may have existed before."""
        names = [f"v{number}" for number in range(2 * self.repositories[repository] + 5)]
        absent = [name for name in names if name not in self.tags(repository)]
        self._put(repository, self._random.choice(absent or names), self._content())

    def _move(self, repository: str) -> None:
        self._put(repository, self._any(repository), self._content())

    def _again(self, repository: str) -> None:
        """Push a tag with the content that it has already."""
        tag = self._any(repository)
        self._put(repository, tag, self._contents[self._tags[repository][tag].digest])

    def _trust(self, repository: str) -> None:
        if repository.startswith("oci/"):
            self._move(repository)
            return
        tag = self._any(repository)
        was = self._tags[repository][tag]
        state = was._replace(is_trusted=not was.is_trusted)

        def operation() -> State:
            registry, _, name = repository.partition("/")
            self._emulators[registry].set_fields(name, tag, is_trusted=state.is_trusted)
            return state

        self.journal.during(operation, (repository, tag))
        self._tags[repository][tag] = state

    def _delete(self, repository: str) -> None:
        self._remove(repository, self._any(repository))

    def _empty(self, repository: str) -> None:
        for tag in list(self._tags[repository]):
            self._remove(repository, tag)

    def _drop(self, repository: str) -> None:
        """Delete the repository itself."""
        tags = self._tags.pop(repository)

        def operation() -> None:
            registry, name = self._at(repository)
            registry.delete_repository(name)

        self.journal.during(operation, *((repository, tag) for tag in tags))

    def _remove(self, repository: str, tag: str) -> None:
        def operation() -> None:
            registry, name = self._at(repository)
            registry.delete(name, tag)

        self.journal.during(operation, (repository, tag))
        del self._tags[repository][tag]

    def _put(self, repository: str, tag: str, content: int) -> None:
        tags = self._tags.setdefault(repository, {})
        self._pushes += 1
        # Not the current time, so that the order of the rows follows from the seed.
        updated = (_EPOCH + timedelta(seconds=self._pushes)).strftime("%Y-%m-%dT%H:%M:%SZ")

        def operation() -> State:
            registry, name = self._at(repository)
            text = f"build {content}"
            if isinstance(registry, OciRegistry):
                digest = registry.push(name, tag, text)
            else:
                digest = registry.push(name, tag, text, updated=updated)
            was = tags.get(tag)
            return was if was and was.digest == digest else State(digest, is_trusted=False)

        self.journal.during(operation, (repository, tag))
        state = self.journal.versions((repository, tag))[-1].state
        assert state is not None
        self._contents[state.digest] = content
        tags.pop(tag, None)
        tags[tag] = state

    def _content(self) -> int:
        """Return new content, or sometimes content that was pushed before."""
        if self._contents and self._random.random() < 0.2:
            return self._random.choice(list(self._contents.values()))
        return len(self._contents) + 1

    def _any(self, repository: str) -> str:
        return self._random.choice(list(self._tags[repository]))

    def _at(self, repository: str) -> tuple[Emulator | OciRegistry, str]:
        """Return the registry of a repository, and the name of the repository there."""
        registry, _, name = repository.partition("/")
        return self._emulators.get(registry, self._oci), name


def _state_of(row: TagRow | str) -> State:
    """Return the state of a tag from its row in SWR, or its digest in an OCI registry."""
    if isinstance(row, str):
        return State(row, is_trusted=False)
    return State(row.fields["digest"], is_trusted=row.fields["is_trusted"])


def _faults(seed: str, registry: str) -> Faults:
    mishaps = [kind for kind in MISHAPS if kind is not Fault.NO_TOTAL]
    lies = OCI_LIES if registry == "oci" else LIES
    rates = {str(kind): MISHAP_RATES[registry] / len(mishaps) for kind in mishaps}
    rates |= {str(kind): LIE_RATE / len(lies) for kind in lies}
    rates |= {Fault.STALE: STALE_RATE, Fault.NO_TOTAL: NO_TOTAL_RATE}
    # tagsync must believe a lie told twice in a row, so each lie waits for an honest listing.
    return Faults(rates, seed=f"{seed} {registry}", latency=0.2, honest=None)
