"""What a front server answers instead of a registry never becomes history."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import product
from typing import Any, Literal

import pytest

from tagsync.database.store import Store
from tagsync.emulator import Emulator, Faults
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.torture.front import Front, Trick
from tests.torture.oci import OciRegistry

Kind = Literal["swr", "oci"]
POSITIONS = 5
"""More than the requests of one poll without retries."""


class World:
    """A registry behind a front server, with two repositories that are polled."""

    def __init__(self, kind: Kind, connect: Callable[..., Registry], stack: ExitStack) -> None:
        self.registry: Emulator | OciRegistry = (
            Emulator() if kind == "swr" else OciRegistry(Faults(), page=10, keeps_states=0)
        )
        self.front = stack.enter_context(Front(self.registry.respond))
        client = connect(self.front.url, kind=kind, retry_for=0.0)
        self.api, self.web = (
            Job(Repository(kind, name), client, timedelta(minutes=5), manifests=True)
            for name in ("team/api", "team/web")
        )


@pytest.fixture(params=["swr", "oci"])
def world(request: pytest.FixtureRequest, connect: Callable[..., Registry]) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(request.param, connect, stack)


@pytest.mark.parametrize("trick", Trick)
def test_trick_never_becomes_history(
    trick: Trick, world: World, store: Store, query: Callable[..., list[Any]]
) -> None:
    """Whichever requests of a poll a front server spoils, only true moves are recorded."""
    pushed = [world.registry.push("team/api", "v1", "first")]
    world.registry.push("team/api", "v2", "two")
    world.registry.push("team/web", "v1", "another")
    for job in (world.web, world.api):
        assert poll(job, store).outcome == "ok"
    assert world.api.registry.list_repositories(["team/*"]) == {"team/api", "team/web"}
    for position, times in product(range(POSITIONS), (1, 2)):
        pushed.append(world.registry.push("team/api", "v1", f"build {position} {times}"))
        world.front.next(trick, times=times, skip=position)
        poll(world.api, store)
        poll(world.web, store)
    world.front.on = False
    assert poll(world.api, store).outcome == "ok"
    changes = query("SELECT tag, kind, old_digest, new_digest FROM changes WHERE id > 3")
    assert {change[:2] for change in changes} == {("v1", "updated")}
    digests = [pushed[0], *(new for _, _, _, new in changes)]
    assert [old for _, _, old, _ in changes] == digests[:-1]
    assert digests == [digest for digest in pushed if digest in digests]
    assert digests[-1] == pushed[-1]
    assert world.front.counts[trick] >= 1
    assert query("SELECT count(*) FROM images WHERE verified = 0") == [(0,)]
