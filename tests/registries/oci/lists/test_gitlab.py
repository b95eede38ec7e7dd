"""GitLab's list: what is requested, and what each fault of the list leads to."""

from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import GitLab, ListFault, OciEmulator
from tagsync.registries.credentials import BasicCredential
from tagsync.secrets import Secret
from tests.support.lists import REPOSITORY, Open, digests, fill, paths

LIST = f"/gitlab/v1/repositories/{REPOSITORY}/tags/list/"


def test_idle_poll_of_a_thousand_tags(listed: Open) -> None:
    """An idle poll costs the pages of the list and a sample; the list has the names, too."""
    with OciEmulator(GitLab()) as emulator:
        fill(emulator, 1001)
        registry = listed(emulator)
        first = registry.poll()
        assert (digests(first), first.source) == (emulator.tags(REPOSITORY), "gitlab")
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "gitlab")
        assert paths(emulator) == [LIST, LIST]
        assert 11 <= len(emulator.heads()) < 30


def test_detection_costs_two_requests(listed: Open) -> None:
    """The registry is known by its challenge, and its list by the base path, once."""
    with OciEmulator(GitLab()) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        registry.poll()
        assert paths(emulator)[:2] == ["/v2/", "/gitlab/v1/"]
        registry.poll()
        assert paths(emulator) == [LIST]


def test_registry_without_metadata_database_has_no_list(listed: Open) -> None:
    """If the base path of the API answers 404, all tags are resolved by HEAD."""
    with OciEmulator(GitLab(has_database=False)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        registry.poll()
        assert paths(emulator) == [f"/v2/{REPOSITORY}/tags/list"]


def test_list_uses_the_token_of_the_repository(listed: Open) -> None:
    """One token, for the login, is used for the list and for HEAD; the login goes nowhere else."""
    with OciEmulator(GitLab(), users={"reader": "made-up-password"}) as emulator:
        fill(emulator, 5)
        login = BasicCredential("reader", Secret("made-up-password"))
        registry = listed(emulator, credential=login)
        assert registry.poll().source == "gitlab"
        tokens = [r for r in emulator.requests if r.path == "/jwt/auth"]
        assert [r.query["scope"] for r in tokens] == [f"repository:{REPOSITORY}:pull"]
        basic = [r for r in emulator.requests if "Basic" in r.headers.get("Authorization", "")]
        assert basic == tokens


def test_full_last_page_is_followed(listed: Open) -> None:
    """A page of 1,000 rows without Link is not taken for the last one."""

    class WithoutLink(GitLab):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            return answer and answer._replace(headers={})

    with OciEmulator(WithoutLink()) as emulator:
        fill(emulator, 1500)
        assert digests(listed(emulator).poll()) == emulator.tags(REPOSITORY)


def test_shifted_pages_are_read_again_and_then_not_used(listed: Open) -> None:
    """If a name is on two pages in two reads, all tags are resolved by HEAD."""
    with OciEmulator(GitLab(max_page=4)) as emulator:
        fill(emulator, 10)
        emulator.begin(ListFault.SHIFTED)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        pages = [r for r in emulator.requests if r.path == LIST and "Authorization" in r.headers]
        assert len(pages) == 4
        assert sorted(emulator.heads()) == sorted(emulator.tags(REPOSITORY))


@pytest.mark.parametrize("resolved", [True, False])
@pytest.mark.parametrize("fault", [ListFault.CUT, ListFault.EMPTY])
def test_deletion_is_confirmed_by_the_registrys_own_names(
    listed: Open, fault: ListFault, resolved: bool
) -> None:
    """The read that confirms a deletion asks ``tags/list``, so a cut list deletes nothing.

    This is so even if the first read has resolved no tag.
    """
    with OciEmulator(GitLab()) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        first = registry.poll()
        emulator.begin(fault)
        second = registry.poll(confirms=True, seen=first.tags if resolved else {})
        assert second.tags.keys() == first.tags.keys()
        assert paths(emulator) == [f"/v2/{REPOSITORY}/tags/list"]
