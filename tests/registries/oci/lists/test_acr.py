"""Azure's list: what is requested, with which token, and what each fault of the list leads to."""

from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import Acr, ListFault, OciEmulator
from tagsync.registries.credentials import BasicCredential
from tagsync.registries.oci.lists.acr import AcrList
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, Open, access_at, digests, fill, paths

pytestmark = pytest.mark.processes

LIST = "/acr/v1/team%2Fapi/_tags"
NAMES = f"/v2/{REPOSITORY}/tags/list"


def test_idle_poll_of_a_thousand_tags(listed: Open) -> None:
    """An idle poll costs the pages of the list, the names and a sample, and no token."""
    with OciEmulator(Acr()) as emulator:
        fill(emulator, 1001)
        registry = listed(emulator)
        first = registry.poll()
        assert (digests(first), first.source) == (emulator.tags(REPOSITORY), "acr")
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "acr")
        assert paths(emulator) == [LIST, LIST, NAMES, NAMES]
        assert 11 <= len(emulator.heads()) < 30


@pytest.mark.parametrize("host", ["team.azurecr.io", "team.azurecr.cn", "a-1.azurecr.us"])
def test_hosts_of_azure_are_known(host: str, clock: FakeClock) -> None:
    """Azure's hosts need no request to be known."""
    assert isinstance(AcrList.detect(access_at(f"https://{host}", clock), ""), AcrList)


BEARER = 'Bearer realm="https://{}/oauth2/token",service="registry"'


@pytest.mark.parametrize(
    ("realm", "header", "is_acr"),
    [
        ("registry.example.com", "X-Ms-Correlation-Request-Id", True),
        ("auth.example.com", "X-Ms-Correlation-Request-Id", False),
        ("registry.example.com", "X-Request-Id", False),
    ],
)
def test_registry_at_another_name_is_known_by_its_answer(
    realm: str, header: str, is_acr: bool, clock: FakeClock
) -> None:
    """The token server is at the same name, and each answer has a header of Azure."""
    headers = {"WWW_Authenticate": BEARER.format(realm), header: "1"}
    access = access_at("https://registry.example.com", clock, **headers)
    assert (AcrList.detect(access, REPOSITORY) is not None) == is_acr


@pytest.mark.parametrize("host", ["azurecr.io", "team.azurecr.io.example.com", "teamazurecr.io"])
def test_other_hosts_get_no_request(host: str, clock: FakeClock) -> None:
    """A registry with another name is not Azure's."""
    assert AcrList.detect(access_at(f"https://{host}", clock), REPOSITORY) is None


def test_one_token_for_the_list_and_for_manifests(listed: Open) -> None:
    """The list and HEAD want different permissions, which one token has after the first poll."""
    with OciEmulator(Acr(), users={"reader": "made-up-password"}) as emulator:
        fill(emulator, 5)
        login = BasicCredential("reader", Secret("made-up-password"))
        registry = listed(emulator, credential=login)
        assert registry.poll().source == "acr"
        tokens = [r for r in emulator.requests if r.path == "/oauth2/token"]
        assert [r.query["scope"] for r in tokens] == [
            f"repository:{REPOSITORY}:metadata_read",
            f"repository:{REPOSITORY}:metadata_read,pull",
        ]
        basic = [r for r in emulator.requests if "Basic" in r.headers.get("Authorization", "")]
        assert basic == tokens
        assert registry.poll().source == "acr"
        assert paths(emulator) == [LIST, NAMES]


class AlwaysLinking(Acr):
    """An emulated registry whose empty page has a link, too."""

    def respond(self, request: Request, contents: Any) -> Answer | None:
        """Answer a request for a list."""
        answer = super().respond(request, contents)
        link = f'<{request.path}?last=v00029&n=10&orderby=>; rel="next"'
        return answer and answer._replace(headers={"Link": link, **answer.headers})


def test_full_last_page_is_followed(listed: Open) -> None:
    """A page of 1,000 rows without Link is not taken for the last one."""

    class WithoutLink(Acr):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            return answer and answer._replace(headers={})

    with OciEmulator(WithoutLink()) as emulator:
        fill(emulator, 2000)
        registry = listed(emulator)
        registry.poll()
        assert digests(registry.poll()) == emulator.tags(REPOSITORY)
        assert paths(emulator).count(LIST) == 3
        assert len(emulator.heads()) < 60


@pytest.mark.parametrize("vendor", [Acr, AlwaysLinking])
def test_page_without_tags_ends_the_list(listed: Open, vendor: type[Acr]) -> None:
    """A full last page has a link to a page without ``tags``, which is the end."""
    with OciEmulator(vendor(max_page=10)) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        registry.poll()
        assert registry.poll().source == "acr"
        assert paths(emulator) == [LIST] * 4 + [NAMES]


def test_shifted_pages_are_read_again_and_then_not_used(listed: Open) -> None:
    """If a name is on two pages in two reads, all tags are resolved by HEAD."""
    with OciEmulator(Acr(max_page=4)) as emulator:
        fill(emulator, 10)
        emulator.begin(ListFault.SHIFTED)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        pages = [r for r in emulator.requests if r.path == LIST and "Authorization" in r.headers]
        assert len(pages) == 4


def test_list_of_another_repository_is_not_used(listed: Open) -> None:
    """A list that says that it is of another repository leads to HEAD requests."""
    with OciEmulator(Acr()) as emulator:
        fill(emulator, 5)
        emulator.begin(ListFault.OTHER_NAME)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")


@pytest.mark.parametrize("fault", [ListFault.CUT, ListFault.NO_SIGNATURES, ListFault.EMPTY])
def test_tag_that_the_list_lacks_is_not_deleted(listed: Open, fault: ListFault) -> None:
    """``tags/list`` decides which tags exist, so a list that lacks some deletes none."""
    with OciEmulator(Acr()) as emulator:
        fill(emulator, 30)
        emulator.push(REPOSITORY, f"sha256-{'a' * 64}.sig", "signature")
        registry = listed(emulator)
        registry.poll()
        emulator.begin(fault)
        assert digests(registry.poll()) == emulator.tags(REPOSITORY)
        assert registry.poll().tags.keys() == emulator.tags(REPOSITORY).keys()


def test_replica_that_is_behind_for_minutes_is_trusted(listed: Open, clock: FakeClock) -> None:
    """A list that agrees with HEAD again within ten minutes is only doubted for that tag."""
    with OciEmulator(Acr()) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        registry.poll()
        emulator.begin(ListFault.FROZEN)
        for tag in emulator.tags(REPOSITORY):
            emulator.push(REPOSITORY, tag, f"{tag} again")
        for _ in range(4):
            assert registry.poll().distrust is None
        emulator.end(ListFault.FROZEN)
        assert registry.poll().distrust is None
        clock.advance(minutes=20)
        assert registry.poll().source == "acr"
