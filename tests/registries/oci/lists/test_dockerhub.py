"""Docker Hub's list: what is requested where, and what each fault of the list leads to."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import DockerHub, ListFault, OciEmulator
from tagsync.emulator.oci.server import basic
from tagsync.errors import Unauthorized
from tagsync.models import ListUse
from tagsync.registries.credentials import BasicCredential, TokenCredential
from tagsync.registries.oci.lists.dockerhub import DockerHubList
from tagsync.registries.oci.lists.vendor import MAX_FAILURES
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import (
    REPOSITORY,
    ListedRegistry,
    Open,
    access_at,
    digests,
    fill,
    hub_at,
)

pytestmark = pytest.mark.processes

LIST = "/v2/namespaces/team/repositories/api/tags"
NAMES = f"/v2/{REPOSITORY}/tags/list"
LOGIN = BasicCredential("team", Secret("made-up-password"))
USERS = {LOGIN.username: LOGIN.password.reveal()}


def paths(emulator: OciEmulator) -> list[str]:
    """Return the paths of all requests but those for manifests and the registry's tokens."""
    return [
        request.path
        for request in emulator.requests
        if "/manifests/" not in request.path and request.path != "/token"
    ]


def sent_to_api(emulator: OciEmulator) -> list[Request]:
    """Return the requests to the host of the API."""
    return [r for r in emulator.requests if r.headers["Host"].startswith("localhost")]


def reason(registry: ListedRegistry) -> str:
    """Return why the last poll did not use the list."""
    why = registry.lists.why_unused(REPOSITORY)
    assert why is not None
    return why


class Altered(DockerHub):
    """A Docker Hub whose pages a test alters."""

    def __init__(self, alter: Callable[[dict[str, Any]], object], **settings: Any) -> None:
        super().__init__(**settings)
        self._alter = alter

    def respond(self, request: Request, contents: Any) -> Answer | None:
        answer = super().respond(request, contents)
        if answer is None or answer.status != 200 or not self.list_path(request.path):
            return answer
        page = json.loads(answer.body)
        self._alter(page)
        return answer._replace(body=json.dumps(page).encode())


def test_idle_poll(listed: Open) -> None:
    """An idle poll costs the pages of the list, those of the names, and a sample of 2 %."""
    with OciEmulator(DockerHub(users=USERS), users=USERS) as emulator:
        fill(emulator, 201)
        registry = listed(emulator, credential=LOGIN)
        assert digests(registry.poll()) == emulator.tags(REPOSITORY)
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "dockerhub")
        assert paths(emulator) == [LIST] * 3 + [NAMES]
        assert 5 <= len(emulator.heads()) < 20


@pytest.mark.parametrize("host", ["registry-1.docker.io", "index.docker.io", "docker.io"])
def test_hosts_of_docker_hub_are_known(host: str, clock: FakeClock) -> None:
    """Docker Hub needs no request to be known, and its API has one address."""
    found = DockerHubList.detect(access_at(f"https://{host}", clock), REPOSITORY)
    assert isinstance(found, DockerHubList)
    assert found.api == "https://hub.docker.com"
    found.close()


def test_other_hosts_get_no_request(clock: FakeClock) -> None:
    """A mirror of Docker Hub, or another registry, has another list or none."""
    challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    for host in ("mirror.example.com", "docker.io.example.com"):
        access = access_at(f"https://{host}", clock, WWW_Authenticate=challenge)
        assert DockerHubList.detect(access, REPOSITORY) is None


def test_login_is_exchanged_at_the_api_and_goes_nowhere_else(listed: Open) -> None:
    """The API gets the password once, for a token, and no token of the registry."""
    vendor = DockerHub(users=USERS)
    with OciEmulator(vendor, users=USERS) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=LOGIN)
        registry.poll()
        api = sent_to_api(emulator)
        assert [(r.method, r.path) for r in api] == [("POST", "/v2/auth/token"), ("GET", LIST)]
        body = {"identifier": "team", "secret": "made-up-password"}
        assert json.loads(api[0].body) == body
        assert "Authorization" not in api[0].headers
        (token,) = registry.lists.secrets
        assert api[1].headers["Authorization"] == f"Bearer {token.reveal()}"
        others = [r.headers.get("Authorization", "") for r in emulator.requests if r not in api]
        assert all(token.reveal() not in value for value in others)
        assert basic("team", "made-up-password") in others  # the registry's own token server
        assert registry.poll().source == "dockerhub"
        assert vendor.logins == 1


@pytest.mark.parametrize(("minutes", "logins"), [(8.9, 1), (9.1, 2)])
def test_token_is_renewed_before_it_expires(
    listed: Open, clock: FakeClock, minutes: float, logins: int
) -> None:
    """A token is used for nine minutes of the ten that it is valid."""
    vendor = DockerHub(users=USERS)
    with OciEmulator(vendor, users=USERS) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, credential=LOGIN)
        registry.poll()
        clock.advance(minutes=minutes - 2)  # the next poll is two minutes later
        registry.poll()
        assert vendor.logins == logins


def test_refused_token_is_renewed(listed: Open) -> None:
    """If the API no longer accepts the token, the login is exchanged for another one."""
    vendor = DockerHub(users=USERS)
    with OciEmulator(vendor, users=USERS) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, credential=LOGIN)
        registry.poll()
        vendor.expire_tokens()
        assert registry.poll().source == "dockerhub"
        assert vendor.logins == 2


def test_refused_login_is_not_repeated(listed: Open, logged: list[dict[str, Any]]) -> None:
    """A login that the API refuses is sent once, whatever the number of repositories."""
    vendor = DockerHub(users={"team": "another password"})
    with OciEmulator(vendor, users=USERS) as emulator:
        names = [f"team/r{number}" for number in range(5)]
        for name in names:
            fill(emulator, 2, name)
        registry = listed(emulator, credential=LOGIN)
        for name in names:
            listing = registry.poll(name)
            assert (digests(listing), listing.source) == (emulator.tags(name), "head")
        assert vendor.logins == 1
        assert "access token" in logged[0]["reason"]
        assert "made-up-password" not in str(logged)


def test_token_of_the_registry_is_not_sent_to_the_api(listed: Open) -> None:
    """A login without a user cannot be exchanged, so the API is read anonymously."""
    vendor = DockerHub()
    with OciEmulator(vendor) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, credential=TokenCredential(Secret("made-up-token")))
        with pytest.raises(Unauthorized):
            registry.poll()
        assert [r.headers.get("Authorization") for r in sent_to_api(emulator)] == [None]
        assert vendor.logins == 0


def test_anonymous_user_reads_small_lists(listed: Open, logged: list[dict[str, Any]]) -> None:
    """Without a login, a list is used unless the API refuses a page beyond the first ones."""
    with OciEmulator(DockerHub(max_page=4, anonymous_rows=8)) as emulator:
        fill(emulator, 8)
        fill(emulator, 9, "team/web")
        registry = listed(emulator)
        registry.poll()
        assert registry.poll().source == "dockerhub"
        for _ in range(2):
            listing = registry.poll("team/web")
            assert (digests(listing), listing.source) == (emulator.tags("team/web"), "head")
        assert registry.poll().source == "dockerhub"
        reasons = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(reasons) == 1
        assert "without a login" in reasons[0]


@pytest.mark.parametrize("credential", [LOGIN, None])
def test_refused_list_is_not_used(listed: Open, credential: BasicCredential[Secret] | None) -> None:
    """A login that may pull but not list, or a private repository, leads to HEAD requests."""
    with OciEmulator(DockerHub(users=USERS)) as emulator:
        fill(emulator, 3)
        emulator.begin(ListFault.REFUSED)
        registry = listed(emulator, credential=credential)
        assert registry.poll().source == "head"
        assert "403" in reason(registry)
        assert "first pages" not in reason(registry)


def test_later_page_that_a_login_may_not_read(listed: Open) -> None:
    """The reason does not ask for a login if there is one."""

    class Capped(DockerHub):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            is_later = request.query.get("page", "1") != "1"
            return Answer(403, b"", {}) if is_later else super().respond(request, contents)

    with OciEmulator(Capped(users=USERS, max_page=2)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, credential=LOGIN)
        assert registry.poll().source == "head"
        assert "first pages" not in reason(registry)


def test_login_that_cannot_be_exchanged_now_is_tried_again(listed: Open, clock: FakeClock) -> None:
    """If the API issues no tokens for a while, the list is used again later."""

    class Busy(DockerHub):
        is_busy = True

        def respond(self, request: Request, contents: Any) -> Answer | None:
            is_login = request.path == "/v2/auth/token" and self.is_busy
            return Answer(429, b"", {}) if is_login else super().respond(request, contents)

    vendor = Busy(users=USERS)
    with OciEmulator(vendor) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, credential=LOGIN)
        assert registry.poll().source == "head"
        vendor.is_busy = False
        clock.advance(minutes=15)
        registry.poll()
        assert registry.poll().source == "dockerhub"


def test_total_that_changes_is_noticed(listed: Open) -> None:
    """If a tag is pushed between two pages, the list is read again."""
    totals = iter([9, 10, 10, 10])

    def change(page: dict[str, Any]) -> None:
        page["count"] = next(totals)

    with OciEmulator(Altered(change, max_page=5)) as emulator:
        fill(emulator, 10)
        registry = listed(emulator)
        registry.poll()
        assert registry.lists.why_unused(REPOSITORY) is None
        assert paths(emulator).count(LIST) == 4


def test_every_change_is_confirmed_by_head(listed: Open) -> None:
    """The list itself neither adds a digest nor moves a tag."""
    with OciEmulator(DockerHub()) as emulator:
        fill(emulator, 60)
        registry = listed(emulator)
        registry.poll()
        assert sorted(emulator.heads()) == sorted(emulator.tags(REPOSITORY))
        for tag in ("v00007", "new"):
            emulator.push(REPOSITORY, tag, "another image")
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "dockerhub")
        assert {"v00007", "new"} <= set(emulator.heads())
        assert len(emulator.heads()) < 20


def test_tag_that_the_list_does_not_have_yet_is_asked_for(listed: Open) -> None:
    """A tag that is in the registry but not yet in the list is resolved by HEAD."""
    with OciEmulator(DockerHub()) as emulator:
        fill(emulator, 30)
        registry = listed(emulator)
        registry.poll()
        emulator.begin(ListFault.FROZEN)
        emulator.push(REPOSITORY, "new", "another image")
        for _ in range(3):
            assert digests(registry.poll()) == emulator.tags(REPOSITORY)
            assert "new" in emulator.heads()


def _without_digests(page: dict[str, Any]) -> None:
    for item in page["results"]:
        del item["digest"]


def _with_null_digests(page: dict[str, Any]) -> None:
    for item in page["results"]:
        item["digest"] = None


@pytest.mark.parametrize("alter", [_without_digests, _with_null_digests])
def test_digests_of_platforms_are_never_used(
    listed: Open, alter: Callable[[dict[str, Any]], object]
) -> None:
    """A row without a digest is resolved by HEAD, although its images have digests."""
    with OciEmulator(Altered(alter)) as emulator:
        fill(emulator, 10)
        registry = listed(emulator)
        for _ in range(2):
            assert digests(registry.poll()) == emulator.tags(REPOSITORY)
            assert sorted(emulator.heads()) == sorted(emulator.tags(REPOSITORY))


@pytest.mark.parametrize("fault", [ListFault.SHIFTED, ListFault.SKIPPED])
def test_shifted_pages_are_read_again_and_then_not_used(listed: Open, fault: ListFault) -> None:
    """If rows are repeated or missing in two reads, all tags are resolved by HEAD."""
    with OciEmulator(DockerHub(max_page=4)) as emulator:
        fill(emulator, 10)
        emulator.begin(fault)
        registry = listed(emulator)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        reads = [r.query["page"] for r in emulator.requests if r.path == LIST]
        assert reads.count("1") == 2
        assert sorted(emulator.heads()) == sorted(emulator.tags(REPOSITORY))


def test_order_of_the_rows_does_not_matter(listed: Open) -> None:
    """A list whose times do not descend is read to its end all the same."""
    with OciEmulator(DockerHub(max_page=4)) as emulator:
        fill(emulator, 30)
        emulator.begin(ListFault.UNORDERED)
        registry = listed(emulator)
        registry.poll()
        emulator.push(REPOSITORY, "v00000", "another image")
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "dockerhub")


def test_smaller_pages_are_followed(listed: Open) -> None:
    """The API decides how large a page is."""
    with OciEmulator(DockerHub(max_page=10)) as emulator:
        fill(emulator, 95)
        registry = listed(emulator)
        registry.poll()
        assert registry.poll().source == "dockerhub"
        assert paths(emulator).count(LIST) == 10


@pytest.mark.parametrize("target", ["https://example.com/v2/x?page=2", "http://[", "/v2/x"])
def test_next_page_at_another_host_is_not_followed(listed: Open, target: str) -> None:
    """A next page that is not of the API leads to HEAD requests, and gets no request."""
    with OciEmulator(Altered(lambda page: page.update(next=target))) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert "next page" in reason(registry)
        assert paths(emulator).count(LIST) == 1


def test_list_that_never_ends_is_refused(listed: Open) -> None:
    """An empty page that names a next one is not followed."""

    def endless(page: dict[str, Any]) -> None:
        page.update(results=[], next="?page=2")

    with OciEmulator(Altered(endless)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert paths(emulator).count(LIST) == 1


@pytest.mark.parametrize("field", ["count", "next", "results"])
def test_missing_field_leads_to_head_requests(listed: Open, field: str) -> None:
    """A page without one of the documented fields is no list."""
    with OciEmulator(Altered(lambda page: page.pop(field))) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        assert registry.poll().source == "head"
        assert field in reason(registry)


def test_names_of_one_part_are_official(listed: Open) -> None:
    """A name of one part is below `library`, and a name of three parts has no list."""
    with OciEmulator(DockerHub()) as emulator:
        fill(emulator, 3, "busybox")
        fill(emulator, 3, "team/web/front")
        registry = listed(emulator)
        registry.poll("busybox")
        assert "/v2/namespaces/library/repositories/busybox/tags" in paths(emulator)
        assert registry.poll("team/web/front").source == "head"
        assert sent_to_api(emulator) == []


def test_throttled_list_does_not_slow_the_registry(listed: Open) -> None:
    """The API has a rate of its own: while it pauses, tags are resolved by HEAD at once."""

    class Throttled(DockerHub):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            if answer is None:
                return None
            return Answer(429, b"", {"X-Retry-After": "1900000000"})

    with OciEmulator(Throttled()) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        for _ in range(2):
            listing = registry.poll()
            assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert "429" in reason(registry)


def test_exhausted_rate_pauses_the_list_only(listed: Open) -> None:
    """After the last permitted request the API is left alone until its rate is reset."""

    class Exhausted(DockerHub):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7200"}
            return answer and answer._replace(headers=spent)

    with OciEmulator(Exhausted(max_page=2)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert paths(emulator).count(LIST) == 1
        assert "pause" in reason(registry)


def test_repositories_of_a_namespace_are_listed(listed: Open) -> None:
    """Globs below namespaces are expanded, although Docker Hub has no catalogue."""
    with OciEmulator(DockerHub(users=USERS, max_page=2), users=USERS) as emulator:
        for name in ("team/api", "team/web", "team/db", "library/busybox", "other/api"):
            fill(emulator, 1, name)
        registry = listed(emulator, credential=LOGIN)
        found = registry.oci.list_repositories(["team/*", "library/b*"])
        assert found == {"team/api", "team/web", "team/db", "library/busybox"}
        assert "/v2/_catalog" not in paths(emulator)


@pytest.mark.parametrize("globs", [["*"], ["nobody/*"]])
def test_other_globs_use_the_catalogue(listed: Open, globs: list[str]) -> None:
    """A glob that names no namespace, or an unknown one, is expanded by the catalogue."""
    with OciEmulator(DockerHub()) as emulator:
        fill(emulator, 1)
        listed(emulator).oci.list_repositories(globs)
        assert "/v2/_catalog" in paths(emulator)


def test_unusable_proxy_for_the_api_costs_no_poll(
    listed: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the environment's proxy for the API is no address, tags are resolved by HEAD."""
    with OciEmulator(DockerHub()) as emulator:
        fill(emulator, 3)
        hub = hub_at(emulator.url)
        hub.api = "https://hub.example.com"
        registry = listed(emulator, lists=(hub,))
        monkeypatch.setenv("HTTPS_PROXY", "http://[")
        assert registry.poll().source == "head"
        assert "HTTPS_PROXY" in reason(registry)


def test_lists_that_need_a_login_do_not_pause_the_others(listed: Open) -> None:
    """Without a login, long lists are not read, however many there are, and short ones are."""
    with OciEmulator(DockerHub(anonymous_rows=100)) as emulator:
        registry = listed(emulator)
        for number in range(MAX_FAILURES):
            fill(emulator, 101, f"team/long{number}")
            assert registry.poll(f"team/long{number}").source == "head"
        fill(emulator, 5)
        registry.poll()
        assert registry.poll().source == "dockerhub"


def test_use_that_check_shows(listed: Open) -> None:
    """The requests of an idle poll are those of the list, of the names and of the sample."""
    with OciEmulator(DockerHub(anonymous_rows=200)) as emulator:
        fill(emulator, 200)
        registry = listed(emulator)
        assert registry.oci.list_use(REPOSITORY) == ListUse("dockerhub", 200, 2 + 1 + 4)
        fill(emulator, 201, "team/web")
        use = registry.oci.list_use("team/web")
        assert (use.source, use.idle_requests, use.offered) == ("head", 1 + 201, True)
        assert "without a login" in str(use.reason)
