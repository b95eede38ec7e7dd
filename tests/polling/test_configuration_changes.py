"""A change of the configuration is not a change of a tag."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tagsync.config import parse
from tagsync.config.tables import WatchTable
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.models import watch_of
from tagsync.polling.discovery import discover
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.clock import FakeClock
from tests.support.oci import REPOSITORY, Fake, image, registry_of
from tests.support.record import assert_history_is_whole

Query = Callable[..., list[tuple[Any, ...]]]

KEYS = {
    "allow_empty": "true",
    "repositories": '["team/*"]',
    "exclude": '["team/other"]',
    "shared": "true",
    "interval": '"1h"',
    "cron": '"@hourly"',
    "jitter": "0",
    "discovery_interval": '"1h"',
    "tags": '["v*"]',
    "exclude_tags": '["sha256-*"]',
    "immutable": '["v*"]',
    "manifests": "true",
}
"""A value of each key of a watch."""

REGISTRY_KEYS = {"agreeing_listings": "1", "agree_after": "0"}
"""A value of each key of a registry that decides which listings are recorded."""

MORE_REPOSITORIES = f'["{REPOSITORY}", "team/other"]'
SWR_ONLY, OCI_ONLY = {"shared"}, {"tags", "exclude_tags", "manifests"}
RESOLVING = {"tags", "exclude_tags"}


class Registries:
    """An SWR and an OCI registry that have the same two repositories."""

    def __init__(self, swr: Registry, oci: Registry, store: Store, clock: FakeClock) -> None:
        self._registries = {"swr": swr, "oci": oci}
        self._store = store
        self._clock = clock

    def poll(self, kind: str, **keys: str) -> None:
        """Poll all repositories of one watch with these keys, as `sync` does."""
        lines = {"repositories": MORE_REPOSITORIES, **keys}
        own = {key: lines.pop(key) for key in REGISTRY_KEYS if key in lines}
        text = f'[[registries]]\nname = "{kind}"\nkind = "{kind}"\nendpoint = "https://h"\n'
        text += "".join(f"{key} = {value}\n" for key, value in own.items())
        text += "[[registries.watch]]\n"
        text += "".join(f"{key} = {value}\n" for key, value in lines.items())
        watches = parse(text, {}, Path()).watches
        self._clock.advance(minutes=5)
        found, failures = discover(watches, self._registries)
        assert not failures
        for repository in sorted(found | {name for watch in watches for name in watch.named}):
            if watch := watch_of(repository, watches):
                registry = self._registries[repository.registry]
                job = Job.of(repository, watch, registry, self._clock())
                assert poll(job, self._store, clock=self._clock).outcome == "ok"


@pytest.fixture
def registries(
    connect: Callable[..., Registry], store: Store, clock: FakeClock
) -> Iterator[Registries]:
    tags = {name: image(name) for name in ("v1", "v2", "nightly", "sha256-abc.sig")}
    fake = Fake(tags)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/_catalog":
            return httpx.Response(200, json={"repositories": [REPOSITORY, "team/other"]})
        path = request.url.path.replace("/team/other/", f"/{REPOSITORY}/")
        answer = fake(httpx.Request(request.method, request.url.copy_with(path=path)))
        if path.endswith("/tags/list"):
            name = request.url.path.removeprefix("/v2/").removesuffix("/tags/list")
            return httpx.Response(200, json={"name": name, "tags": list(tags)})
        return answer

    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator())
        for repository in (REPOSITORY, "team/other"):
            for name in tags:
                emulator.push(repository, name, name)
        oci = stack.enter_context(closing(registry_of(handler, clock=clock)))
        yield Registries(connect(emulator.url), oci, store, clock)


def test_each_key_has_a_value() -> None:
    """The test below covers every key of a watch."""
    assert set(WatchTable.__struct_fields__) <= KEYS.keys(), "give the new key a value in KEYS"


@pytest.mark.parametrize("kind", ["swr", "oci"])
@pytest.mark.parametrize("key", [*KEYS, *REGISTRY_KEYS])
def test_adding_and_removing_a_key_records_no_change(
    key: str, kind: str, registries: Registries, query: Query, database: Path
) -> None:
    """No key adds, deletes or moves a tag, whether it is added or removed.

    The keys are those of a watch, and those of a registry that decide what is recorded.

    `tags` and `exclude_tags` end and begin the resolution of a tag. Its digest then becomes null,
    and later known again: neither is a move.
    """
    if key in (OCI_ONLY if kind == "swr" else SWR_ONLY):
        pytest.skip("the key is for the other kind of registry")
    value = (KEYS | REGISTRY_KEYS)[key]
    registries.poll(kind)
    baseline = query("SELECT count(*) FROM changes")
    for keys in ({key: value}, {}, {key: value}):
        registries.poll(kind, **keys)
        if key in RESOLVING:
            assert query("SELECT count(*) FROM change_log WHERE kind <> 'added' AND moved") == [
                (0,)
            ]
            assert query("SELECT count(*) FROM changes WHERE kind <> 'updated'") == baseline
        else:
            assert query("SELECT count(*) FROM changes") == baseline
    assert_history_is_whole(database)


def test_excluded_tag_costs_no_request(store: Store, query: Query) -> None:
    """A tag that `exclude_tags` matches is mirrored by name, without a request for its digest."""
    fake = Fake({"v1": image("one"), "sha256-abc.sig": image("signature")})
    with closing(registry_of(fake)) as registry:
        (watch,) = parse(
            '[[registries]]\nname = "r"\nkind = "oci"\nendpoint = "https://h"\n'
            f'[[registries.watch]]\nrepositories = ["{REPOSITORY}"]\n'
            'exclude_tags = ["sha256-*"]\n',
            {},
            Path(),
        ).watches
        (repository,) = watch.named
        poll(
            Job(repository, registry, timedelta(minutes=5), exclude_tags=watch.exclude_tags), store
        )
    heads = [request.url.path for request in fake.requests if "/manifests/" in request.url.path]
    assert heads == [f"/v2/{REPOSITORY}/manifests/v1"]
    assert query("SELECT tag, digest IS NULL FROM tags ORDER BY tag") == [
        ("sha256-abc.sig", 1),
        ("v1", 0),
    ]
