"""A registry's own list from poll to poll: faults, doubts and distrust."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import unquote

import pytest

from tagsync.clock import timestamp
from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
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
from tagsync.models import Tag
from tagsync.registries.oci.lists.vendor import MAX_FAILURES
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, Open, digests, fill
from tests.support.plain_list import REPOSITORIES, Plain, PlainList

pytestmark = pytest.mark.processes

Events = list[dict[str, Any]]

SIGNATURE = f"sha256-{'a' * 64}.sig"


@pytest.fixture(
    params=[GitLab, Google, Acr, Harbor, Zot, Quay, DockerHub], ids=lambda vendor: vendor.__name__
)
def emulator(request: pytest.FixtureRequest) -> Iterator[OciEmulator]:
    """An emulated registry of each vendor, with 31 tags."""
    with OciEmulator(request.param()) as running:
        fill(running, 30)
        running.push(REPOSITORY, SIGNATURE, "signature")
        yield running


@pytest.fixture
def gitlab() -> Iterator[OciEmulator]:
    """An emulated GitLab with 31 tags, whose list is not the registry's ``tags/list``."""
    with OciEmulator(GitLab()) as running:
        fill(running, 31)
        yield running


def unused(logged: Events) -> list[str]:
    """Return the reasons why a list was not used, as they were logged."""
    return [entry["reason"] for entry in logged if entry["event"] == "list.unused"]


@pytest.mark.parametrize(
    "fault", [ListFault.NULL_DIGEST, ListFault.BAD_DIGEST, ListFault.WRONG_DIGEST]
)
def test_wrong_rows_change_no_digest(listed: Open, emulator: OciEmulator, fault: ListFault) -> None:
    """After a true poll, rows that are wrong never change a recorded digest."""
    registry = listed(emulator)
    registry.poll()
    emulator.begin(fault)
    for _ in range(5):
        assert digests(registry.poll()) == emulator.tags(REPOSITORY)


@pytest.mark.parametrize("fault", [ListFault.NOT_JSON, ListFault.OTHER_JSON, ListFault.UNAVAILABLE])
def test_list_that_cannot_be_read_is_left_alone(
    listed: Open, gitlab: OciEmulator, fault: ListFault, logged: Events
) -> None:
    """Tags are resolved by HEAD, with one log line and one request in all polls."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(fault)
    found = []
    for _ in range(3):
        listing = registry.poll()
        assert (digests(listing), listing.source) == (gitlab.tags(REPOSITORY), "head")
        found += [r.path for r in gitlab.requests if r.path.startswith("/gitlab/")]
    assert len(found) == len(unused(logged)) == 1


@pytest.mark.parametrize("kind", [GitLab, Harbor])
def test_throttled_list_throttles_no_poll(
    listed: Open, kind: type[Vendor], logged: Events, clock: FakeClock
) -> None:
    """A list that may not be read for two hours leads to HEAD requests at once."""

    class Throttling(kind):  # type: ignore[valid-type, misc]  # a base of each vendor
        asked = 0

        def respond(self, request: Request, contents: Any) -> Answer | None:
            if self.list_path(unquote(unquote(request.path))):
                self.asked += 1
                return Answer(429, b"", {"Retry-After": "7200"})
            answer: Answer | None = super().respond(request, contents)
            return answer

    vendor = Throttling()
    with OciEmulator(vendor) as emulator:
        fill(emulator, 5)
        registry = listed(emulator)
        for _ in range(3):
            listing = registry.poll()
            assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
            clock.advance(minutes=30)
        assert vendor.asked == len(unused(logged)) == 1


def test_list_is_tried_again(listed: Open, gitlab: OciEmulator, clock: FakeClock) -> None:
    """A list that was refused is read again a day later."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(ListFault.REFUSED)
    assert registry.poll().source == "head"
    gitlab.end(ListFault.REFUSED)
    clock.advance(hours=23)
    assert registry.poll().source == "head"
    clock.advance(hours=1)
    assert registry.poll().source == "gitlab"


def test_login_that_may_read_no_list_is_noticed(
    listed: Open, gitlab: OciEmulator, logged: Events, clock: FakeClock
) -> None:
    """After a few refused repositories no list is read until the next day, with one line each."""
    names = [f"team/r{number}" for number in range(MAX_FAILURES + 4)]
    for name in names:
        fill(gitlab, 2, name)
    gitlab.begin(ListFault.REFUSED)
    registry = listed(gitlab)
    asked = 0
    for name in names:
        assert registry.poll(name).source == "head"
        lists = (r for r in gitlab.requests if r.path.endswith("/list/"))
        asked += sum("Authorization" in request.headers for request in lists)
    assert asked == len(unused(logged)) == MAX_FAILURES
    gitlab.end(ListFault.REFUSED)
    clock.advance(days=1)
    assert registry.poll(names[-1]).source == "gitlab"


def test_the_list_of_repositories_does_not_rest(listed: Open, clock: FakeClock) -> None:
    """Globs are expanded while the lists of tags rest, and the same list is used afterwards."""
    vendor = Plain(repositories=["team/r0"])
    with OciEmulator(vendor) as emulator:
        emulator.begin(ListFault.REFUSED)
        registry = listed(emulator, lists=(PlainList,))
        for number in range(MAX_FAILURES):
            fill(emulator, 2, f"team/r{number}")
            assert registry.poll(f"team/r{number}").source == "head"
        assert registry.oci.list_repositories(["team/*"]) == {"team/r0"}
        assert [request.path for request in emulator.requests][-1] == REPOSITORIES
        emulator.end(ListFault.REFUSED)
        assert registry.poll("team/r0").source == "head"
        clock.advance(days=1)
        looked_for = [each.path for each in emulator.requests].count("/v2/")
        assert registry.poll("team/r0").source == "plain"
        assert [each.path for each in emulator.requests].count("/v2/") == looked_for


def test_failed_detection_costs_no_poll(listed: Open, clock: FakeClock, logged: Events) -> None:
    """A registry whose list cannot be looked for is polled by HEAD, and looked at again later."""

    class Busy(GitLab):
        is_busy = True

        def respond(self, request: Request, contents: Any) -> Answer | None:
            if request.path == "/gitlab/v1/" and self.is_busy:
                return Answer(503, b"", {})
            return super().respond(request, contents)

    vendor = Busy()
    with OciEmulator(vendor) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        vendor.is_busy = False
        assert registry.poll().source == "head"
        clock.advance(minutes=15)
        assert registry.poll().source == "gitlab"
    (line,) = unused(logged)
    assert "could not be looked for" in line


def test_lists_that_are_down_are_asked_for_ever_more_rarely(
    listed: Open, gitlab: OciEmulator, clock: FakeClock, logged: Events
) -> None:
    """While an API is down, no poll waits for it in vain but a few, and ever fewer."""
    names = [f"team/r{number}" for number in range(MAX_FAILURES + 4)]
    registry = listed(gitlab)
    for name in names:
        fill(gitlab, 2, name)
        assert registry.poll(name).source == "gitlab"

    def asked_within(hours: int) -> int:
        asked = 0
        for _ in range(hours):
            clock.advance(hours=1)
            for name in names:
                assert registry.poll(name).source == "head"
                asked += sum(
                    r.path.endswith("/list/") for r in gitlab.requests if "v2" not in r.path
                )
        return asked

    gitlab.begin(ListFault.UNAVAILABLE)
    assert asked_within(1) == MAX_FAILURES
    asked_within(24)
    assert asked_within(24) <= 2 * MAX_FAILURES
    assert len(unused(logged)) == MAX_FAILURES
    gitlab.end(ListFault.UNAVAILABLE)
    clock.advance(days=1)
    assert [registry.poll(name).source for name in names] == ["gitlab"] * len(names)


def test_first_listing_that_head_contradicts_uses_no_list(
    listed: Open, emulator: OciEmulator, logged: Events
) -> None:
    """If the sample of the first listing is wrong, each tag of it is resolved by HEAD."""
    emulator.begin(ListFault.FROZEN)
    for tag in emulator.tags(REPOSITORY):
        emulator.push(REPOSITORY, tag, f"{tag} again")
    registry = listed(emulator)
    listing = registry.poll()
    assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
    emulator.end(ListFault.FROZEN)
    assert registry.poll().source not in {"head", None}
    assert len(unused(logged)) <= 1


def test_media_type_of_a_list_is_checked(listed: Open) -> None:
    """A media type that is none, such as one with control characters, is not recorded."""

    class Odd(GitLab):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            body = answer.body if answer else b""
            return answer and answer._replace(body=body.replace(b"application/vnd", b"\\u001b[31m"))

    with OciEmulator(Odd()) as emulator:
        fill(emulator, 10)
        listing = listed(emulator).poll()
        assert listing.source == "gitlab"
        found = {image.media_type for image in listing.images.values()}
        assert found == {None, "application/vnd.oci.image.manifest.v1+json"}


@pytest.mark.parametrize("fault", [ListFault.EMPTY])
def test_list_without_rows_is_not_used(
    listed: Open, gitlab: OciEmulator, fault: ListFault, logged: Events
) -> None:
    """An empty list with status 200 is said once, and used again as soon as it has rows."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(fault)
    for _ in range(3):
        listing = registry.poll()
        assert (digests(listing), listing.source) == (gitlab.tags(REPOSITORY), "head")
    assert unused(logged) == ["the list has no rows"]
    gitlab.end(fault)
    assert registry.poll().source == "gitlab"


def test_list_that_lies_is_found_within_a_hundred_polls(
    listed: Open, emulator: OciEmulator
) -> None:
    """A tag that the list does not move is found by the sample, and then the list is not used.

    The other tags that the list did not move are found in the same poll.
    """
    registry = listed(emulator)
    registry.poll()
    emulator.begin(ListFault.FROZEN)
    moved = {tag: emulator.push(REPOSITORY, tag, f"{tag} again") for tag in ("v00007", "v00023")}
    polls = (registry.poll() for _ in range(101))
    listing = next(each for each in polls if each.distrust is not None)
    assert digests(listing) == emulator.tags(REPOSITORY)
    assert listing.source == "head"
    assert listing.distrust is not None
    assert listing.distrust.tag in moved
    assert listing.distrust.head == moved[listing.distrust.tag]
    assert listing.distrust.first_at < listing.distrust.confirmed_at == listing.finished_at
    emulator.end(ListFault.FROZEN)
    again = registry.poll()
    assert (again.source, again.distrust) == ("head", listing.distrust)


def test_list_that_lags_a_moment_is_trusted(listed: Open, emulator: OciEmulator) -> None:
    """A list that is right again before the next poll is only doubted for that tag."""
    registry = listed(emulator)
    registry.poll()
    emulator.begin(ListFault.WRONG_DIGEST)
    assert registry.poll().distrust is None
    emulator.end(ListFault.WRONG_DIGEST)
    for _ in range(3):
        listing = registry.poll()
        assert (listing.source, listing.distrust) != ("head", None)
    assert listing.distrust is None


def test_doubted_tag_is_asked_until_the_list_agrees(listed: Open, gitlab: OciEmulator) -> None:
    """A tag for which HEAD contradicts the list is resolved by HEAD in the next poll, too."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(ListFault.WRONG_DIGEST)
    registry.poll()
    doubted = {tag for tag in gitlab.tags(REPOSITORY) if int(tag[1:]) % 3 == 0}
    gitlab.end(ListFault.WRONG_DIGEST)
    registry.poll()
    assert doubted <= set(gitlab.heads())
    registry.poll()
    assert len(gitlab.heads()) < len(doubted)


def test_scope_limits_what_comes_from_a_list(listed: Open, emulator: OciEmulator) -> None:
    """A tag that no glob selects has no digest, although the list has one."""
    listing = listed(emulator).poll(tags=("v*",), exclude_tags=("v0000*",))
    found = digests(listing)
    assert found.keys() == emulator.tags(REPOSITORY).keys()
    assert {tag for tag, digest in found.items() if digest is None} == {
        SIGNATURE,
        *(f"v0000{number}" for number in range(10)),
    }


def test_poll_without_digests_reads_no_list(listed: Open, gitlab: OciEmulator) -> None:
    """If no tag is to be resolved, only the names are read."""
    registry = listed(gitlab)
    registry.poll(tags=())
    assert [request.path for request in gitlab.requests if request.path != "/jwt/auth"] == [
        f"/v2/{REPOSITORY}/tags/list",
        f"/v2/{REPOSITORY}/tags/list",
    ]


def test_list_larger_than_the_limit_is_not_used(
    listed: Open, gitlab: OciEmulator, logged: Events
) -> None:
    """A list above `max_listing_size` leads to HEAD requests, and takes no bytes from the names."""
    registry = listed(gitlab, bound=4000)
    listing = registry.poll()
    assert (digests(listing), listing.source) == (gitlab.tags(REPOSITORY), "head")
    assert "max_listing_size" in unused(logged)[0]


def test_list_with_too_few_names_is_not_used(
    listed: Open, gitlab: OciEmulator, logged: Events
) -> None:
    """A list of names that lost more than half of the recorded ones gives way to ``tags/list``."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(ListFault.CUT)
    assert len(registry.poll().tags) == 21
    registry.recorded[REPOSITORY] = {f"v{n:05}": Tag(f"v{n:05}") for n in range(43)}
    listing = registry.poll()
    assert (len(listing.tags), listing.source) == (31, "head")
    assert unused(logged) == ["the list has only 21 of 43 names"]


def test_list_with_too_few_of_the_other_names_is_not_used(listed: Open, logged: Events) -> None:
    """A list that has fewer than half of the names of ``tags/list`` is not used."""

    class Short(Plain):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            return answer and json_answer({"total": 10, "rows": json.loads(answer.body)["rows"]})

    with OciEmulator(Short(size=10)) as emulator:
        fill(emulator, 21)
        listing = listed(emulator, lists=[PlainList]).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert unused(logged) == ["the list has only 10 of 21 names"]


def test_distrusted_list_is_not_read(listed: Open, gitlab: OciEmulator) -> None:
    """Polls after the distrust send no request for the list."""
    registry = listed(gitlab)
    registry.poll()
    gitlab.begin(ListFault.FROZEN)
    gitlab.push(REPOSITORY, "v00007", "again")
    assert any(registry.poll().distrust for _ in range(101))
    registry.poll()
    paths = {request.path for request in gitlab.requests if request.method == "GET"}
    assert paths == {"/jwt/auth", f"/v2/{REPOSITORY}/tags/list"}


def test_lists_are_not_given_up_after_a_success(listed: Open, gitlab: OciEmulator) -> None:
    """If one list could be read, refused repositories say nothing about the login."""
    names = [f"team/r{number}" for number in range(MAX_FAILURES + 1)]
    registry = listed(gitlab)
    assert registry.poll().source == "gitlab"
    gitlab.begin(ListFault.REFUSED)
    for name in names:
        fill(gitlab, 2, name)
        assert registry.poll(name).source == "head"
    gitlab.end(ListFault.REFUSED)
    assert registry.poll().source == "gitlab"
    assert registry.poll(names[0]).source == "head"


def test_repositories_without_a_list_are_no_refusals(listed: Open) -> None:
    """Repositories for which the registry offers no list do not end the use of the others'."""
    with OciEmulator(Plain()) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, lists=[PlainList])
        for number in range(MAX_FAILURES + 1):
            fill(emulator, 2, f"proxy/r{number}")
            assert registry.poll(f"proxy/r{number}").source == "head"
        assert registry.poll().source == "plain"


def test_use_of_a_list_is_part_of_the_fingerprint(
    listed: Open, gitlab: OciEmulator, clock: FakeClock
) -> None:
    """Equal tags from a list, from HEAD, and from HEAD after distrust differ in fingerprint."""
    registry = listed(gitlab)
    found = [registry.poll().fingerprint]
    gitlab.begin(ListFault.UNAVAILABLE)
    found.append(registry.poll().fingerprint)
    gitlab.end(ListFault.UNAVAILABLE)
    gitlab.begin(ListFault.FROZEN)
    old = gitlab.tags(REPOSITORY)["v00007"]
    gitlab.push(REPOSITORY, "v00007", "again")
    left = timestamp(clock.now)
    clock.advance(days=1)
    first = registry.poll(left_at=lambda _, digest: left if digest == old else None)
    while first.distrust is None:
        first = registry.poll()
    found.append(first.fingerprint)
    with closing(ListedRegistry(gitlab, clock, lists=[])) as plain:
        found.append(plain.poll().fingerprint)
    assert None not in found
    assert len(set(found)) == 4
