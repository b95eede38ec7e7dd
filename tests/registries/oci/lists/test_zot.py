"""zot's list: what is requested, and what each fault of the list leads to."""

from typing import Any

import pytest

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import ListFault, OciEmulator, Zot
from tagsync.emulator.oci.server import basic
from tagsync.registries.credentials import BasicCredential
from tagsync.registries.oci.lists.vendor import NO_LIST
from tagsync.registries.oci.lists.zot import ZotList
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, Open, access_at, digests, fill, paths

pytestmark = pytest.mark.processes

DISCOVER = "/v2/_oci/ext/discover"
LIST = "/v2/_zot/ext/search"
NAMES = f"/v2/{REPOSITORY}/tags/list"
SIGNATURES = [f"sha256-{'a' * 64}", f"sha256-{'b' * 64}.sig"]


def test_idle_poll_of_a_thousand_tags(listed: Open) -> None:
    """The first poll resolves all tags by HEAD; an idle one costs the list, names and a sample."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 500)
        registry = listed(emulator)
        first = registry.poll()
        assert (digests(first), first.source) == (emulator.tags(REPOSITORY), "zot")
        assert len(emulator.heads()) == 500
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "zot")
        assert paths(emulator) == [LIST, NAMES]
        assert 25 <= len(emulator.heads()) < 60


def test_detection_costs_two_requests(listed: Open) -> None:
    """The registry is known by its headers, and the extension by its list of them, once."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        registry.poll()
        assert paths(emulator)[:2] == ["/v2/", DISCOVER]
        registry.poll()
        assert paths(emulator) == [LIST, NAMES]


def test_registry_without_the_search_extension_has_no_list(listed: Open) -> None:
    """A zot that has only other extensions is polled by HEAD."""
    with OciEmulator(Zot(has_search=False)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert registry.lists.why_unused(REPOSITORY) == NO_LIST
        registry.poll()
        assert paths(emulator) == [NAMES]


@pytest.mark.parametrize("answer", [json_answer({}, status=404), Answer(200, b"<html>", {})])
def test_registry_that_knows_no_extensions_has_no_list(listed: Open, answer: Answer) -> None:
    """A registry that challenges like a zot, but is none, is polled by HEAD."""

    class Other(Zot):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            return answer if request.path == DISCOVER else None

    with OciEmulator(Other(), users={"reader": "made-up-password"}) as emulator:
        fill(emulator, 3)
        login = BasicCredential("reader", Secret("made-up-password"))
        registry = listed(emulator, credential=login)
        assert registry.poll().source == "head"
        assert registry.lists.why_unused(REPOSITORY) == NO_LIST
        registry.poll()
        assert paths(emulator) == [NAMES]


@pytest.mark.parametrize(
    "headers",
    [
        {"WWW_Authenticate": 'Basic realm="x"', "Docker_Distribution_Api_Version": "registry/2.0"},
        {"WWW_Authenticate": 'Bearer realm="https://registry.example.com/token"'},
        {"WWW_Authenticate": 'Bearer realm="https://registry.example.com/token", Basic realm="x"'},
        {},
    ],
)
def test_other_registries_get_no_request(headers: dict[str, str], clock: FakeClock) -> None:
    """A registry that answers ``/v2/`` as no zot does gets no further request."""
    access = access_at("https://registry.example.com", clock, **headers)
    assert ZotList.detect(access, REPOSITORY) is None


def test_password_is_sent_to_the_registry_only(listed: Open) -> None:
    """The list takes the user and the password of the registry."""
    with OciEmulator(Zot(), users={"reader": "made-up-password"}) as emulator:
        fill(emulator, 5)
        login = BasicCredential("reader", Secret("made-up-password"))
        registry = listed(emulator, credential=login)
        registry.poll()
        assert registry.poll().source == "zot"
        assert paths(emulator) == [LIST, NAMES]
        headers = {request.headers.get("Authorization") for request in emulator.requests}
        assert headers == {basic("reader", "made-up-password")}


def test_signatures_are_resolved_by_head(listed: Open) -> None:
    """The list leaves out tags of signatures, which keep their digests."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 30)
        for tag in SIGNATURES:
            emulator.push(REPOSITORY, tag, tag)
        registry = listed(emulator)
        registry.poll()
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "zot")
        assert set(SIGNATURES) <= set(emulator.heads())
        assert len(emulator.heads()) < 15


def test_new_tag_is_resolved_by_head(listed: Open) -> None:
    """The list has another store than HEAD, so a tag that is not recorded is resolved."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        registry.poll()
        emulator.push(REPOSITORY, "new", "new")
        assert digests(registry.poll()) == emulator.tags(REPOSITORY)
        assert "new" in emulator.heads()


def test_stale_second_store_is_found_within_twenty_polls(listed: Open) -> None:
    """A tag that moved in the storage only is found by the sample, and the list then not used."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 200)
        registry = listed(emulator)
        registry.poll()
        emulator.begin(ListFault.FROZEN)
        emulator.push(REPOSITORY, "v00123", "again")
        moved = emulator.tags(REPOSITORY)
        polls = [registry.poll() for _ in range(21)]
        assert digests(polls[19]) == moved
        assert polls[20].distrust is not None
        assert polls[20].distrust.tag == "v00123"


@pytest.mark.parametrize("status", [200, 422])
def test_error_beside_a_list_is_not_a_list(
    listed: Open, status: int, logged: list[dict[str, Any]]
) -> None:
    """GraphQL answers an error with status 200; its list is then not used, and said once."""

    class Failing(Zot):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            if request.path != LIST:
                return super().respond(request, contents)
            content = {"errors": [{"message": "no"}], "data": {"ImageList": {"Results": []}}}
            return json_answer(content, status=status)

    with OciEmulator(Failing()) as emulator:
        fill(emulator, 5)
        registry = listed(emulator)
        for _ in range(3):
            listing = registry.poll()
            assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        reasons = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(reasons) == 1
        assert reasons[0] != "the list has no rows"


@pytest.mark.parametrize("fault", [ListFault.OTHER_NAME, ListFault.OTHER_JSON, ListFault.EMPTY])
def test_list_that_is_not_usable(listed: Open, fault: ListFault) -> None:
    """Another repository's list, another JSON and an empty list lead to HEAD requests."""
    with OciEmulator(Zot()) as emulator:
        fill(emulator, 5)
        registry = listed(emulator)
        registry.poll()
        emulator.begin(fault)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
