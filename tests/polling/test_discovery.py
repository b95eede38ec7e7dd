"""Discovery: which watch gets a repository that several of them find, and what a failure costs."""

from collections.abc import Callable
from datetime import timedelta

from tagsync.emulator import Emulator
from tagsync.models import Repository, Watch, watch_of
from tagsync.polling.discovery import discover
from tagsync.registries import Registry
from tests.support.emulated import create

Connect = Callable[..., Registry]


def test_the_first_watch_that_matches_has_a_repository(swr: Emulator, connect: Connect) -> None:
    """A repository that several watches find is polled once, as the first of them says."""
    create(swr, "team/api", "team/scratch-1", "tools/lint")
    often = Watch("swr", ("team/api",), interval=timedelta(minutes=1))
    first = Watch("swr", ("team/*",), ("team/scratch-*",), interval=timedelta(minutes=2))
    last = Watch("swr", ("*",), ("tools/*",), interval=timedelta(minutes=3))
    watches = (often, first, last)
    found, failures = discover(watches, {"swr": connect(swr.url)})
    assert not failures
    assert {each.name: watch_of(each, watches) for each in found} == {
        "team/api": often,
        "team/scratch-1": last,
        "tools/lint": None,
    }


def test_one_failed_discovery_leaves_the_others(swr: Emulator, connect: Connect) -> None:
    """Each watch is discovered by itself: one that fails does not cost another what it finds."""
    create(swr, "team/api", "tools/lint")
    watches = (Watch("swr", ("team/*",)), Watch("swr", ("tools/*",)))
    swr.answer_next(403, b"", matching="namespace=team")
    found, (failure,) = discover(watches, {"swr": connect(swr.url)})
    assert found == {Repository("swr", "tools/lint")}
    assert failure.repository == Repository("swr", "team/*")
    assert failure.outcome == "failed"
