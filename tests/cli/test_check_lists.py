"""The line of ``check`` about the registry's own list, and how ``status`` shows distrust."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import stamina

from tagsync.cli.check_line import Line
from tagsync.cli.check_lists import list_line
from tagsync.cli.status import distrust_blocks
from tagsync.cli.tables import Line as Sentence
from tagsync.cli.tables import Row
from tagsync.emulator.oci import GitLab, Google, Harbor, ListFault, OciEmulator, Zot
from tagsync.models import ListUse, Scope
from tagsync.registries.oci.lists.vendor import LISTS
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, fill
from tests.support.plain_list import Plain, PlainList


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once."""
    with stamina.set_testing(True, attempts=1):
        yield


def test_use_of_each_list(clock: FakeClock) -> None:
    """The requests of an idle poll are those of the list, of the names and of the sample."""
    cases = (
        (GitLab(), ListUse("gitlab", 1001, 2 + 11)),
        (Google(), ListUse("google", 1001, 1 + 11)),
        (Plain(size=200), ListUse("plain", 1001, 6 + 2 + 11)),
    )
    for vendor, expected in cases:
        with OciEmulator(vendor) as emulator:
            fill(emulator, 1001)
            lists = [PlainList] if isinstance(vendor, Plain) else LISTS
            with closing(ListedRegistry(emulator, clock, lists=lists)) as registry:
                assert registry.oci.list_use(REPOSITORY) == expected
                assert emulator.heads() == []


def test_tags_that_the_list_leaves_out_are_counted(clock: FakeClock) -> None:
    """Each tag that the list does not have costs a request, in addition to the sample."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 100)
        for letter in "abc":
            signature = f"sha256-{letter * 64}.sig"
            emulator.push(REPOSITORY, signature, signature)
        with closing(ListedRegistry(emulator, clock)) as registry:
            assert registry.oci.list_use(REPOSITORY) == ListUse("zot", 103, 1 + 1 + 3 + 5)
            assert registry.oci.list_use(REPOSITORY, Scope(("v*",))).idle_requests == 1 + 1 + 5


def test_list_of_a_proxy_needs_no_advice(clock: FakeClock) -> None:
    """A repository whose list nobody may use has a reason, and no list that could be allowed."""
    with OciEmulator(Harbor(proxies=["cache"])) as emulator:
        fill(emulator, 5, "cache/api")
        with closing(ListedRegistry(emulator, clock)) as registry:
            use = registry.oci.list_use("cache/api")
    assert (use.source, use.idle_requests, use.offered) == ("head", 1 + 5, False)
    line = list_line(
        "hub", [Line("repository hub/cache/api", "ok", "", uses={"hub/cache/api": use})]
    )
    assert line is not None
    assert (line.result, line.advice) == ("ok", None)
    assert "'cache' is a proxy of another registry" in line.detail


def test_scope_limits_the_requests(clock: FakeClock) -> None:
    """Tags that no glob selects cost no request."""
    with OciEmulator(GitLab()) as emulator:
        fill(emulator, 30)
        with closing(ListedRegistry(emulator, clock)) as registry:
            use = registry.oci.list_use(REPOSITORY, Scope(("v0000*",)))
            assert use == ListUse("gitlab", 30, 1 + 3)
            emulator.begin(ListFault.REFUSED)
            use = registry.oci.list_use(REPOSITORY, Scope(("v0000*",)))
            assert (use.source, use.tags, use.idle_requests) == ("head", 30, 1 + 10)
            assert use.offered
            assert "403" in str(use.reason)


def test_registry_without_a_list(clock: FakeClock) -> None:
    """A registry without a list, or with an empty one, says why each tag is resolved by HEAD."""
    with OciEmulator() as emulator:
        fill(emulator, 5)
        with closing(ListedRegistry(emulator, clock)) as registry:
            reason = "the registry has no list that tagsync knows"
            assert registry.oci.list_use(REPOSITORY) == ListUse("head", 5, 1 + 5, reason)
    with OciEmulator(Plain()) as emulator:
        fill(emulator, 5)
        emulator.begin(ListFault.EMPTY)
        with closing(ListedRegistry(emulator, clock, lists=[PlainList])) as registry:
            use = registry.oci.list_use(REPOSITORY)
            assert use == ListUse("head", 5, 6, "the list has no rows", offered=True)


def test_line_groups_repositories_by_list() -> None:
    """The line names the repositories of each list, their requests, and why there is none."""
    uses = {f"gl/team/r{number}": ListUse("gitlab", 1000, 11) for number in range(4)}
    good = Line("repository gl/team/r0", "ok", "", uses=uses)
    line = list_line("gl", [good])
    assert line is not None
    assert (line.subject, line.result, line.advice) == ("list of tags of gl", "ok", None)
    assert line.detail == (
        "the list gitlab for gl/team/r0, gl/team/r1, gl/team/r2 and 1 more: 44 requests for an idle"
        " poll of 4,000 tags"
    )
    bad = Line("b", "ok", "", uses={"gl/x": ListUse("head", 1, 2, "it is refused", offered=True)})
    line = list_line("gl", [good, bad])
    assert line is not None
    assert line.result == "warning"
    assert line.advice
    assert line.detail.endswith(
        "; HEAD for gl/x: 2 requests for an idle poll of 1 tag, because it is refused"
    )
    assert list_line("swr", [Line("repository swr/a/b", "ok", "")]) is None


def test_status_shows_a_distrusted_list() -> None:
    """A line has the repository, and the sentence with the tag, digests and times."""
    rows: list[Row] = [
        {"repository": "gl/team/api", "distrust": "HEAD contradicted it"},
        {"repository": "gl/team/web", "distrust": None},
    ]
    assert list(distrust_blocks(rows)) == [
        Sentence("gl/team/api: HEAD contradicted it", "held"),
    ]
