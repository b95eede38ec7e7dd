"""Discovery: which watch gets a repository, and what a failure affects."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tagsync.emulator import Emulator
from tagsync.models import Repository, Watch, watch_of
from tagsync.polling.discovery import discover, empty_watches
from tagsync.polling.jobs import Job, Poll
from tagsync.registries import Registry
from tests.support.emulated import create

Connect = Callable[..., Registry]


def test_first_matching_watch_gets_the_repository(swr: Emulator, connect: Connect) -> None:
    """A repository that several watches match is polled once, as the first one says."""
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


def test_failed_discovery_leaves_other_watches(swr: Emulator, connect: Connect) -> None:
    """Each watch is discovered on its own; a failure of one does not affect another."""
    create(swr, "team/api", "tools/lint")
    watches = (Watch("swr", ("team/*",)), Watch("swr", ("tools/*",)))
    swr.answer_next(403, b"", matching="namespace=team")
    found, (failure,) = discover(watches, {"swr": connect(swr.url)})
    assert found == {Repository("swr", "tools/lint")}
    assert failure.repository == Repository("swr", "team/*")
    assert failure.outcome == "failed"


def test_failed_discovery_reports_each_glob(
    connect: Connect,
) -> None:
    """If discovery fails, each glob of the watch is reported as a failed poll."""
    watch = Watch("swr", ("a/*", "b/exact", "c/?"))
    with Emulator() as swr:
        registry = connect(swr.url)
        swr.answer_next(403, {"error_code": "SVCSTG.SWR.4030170"}, times=9)
        found, failures = discover([watch], {"swr": registry})
    assert found == set()
    assert [result.repository.full_name for result in failures] == ["swr/a/*", "swr/c/?"]
    assert {result.outcome for result in failures} == {"failed"}
    assert all("4030170" in (result.detail or "") for result in failures)


def test_watch_is_empty_if_its_globs_match_nothing() -> None:
    """Names, exclusions, other registries, failures and ``allow_empty`` are told apart."""
    empty = Watch("swr", ("team/named", "team/x*"))
    excluded = Watch("swr", ("team/*",), exclude=("team/*",))
    watches = (
        empty,
        excluded,
        Watch("swr", ("team/*",)),
        Watch("swr", ("nothing/named",)),
        Watch("swr", ("silent/*",), allow_empty=True),
        Watch("swr", ("failed/*",)),
    )
    repositories = {Repository("swr", "team/named"), Repository("other", "team/xy")}
    failures = [Poll(Repository("swr", "failed/*"), "failed")]
    assert empty_watches(watches, repositories, failures) == [empty, excluded]


def test_job_knows_whether_its_repository_is_named(connect: Connect, swr: Emulator) -> None:
    """A job's repository counts as discovered if its watch does not name it exactly."""
    watch = Watch("swr", ("team/*", "team/named"))
    registry, now = connect(swr.url), datetime(2026, 7, 1, tzinfo=UTC)
    found = {
        name: Job.of(Repository("swr", name), watch, registry, now).discovered
        for name in ("team/named", "team/found")
    }
    assert found == {"team/named": False, "team/found": True}
