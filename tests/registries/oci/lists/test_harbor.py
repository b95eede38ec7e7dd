"""Harbor's list: what is requested, with which login, and what each fault leads to."""

from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import Harbor, ListFault, OciEmulator
from tagsync.emulator.oci.server import basic
from tagsync.errors import RegistryError
from tagsync.registries.credentials import BasicCredential, TokenCredential
from tagsync.registries.oci.lists.harbor import HarborList
from tagsync.registries.oci.lists.vendor import NO_LIST
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, Open, access_at, digests, fill

pytestmark = pytest.mark.processes

API = "/api/v2.0"
PROJECTS = f"{API}/projects"
LIST = f"{API}/projects/team/repositories/api/artifacts"
NAMES = f"/v2/{REPOSITORY}/tags/list"

PASSWORD = "made-up-password"
ROBOT = "robot$team+tagsync"
LOGIN = BasicCredential(ROBOT, Secret(PASSWORD))
SIGNATURE = f"sha256-{'a' * 64}.sig"


def paths(emulator: OciEmulator) -> list[str]:
    """Return the paths of all requests but those for manifests and tokens."""
    kept = (request.path for request in emulator.requests)
    return [path for path in kept if "/manifests/" not in path and path != "/service/token"]


def test_idle_poll_costs_pages_of_a_hundred_images(listed: Open) -> None:
    """An idle poll costs a look at the project, the pages, the names and a sample."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 300)
        for number in range(200):
            emulator.push(REPOSITORY, f"w{number:05}", f"image {number}")  # no image of their own
        registry = listed(emulator)
        first = registry.poll()
        assert (digests(first), first.source) == (emulator.tags(REPOSITORY), "harbor")
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "harbor")
        assert paths(emulator) == [PROJECTS, LIST, LIST, LIST, NAMES]
        assert 5 <= len(emulator.heads()) < 15


def test_detection_costs_two_requests(listed: Open) -> None:
    """The registry is known by its challenge, and its API by its version, once."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        registry.poll()
        assert paths(emulator)[:2] == ["/v2/", "/api/version"]
        registry.poll()
        assert paths(emulator) == [PROJECTS, LIST, NAMES]


def test_registry_that_imitates_harbor_has_no_list(listed: Open) -> None:
    """A registry with Harbor's challenge but without its API is polled by HEAD."""
    with OciEmulator(Harbor(has_api=False)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert registry.lists.why_unused(REPOSITORY) == NO_LIST
        registry.poll()
        assert paths(emulator) == [NAMES]


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"x":' + b"[" * 20_000, b"\xff"])
def test_registry_that_answers_otherwise_has_no_list(listed: Open, body: bytes) -> None:
    """An answer that is not Harbor's version, however it looks, means another registry."""

    class Other(Harbor):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            if request.path == "/api/version":
                return Answer(200, body, {})
            return super().respond(request, contents)

    with OciEmulator(Other()) as emulator:
        fill(emulator, 1)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert registry.lists.why_unused(REPOSITORY) == NO_LIST


CHALLENGE = 'Bearer realm="https://{}",service="{}"'


@pytest.mark.parametrize(
    ("realm", "service"),
    [
        ("registry.example.com/service/token", "registry"),
        ("registry.example.com/token", "harbor-registry"),
        ("auth.example.com/service/token", "harbor-registry"),
    ],
)
def test_other_registries_get_no_request(realm: str, service: str, clock: FakeClock) -> None:
    """Only a registry with Harbor's challenge, for a token server at its own host, is asked."""
    headers = {"WWW_Authenticate": CHALLENGE.format(realm, service)}
    access = access_at("https://registry.example.com", clock, **headers)
    assert HarborList.detect(access, REPOSITORY) is None


@pytest.mark.parametrize("repository", ["team/web/front-end/api", "team/a.b_c"])
def test_slash_in_a_name_is_escaped_twice(listed: Open, repository: str) -> None:
    """A repository whose name has several parts is read like the others."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 30, repository)
        registry = listed(emulator)
        registry.poll(repository)
        listing = registry.poll(repository)
        assert (digests(listing), listing.source) == (emulator.tags(repository), "harbor")
        assert len(emulator.heads()) < 10


def test_signatures_are_resolved_by_head(listed: Open) -> None:
    """The list leaves out tags of signatures, which keep their digests."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 30)
        emulator.push(REPOSITORY, SIGNATURE, "signature")
        registry = listed(emulator)
        registry.poll()
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "harbor")
        assert SIGNATURE in emulator.heads()


def test_password_is_sent_to_the_api_and_the_token_server_only(listed: Open) -> None:
    """The API gets the user and the password, and ``/v2/`` a token."""
    with OciEmulator(Harbor(), users={ROBOT: PASSWORD}) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=LOGIN)
        registry.poll()
        sent = {(r.path, r.headers.get("Authorization", "")) for r in emulator.requests}
        login = basic(ROBOT, PASSWORD)
        assert {path for path, header in sent if header == login} == {
            PROJECTS,
            LIST,
            "/service/token",
        }
        assert ("/api/version", "") in sent
        assert registry.poll().source == "harbor"


@pytest.mark.parametrize("credential", [TokenCredential(Secret("made-up-token")), None])
def test_token_is_not_sent_to_the_api(
    listed: Open, credential: TokenCredential[Secret] | None
) -> None:
    """Without a user and a password, the API gets anonymous requests."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=credential)
        try:
            registry.poll()
        except RegistryError:
            assert credential is not None  # the registry itself does not take the token either
        api = [r for r in emulator.requests if r.path.startswith("/api/")]
        assert {request.path for request in api} == {"/api/version", PROJECTS, LIST}
        assert not [request for request in api if "Authorization" in request.headers]


def test_project_that_the_login_may_not_see(listed: Open, logged: list[dict[str, Any]]) -> None:
    """A wrong password finds no project, so the empty list is not read, and this is said once."""
    with OciEmulator(Harbor(), users={ROBOT: PASSWORD}) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=BasicCredential(ROBOT, Secret("another-made-up")))
        for _ in range(2):
            with pytest.raises(RegistryError):
                registry.poll()
        assert LIST not in [request.path for request in emulator.requests]
        unused = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(unused) == 1
        assert "does not show the project 'team'" in unused[0]


def test_proxy_project_is_resolved_by_head(listed: Open, logged: list[dict[str, Any]]) -> None:
    """The list of a project that is a proxy is never read; the others of the registry are."""
    with OciEmulator(Harbor(proxies=["cache"])) as emulator:
        registry = listed(emulator)
        for name in [*(f"cache/r{number}" for number in range(5)), REPOSITORY]:
            fill(emulator, 5, name)
            listing = registry.poll(name)
            assert digests(listing) == emulator.tags(name)
            assert listing.source == ("harbor" if name == REPOSITORY else "head")
            assert not [path for path in paths(emulator) if "cache/repositories" in path]
        reasons = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(reasons) == 5
        assert all("is a proxy of another registry" in reason for reason in reasons)


def test_login_that_may_only_pull(listed: Open, logged: list[dict[str, Any]]) -> None:
    """Without the permission to list images, tags are resolved by HEAD, and globs still work."""
    with OciEmulator(Harbor(may_list=False), users={ROBOT: PASSWORD}) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=LOGIN)
        assert registry.oci.list_repositories(["team/*"]) == {REPOSITORY}
        for _ in range(2):
            listing = registry.poll()
            assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert paths(emulator) == [NAMES]
        unused = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(unused) == 1
        assert "403 (FORBIDDEN" in unused[0]


def test_shifted_pages_are_read_again_and_then_not_used(listed: Open) -> None:
    """If a name is on two pages in two reads, all tags are resolved by HEAD."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 120)
        emulator.begin(ListFault.SHIFTED)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert paths(emulator).count(LIST) == 4


def test_total_that_changes_between_pages_is_noticed(listed: Open) -> None:
    """An image that is deleted between two pages shifts a row to a page that was read."""

    class Deleting(Harbor):
        total = 120

        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            if answer is None or request.path != LIST:
                return answer
            self.total -= 1
            return answer._replace(headers={"X-Total-Count": str(self.total)})

    with OciEmulator(Deleting()) as emulator:
        fill(emulator, 120)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert paths(emulator).count(LIST) == 4


def test_list_without_a_total_ends_with_a_short_page(listed: Open) -> None:
    """If a proxy removed the total, pages are read up to one that is not full."""

    class WithoutTotal(Harbor):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            return answer and answer._replace(headers={})

    with OciEmulator(WithoutTotal()) as emulator:
        fill(emulator, 200)
        registry = listed(emulator)
        registry.poll()
        assert registry.poll().source == "harbor"
        assert paths(emulator).count(LIST) == 3
        assert len(emulator.heads()) < 10


@pytest.mark.parametrize("fault", [ListFault.EMPTY, ListFault.CUT, ListFault.NULL_DIGEST])
def test_tag_that_the_list_lacks_is_not_deleted(listed: Open, fault: ListFault) -> None:
    """``tags/list`` decides which tags exist, so a list that lacks some deletes none."""
    with OciEmulator(Harbor()) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        registry.poll()
        emulator.begin(fault)
        for _ in range(2):
            assert digests(registry.poll()) == emulator.tags(REPOSITORY)


class TestRepositories:
    """The list of repositories, where the catalogue is closed."""

    def test_globs_find_repositories(self, listed: Open) -> None:
        """A glob is read from Harbor's API, by its beginning if it has one."""
        with OciEmulator(Harbor(), users={ROBOT: PASSWORD}) as emulator:
            names = {f"team/r{number:03}" for number in range(150)} | {"team/a/b", "other/c"}
            for name in names:
                fill(emulator, 1, name)
            registry = listed(emulator, credential=LOGIN)
            assert registry.oci.list_repositories(["*"]) == names
            assert paths(emulator).count(f"{API}/repositories") == 2
            emulator.clear_requests()
            assert registry.oci.list_repositories(["team/a*", "other/*"]) == {
                "team/a/b",
                "other/c",
            }
            asked = [r.query["q"] for r in emulator.requests if r.path == f"{API}/repositories"]
            assert sorted(asked) == ["name=~other/", "name=~team/a"]
            assert "/v2/_catalog" not in paths(emulator)
            emulator.clear_requests()
            assert registry.oci.list_repositories(["*/c", "team/*"]) == names
            assert paths(emulator).count(f"{API}/repositories") == 2  # all, and not twice

    def test_wrong_password_is_an_error(self, listed: Open) -> None:
        """A wrong password, which Harbor treats as anonymous, does not look like no repository."""
        with OciEmulator(Harbor(), users={ROBOT: PASSWORD}) as emulator:
            fill(emulator, 1)
            wrong = BasicCredential(ROBOT, Secret("another-made-up"))
            registry = listed(emulator, credential=wrong)
            with pytest.raises(RegistryError):
                registry.oci.list_repositories(["*"])

    def test_anonymous_user_sees_public_repositories(self, listed: Open) -> None:
        """Without a login, the list has what is public, and no login is checked."""
        with OciEmulator(Harbor()) as emulator:
            fill(emulator, 1)
            assert listed(emulator).oci.list_repositories(["team/*"]) == {REPOSITORY}
            assert f"{API}/systeminfo" not in paths(emulator)
