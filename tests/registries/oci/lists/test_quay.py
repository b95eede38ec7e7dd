"""Quay's list: what is requested, and what each fault of the list leads to."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import ListFault, OciEmulator, Quay
from tagsync.errors import Forbidden
from tagsync.models import ListUse
from tagsync.registries.credentials import BasicCredential
from tagsync.registries.oci.lists.namespaces import namespaces_of
from tagsync.registries.oci.lists.quay import QuayList
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, Open, access_at, digests, fill

pytestmark = pytest.mark.processes

LIST = f"/api/v1/repository/{REPOSITORY}/tag/"
TOKEN = "made-up-oauth-token"
ROBOT = BasicCredential("team+robot", Secret("made-up-password"))


def paths(emulator: OciEmulator) -> list[str]:
    """Return the paths of all requests but those for manifests and tokens."""
    return [
        request.path
        for request in emulator.requests
        if "/manifests/" not in request.path and request.path != "/v2/auth"
    ]


def advancing_clock() -> Callable[[], datetime]:
    """Return a clock that is a minute later each time."""
    times = count(datetime(2026, 5, 3, tzinfo=UTC).timestamp(), 60)
    return lambda: datetime.fromtimestamp(next(times), UTC)


def test_idle_poll(listed: Open) -> None:
    """An idle poll costs the pages of the list, those of the names, and a sample."""
    with OciEmulator(Quay()) as emulator:
        fill(emulator, 201)
        registry = listed(emulator)
        first = registry.poll()
        assert (digests(first), first.source) == (emulator.tags(REPOSITORY), "quay")
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "quay")
        names = f"/v2/{REPOSITORY}/tags/list"
        assert paths(emulator) == [LIST] * 3 + [names]
        assert 3 <= len(emulator.heads()) < 15


def test_detection_asks_for_the_description_of_an_error(listed: Open) -> None:
    """The registry is known by its challenge, and its API by one request without a login."""
    with OciEmulator(Quay()) as emulator:
        fill(emulator, 3)
        listed(emulator).poll()
        assert paths(emulator)[:3] == ["/v2/", "/api/v1/error/invalid_token", LIST]


def test_registry_without_the_api_has_no_list(listed: Open) -> None:
    """A registry whose token server has Quay's path, but without the API, is not Quay."""

    class WithoutApi(Quay):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            return None

    with OciEmulator(WithoutApi()) as emulator:
        fill(emulator, 3)
        assert listed(emulator).poll().source == "head"
        assert LIST not in paths(emulator)


def test_quay_itself_is_known_by_its_host(clock: FakeClock) -> None:
    """Quay's own registry needs no request to be known; other hosts get none."""
    found = QuayList.detect(access_at("https://quay.io", clock), REPOSITORY)
    assert isinstance(found, QuayList)
    found.close()
    elsewhere = 'Bearer realm="https://quay.io/v2/auth",service="quay.io"'
    for host in ("quay.io.example.com", "registry.example.com"):
        access = access_at(f"https://{host}", clock, WWW_Authenticate=elsewhere)
        assert QuayList.detect(access, REPOSITORY) is None


def test_list_gets_the_oauth_token_and_nothing_else(listed: Open) -> None:
    """The OAuth token is sent to the API only, and the login for images never to the API."""
    vendor = Quay(token=TOKEN, is_private=True)
    with OciEmulator(vendor, users={ROBOT.username: ROBOT.password.reveal()}) as emulator:
        fill(emulator, 5)
        registry = listed(emulator, credential=ROBOT, list_token=Secret(TOKEN))
        assert registry.poll().source == "quay"
        sent = {(r.path, r.headers.get("Authorization", "")) for r in emulator.requests}
        to_api = {value for path, value in sent if path.startswith("/api/")}
        assert to_api == {"", f"Bearer {TOKEN}"}  # the request of the detection has no login
        assert all(TOKEN not in value for path, value in sent if path.startswith("/v2/"))


def test_public_list_is_read_without_a_login(listed: Open) -> None:
    """Without an OAuth token, the list is read anonymously, although there is a login."""
    vendor = Quay()
    with OciEmulator(vendor, users={ROBOT.username: ROBOT.password.reveal()}) as emulator:
        fill(emulator, 5)
        assert listed(emulator, credential=ROBOT).poll().source == "quay"
        lists = [r for r in emulator.requests if r.path == LIST]
        assert lists
        assert all("Authorization" not in request.headers for request in lists)


def test_private_list_without_a_token_is_not_used(listed: Open) -> None:
    """A robot account reads no private list, so the tags are resolved by HEAD."""
    vendor = Quay(is_private=True)
    with OciEmulator(vendor, users={ROBOT.username: ROBOT.password.reveal()}) as emulator:
        fill(emulator, 5)
        listing = listed(emulator, credential=ROBOT).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")


def test_error_does_not_repeat_the_oauth_token(listed: Open, logged: list[dict[str, Any]]) -> None:
    """A token that the API repeats in a refusal is not in the log."""

    class Echo(Quay):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            sent = request.headers.get("Authorization", "").partition(" ")[2].encode()
            return answer and answer._replace(
                status=403 if sent else answer.status, body=b'{"message": "no ' + sent + b'"}'
            )

    with OciEmulator(Echo(token=TOKEN)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, list_token=Secret(TOKEN))
        assert registry.poll().source == "head"
        reasons = [entry["reason"] for entry in logged if entry["event"] == "list.unused"]
        assert len(reasons) == 1
        assert TOKEN not in reasons[0]
        assert TOKEN in {secret.reveal() for secret in registry.lists.secrets}


def test_tag_with_an_end_in_the_future_exists(listed: Open) -> None:
    """A row with an end in the future counts as one without."""
    with OciEmulator(Quay()) as emulator:
        fill(emulator, 120)
        emulator.begin(ListFault.FUTURE_END)
        registry = listed(emulator)
        registry.poll()
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "quay")
        assert len(emulator.heads()) < 20


def test_rows_that_have_ended_do_not_count(listed: Open, clock: FakeClock) -> None:
    """Rows of earlier images are ignored, also if they are on another page than the tag."""
    with OciEmulator(Quay(), clock=clock) as emulator:
        fill(emulator, 120)
        emulator.begin(ListFault.DEAD_ROWS)
        registry = listed(emulator)
        registry.poll()
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "quay")
        assert len(emulator.heads()) < 20


def test_shifted_pages_are_read_again_and_then_not_used(listed: Open, clock: FakeClock) -> None:
    """If a name is on two pages in two reads, tags are resolved by HEAD for 15 minutes."""
    with OciEmulator(Quay(max_page=4)) as emulator:
        fill(emulator, 10)
        emulator.begin(ListFault.SHIFTED)
        registry = listed(emulator)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")
        assert len([path for path in paths(emulator) if path == LIST]) == 4
        emulator.end(ListFault.SHIFTED)
        assert registry.poll().source == "head"
        clock.advance(minutes=13)
        assert registry.poll().source == "quay"


def test_push_during_the_read_is_noticed(listed: Open) -> None:
    """If a tag is pushed between two pages, the list is read again, and is then right."""

    class Busy(OciEmulator):
        is_pushed = False

        def respond(self, request: Request) -> Answer:
            answer = super().respond(request)
            if request.path == LIST and not self.is_pushed:
                self.is_pushed = True
                self.push(REPOSITORY, "v00000", "another image")
            return answer

    with Busy(Quay(max_page=4), clock=advancing_clock()) as emulator:
        fill(emulator, 10)
        registry = listed(emulator)
        listing = registry.poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "quay")
        pages = [request.query["page"] for request in emulator.requests if request.path == LIST]
        assert pages == ["1", "2", "1", "2", "3"]


def test_list_that_never_ends_is_refused(listed: Open, logged: list[dict[str, Any]]) -> None:
    """An empty page that says that there are more leads to HEAD requests."""

    class Endless(Quay):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            is_list = answer is not None and request.path == LIST
            body = b'{"tags": [], "has_additional": true, "page": 1}'
            return answer._replace(body=body) if answer and is_list else answer

    with OciEmulator(Endless()) as emulator:
        fill(emulator, 3)
        assert listed(emulator).poll().source == "head"
        assert [r for r in paths(emulator) if r == LIST] == [LIST]
        assert "empty page" in logged[0]["reason"]


def test_list_of_a_proxy_is_not_read(listed: Open) -> None:
    """An organization that is a proxy is asked for once, and its lists are not read."""
    with OciEmulator(Quay(token=TOKEN, proxies=["team"])) as emulator:
        fill(emulator, 3)
        fill(emulator, 3, "team/web")
        fill(emulator, 3, "other/api")
        registry = listed(emulator, list_token=Secret(TOKEN))
        assert registry.poll().source == "head"
        assert "/api/v1/organization/team/proxycache" in paths(emulator)
        assert registry.poll("team/web").source == "head"
        assert not [path for path in paths(emulator) if path.startswith("/api/")]
        assert registry.poll("other/api").source == "quay"


@pytest.mark.parametrize("token", [None, TOKEN])
def test_list_that_may_be_of_a_proxy_is_not_used(
    listed: Open, logged: list[dict[str, Any]], token: str | None
) -> None:
    """If the API does not say whether it is a proxy, a list whose tags all expire counts as one."""
    with OciEmulator(Quay(token=token, is_member=False, proxies=["team"])) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, list_token=Secret(token) if token else None)
        assert registry.poll().source == "head"
        assert [r["reason"] for r in logged if r["event"] == "list.unused"] == [
            registry.lists.why_unused(REPOSITORY)
        ]
        assert "proxy" in logged[0]["reason"]


def test_repositories_of_an_organization_are_listed(listed: Open) -> None:
    """A glob below an organization needs no catalogue."""
    with OciEmulator(Quay(token=TOKEN, is_private=True)) as emulator:
        for name in ("team/api", "team/web/front", "other/api"):
            fill(emulator, 1, name)
        registry = listed(emulator, list_token=Secret(TOKEN))
        assert registry.oci.list_repositories(["team/*"]) == {"team/api", "team/web/front"}
        assert "/v2/_catalog" not in paths(emulator)


def test_expired_token_does_not_hide_private_repositories(
    listed: Open, logged: list[dict[str, Any]]
) -> None:
    """Quay then lists public repositories without an error; tagsync does not take these for all."""
    vendor = Quay(token=TOKEN, is_private=True)
    with OciEmulator(vendor, users={ROBOT.username: ROBOT.password.reveal()}) as emulator:
        fill(emulator, 1)
        registry = listed(emulator, credential=ROBOT, list_token=Secret("expired"))
        with pytest.raises(Forbidden, match="name them instead"):
            registry.oci.list_repositories(["team/*"])
        assert "list_token is wrong or has expired" in logged[0]["reason"]


def test_token_is_checked_after_the_repositories_were_listed(listed: Open) -> None:
    """A token that expires while the repositories are listed hides none of them."""

    class Expiring(Quay):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            if "namespace" in request.query:
                self._token = "renewed"
            return answer

    with OciEmulator(Expiring(token=TOKEN, is_private=True)) as emulator:
        fill(emulator, 1)
        fill(emulator, 1, "other/api")
        registry = listed(emulator, list_token=Secret(TOKEN))
        registry.oci.list_repositories(["team/*", "other/*"])
        assert "/v2/_catalog" in paths(emulator)


@pytest.mark.parametrize(
    ("token", "why"),
    [(None, "without list_token"), ("expired", "list_token is wrong or has expired")],
)
def test_reason_for_a_refused_list_names_the_token(
    listed: Open, logged: list[dict[str, Any]], token: str | None, why: str
) -> None:
    """If the API asks for a token, the reason says whether it is missing or not accepted."""
    with OciEmulator(Quay(token=TOKEN, is_private=True)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, list_token=Secret(token) if token else None)
        assert registry.poll().source == "head"
        assert why in logged[0]["reason"]


def test_expired_token_still_reads_a_public_list(listed: Open) -> None:
    """A token that has expired counts as none, so a public list is read as without a token."""
    with OciEmulator(Quay(token=TOKEN)) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, list_token=Secret("expired"))
        assert (registry.poll().source, registry.poll().source) == ("quay", "quay")


@pytest.mark.parametrize("globs", [["*"], ["t*/api"], ["team/*", "busybox"]])
def test_other_globs_use_the_catalogue(listed: Open, globs: list[str]) -> None:
    """A glob that names no organization is expanded by the catalogue: empty for anonymous users."""
    with OciEmulator(Quay()) as emulator:
        fill(emulator, 1)
        assert listed(emulator).oci.list_repositories(globs) == set()
        assert "/v2/_catalog" in paths(emulator)


def test_login_without_an_oauth_token_uses_the_catalogue(listed: Open) -> None:
    """The anonymous list would lack private repositories, and Quay refuses a token for the other.

    So it is an error, and not a set of repositories that lacks some.
    """
    with OciEmulator(Quay(), users={ROBOT.username: ROBOT.password.reveal()}) as emulator:
        fill(emulator, 1)
        registry = listed(emulator, credential=ROBOT)
        with pytest.raises(Forbidden, match="name them instead"):
            registry.oci.list_repositories(["team/*"])


def test_repositories_of_another_organization_are_refused(listed: Open) -> None:
    """A list that ignores the organization is not taken for complete."""

    class Wrong(Quay):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            return answer and answer._replace(body=answer.body.replace(b'"team"', b'"meat"'))

    with OciEmulator(Wrong()) as emulator:
        fill(emulator, 1)
        assert listed(emulator).oci.list_repositories(["team/*"]) == set()
        assert "/v2/_catalog" in paths(emulator)


def test_namespaces_of_globs() -> None:
    """Only globs whose first part is a plain name have a namespace."""
    assert namespaces_of(["team/*", "team/a?", "other/api"]) == ["other", "team"]
    for glob in ("*", "team*", "te?m/api", "[ab]/api", "busybox"):
        assert namespaces_of(["team/*", glob]) is None


def test_use_that_check_shows(listed: Open) -> None:
    """The requests of an idle poll are those of the list, of the names and of the sample."""
    with OciEmulator(Quay(), page=100) as emulator:
        fill(emulator, 150)
        assert listed(emulator).oci.list_use(REPOSITORY) == ListUse("quay", 150, 2 + 2 + 3)
    with OciEmulator(Quay(is_private=True)) as emulator:
        fill(emulator, 3)
        use = listed(emulator).oci.list_use(REPOSITORY)
        assert (use.source, use.idle_requests, use.offered) == ("head", 1 + 3, True)
        assert "401" in str(use.reason)
