"""Two emulated registries that change at random, and a journal of their contents.

``paged`` sends totals, signs users in, and is watched by globs. ``bare`` sends no total, requires
signed requests, and is watched by names. With paging, ``bare`` deletes its oldest tag only, as a
clean-up job does. If a row before the end of a page were deleted between two requests, another tag
would be missing from the listing and no total would contradict it. The lie ``shifted`` does
exactly that, once at a time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import httpx

from tagsync.emulator import LIES, MISHAPS, Emulator, Faults, Keys, User
from tests.torture.truth import Journal, State

MISHAP_RATE: Final = 0.25
LIE_RATE: Final = 0.3
"""The rates of mishaps per request, and of lies per page of a tag list."""

PAGE: Final = 10

SECRETS: Final = {
    "TORTURE_PASSWORD": "made-up-password-of-the-torture",
    "TORTURE_ACCESS_KEY": "MADEUPACCESSKEY00001",
    "TORTURE_SECRET_KEY": "made-up-secret-key-of-the-torture",
}
"""The secrets of tagsync, by environment variable."""

_TOKEN: Final = "made-up-token-of-the-journal"

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

SIZES: Final = {"paged": (3, 11, 24, 40), "bare": (3, 11, 14, 31)}
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
"""

_LIMITS: Final = """\
timeout = "400ms"
retry_for = "1500ms"
concurrency = 4
requests_per_second = 500
agree_after = 0
"""


class TwoRegistries:
    """Both registries, their faults, and all operations on them."""

    def __init__(self, seed: str) -> None:
        self.journal = Journal(lambda: datetime.now(UTC))
        self._random = Random(f"{seed} operations")
        self.faults = {name: _faults(f"{seed} {name}") for name in SIZES}
        user = User(SECRETS["TORTURE_PASSWORD"], domain="account", project="eu-de")
        ignores_paging = self._random.random() < 0.3
        self.emulators = {
            "paged": Emulator(
                token=_TOKEN,
                users={"tester": user},
                token_lifetime=timedelta(seconds=3),
                max_page=PAGE,
                faults=self.faults["paged"],
            ),
            "bare": Emulator(
                token=_TOKEN,
                keys={SECRETS["TORTURE_ACCESS_KEY"]: Keys(SECRETS["TORTURE_SECRET_KEY"])},
                max_page=PAGE,
                sends_total=False,
                ignores_paging=ignores_paging,
                faults=self.faults["bare"],
            ),
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

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve both registries in this block."""
        with ExitStack() as stack:
            for emulator in self.emulators.values():
                stack.enter_context(emulator)
            yield

    def config(self) -> str:
        """Return the configuration that watches both."""
        names = ", ".join(
            f'"{name.partition("/")[2]}"' for name in self.repositories if name.startswith("bare")
        )
        urls = {name: emulator.url for name, emulator in self.emulators.items()}
        return CONFIG.format(**urls, limits=_LIMITS, names=names)

    def answers(self, repository: str) -> list[dict[str, Any]]:
        """Return the rows of a repository, as its registry sends them."""
        emulator, name = self._at(repository)
        namespace, _, rest = name.partition("/")
        path = f"{emulator.url}/v2/manage/namespaces/{namespace}/repos/{rest}/tags"
        rows: list[dict[str, Any]] = []
        with httpx.Client(headers={"X-Auth-Token": _TOKEN}, trust_env=False, timeout=30) as client:
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
        tag = self._any(repository)
        was = self._tags[repository][tag]
        state = was._replace(is_trusted=not was.is_trusted)

        def operation() -> State:
            emulator, name = self._at(repository)
            emulator.set_fields(name, tag, is_trusted=state.is_trusted)
            return state

        self.journal.during(operation, (repository, tag))
        self._tags[repository][tag] = state

    def _delete(self, repository: str) -> None:
        oldest = next(iter(self._tags[repository]))
        self._remove(repository, oldest if repository.startswith("bare") else self._any(repository))

    def _empty(self, repository: str) -> None:
        for tag in list(self._tags[repository]):
            self._remove(repository, tag)

    def _drop(self, repository: str) -> None:
        """Delete the repository itself."""
        tags = self._tags.pop(repository)

        def operation() -> None:
            emulator, name = self._at(repository)
            emulator.delete_repository(name)

        self.journal.during(operation, *((repository, tag) for tag in tags))

    def _remove(self, repository: str, tag: str) -> None:
        def operation() -> None:
            emulator, name = self._at(repository)
            emulator.delete(name, tag)

        self.journal.during(operation, (repository, tag))
        del self._tags[repository][tag]

    def _put(self, repository: str, tag: str, content: int) -> None:
        tags = self._tags.setdefault(repository, {})
        self._pushes += 1
        # Not the current time, so that the order of the rows follows from the seed.
        updated = (_EPOCH + timedelta(seconds=self._pushes)).strftime("%Y-%m-%dT%H:%M:%SZ")

        def operation() -> State:
            emulator, name = self._at(repository)
            digest = emulator.push(name, tag, f"build {content}", updated=updated)
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

    def _at(self, repository: str) -> tuple[Emulator, str]:
        """Return the emulator of a repository, and the name of the repository there."""
        registry, _, name = repository.partition("/")
        return self.emulators[registry], name


def _faults(seed: str) -> Faults:
    rates = {str(kind): MISHAP_RATE / len(MISHAPS) for kind in MISHAPS}
    rates |= {str(kind): LIE_RATE / len(LIES) for kind in LIES}
    # tagsync must believe a lie told twice in a row, so each lie waits for an honest listing.
    return Faults(rates, seed=seed, latency=0.2, honest=None)
