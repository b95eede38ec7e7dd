"""Authentication of OCI requests: passwords, logins and what must not leak."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest

from tagsync.errors import (
    ConfigError,
    Unauthorized,
)
from tagsync.models import Listing
from tagsync.registries.credentials import (
    AgencyCredential,
    BasicCredential,
    NoCredential,
    TokenCredential,
)
from tagsync.registries.oci.auth import ChallengedAuth, auth_for
from tagsync.registries.oci.shared_login import MAX_REFUSALS, Login
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.token_server import (
    BASIC,
    ENDPOINT,
    PASSWORD,
    Handler,
    Open,
    TokenRegistry,
    refusal,
)


def basic(accepted: set[str]) -> tuple[Handler, list[str | None]]:
    """Return a registry that wants a password, and what each request carried."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        # Recorded here, because the same request object is changed and sent again.
        sent.append(request.headers.get("Authorization"))
        if sent[-1] in accepted:
            return httpx.Response(200, json={"tags": []})
        return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    return handler, sent


def test_password_is_sent_after_the_challenge(opened: Open) -> None:
    """The first request is anonymous; all later requests carry the password."""
    handler, sent = basic({BASIC})
    registry = opened(handler)
    registry.list_tags("team/a")
    registry.list_tags("team/b")
    assert sent == [None, BASIC, BASIC]


def test_wrong_password_is_sent_twice(opened: Open) -> None:
    """A wrong password is sent for one repository and to the base path, then not for a while."""
    handler, sent = basic(set())
    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert {type(error) for error in errors} == {Unauthorized}
    assert sent.count(BASIC) == 2


def test_failing_helper_is_not_run_for_each_repository(clock: FakeClock) -> None:
    """A helper that fails runs again only after some minutes."""
    asked: list[datetime] = []

    def logins() -> Login:
        asked.append(clock())
        raise ConfigError("docker-credential-made-up did not answer")

    auth = ChallengedAuth(ENDPOINT, logins, clock)
    client = httpx.Client(transport=httpx.MockTransport(basic(set())[0]), auth=auth)
    for number in range(3):
        with pytest.raises(Unauthorized, match="did not answer"):
            client.get(f"{ENDPOINT}/v2/team/r{number}/tags/list")
    assert len(asked) == 1
    clock.advance(minutes=6)
    with pytest.raises(Unauthorized, match="did not answer"):
        client.get(f"{ENDPOINT}/v2/team/a/tags/list")
    assert len(asked) == 2


def test_login_is_read_again(clock: FakeClock) -> None:
    """A login is used for ten minutes, or until it is refused."""
    passwords = iter(["old", PASSWORD, PASSWORD])
    asked: list[datetime] = []

    def logins() -> Login:
        asked.append(clock())
        return Login("reader", Secret(next(passwords)))

    handler, sent = basic({BASIC})
    auth = ChallengedAuth(ENDPOINT, logins, clock)
    client = httpx.Client(transport=httpx.MockTransport(handler), auth=auth)
    with pytest.raises(Unauthorized):
        client.get(f"{ENDPOINT}/v2/team/a/tags/list")
    clock.advance(minutes=6)
    for minutes, times in ((0, 2), (9, 2), (2, 3)):
        clock.advance(minutes=minutes)
        assert client.get(f"{ENDPOINT}/v2/team/a/tags/list").status_code == 200
        assert len(asked) == times
    assert sent[-1] == BASIC


class Gated:
    """A registry that wants a password, and refuses it for some repositories.

    Attributes:
        base: The response of the base path to the right password, and to an anonymous user.
        sent: The paths to which a password was sent.
    """

    def __init__(self, *closed: str, base: tuple[int, int] = (200, 401)) -> None:
        self.closed = closed
        self.base = base
        self.password = BASIC
        self.sent: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, credential = request.url.path, request.headers.get("Authorization")
        if credential:
            self.sent.append(path)
        if path == "/v2/":
            status = self.base[credential != self.password]
        else:
            is_open = not any(f"/v2/{name}/" in path for name in self.closed)
            status = 200 if is_open and credential == self.password else 401
        headers = {"WWW-Authenticate": 'Basic realm="here"'} if status == 401 else {}
        return httpx.Response(status, json={"tags": []}, headers=headers)


@pytest.mark.parametrize("base", [(200, 401), (200, 200), (404, 404), (401, 401)])
def test_closed_repository_does_not_block_others(base: tuple[int, int], opened: Open) -> None:
    """Once a login was accepted, a refusal concerns only its repository."""
    registry = opened(Gated(*(f"team/r{n}" for n in range(9)), base=base))
    registry.list_tags("team/a")
    for number in range(9):
        assert isinstance(refusal(registry, f"team/r{number}"), Unauthorized)
        registry.list_tags("team/a")


def test_closed_repositories_may_come_first(opened: Open) -> None:
    """If the base path accepts the login, any number of closed repositories may come first."""
    gated = Gated(*(f"team/r{n}" for n in range(9)))
    registry = opened(gated)
    for number in range(9):
        assert isinstance(refusal(registry, f"team/r{number}"), Unauthorized)
    registry.list_tags("team/a")
    assert gated.sent.count("/v2/") == 1


def test_login_is_refused_if_no_response_tells(opened: Open, clock: FakeClock) -> None:
    """If the base path is open to everybody, some refusals in a row stop the login."""
    gated = Gated(*(f"team/r{n}" for n in range(9)), base=(200, 200))
    registry = opened(gated)
    for number in range(9):
        assert isinstance(refusal(registry, f"team/r{number}"), Unauthorized)
    assert len(gated.sent) == MAX_REFUSALS
    assert isinstance(refusal(registry, "team/a"), Unauthorized)
    clock.advance(minutes=6)
    assert isinstance(refusal(registry, "team/r0"), Unauthorized)
    assert len(gated.sent) == MAX_REFUSALS
    registry.list_tags("team/a")


def test_changed_password_is_noticed(opened: Open) -> None:
    """If repositories that were accepted are refused, the login itself is refused."""
    gated = Gated()
    registry = opened(gated)
    for number in range(20):
        registry.list_tags(f"team/r{number}")
    gated.password, gated.sent = "Basic other", []
    for number in range(20):
        assert isinstance(refusal(registry, f"team/r{number}"), Unauthorized)
    assert gated.sent == ["/v2/team/r0/tags/list", "/v2/"]


def tags_for(*credentials: str | None) -> Handler:
    """Return a registry without challenges that shows its tags to these credentials."""

    def handler(request: httpx.Request) -> httpx.Response:
        credential = request.headers.get("Authorization")
        if request.url.path == "/v2/":
            return httpx.Response(200)
        if credential not in (None, BASIC):
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        if "/manifests/" in request.url.path:
            return httpx.Response(200, headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})
        if credential in credentials:
            return httpx.Response(200, json={"tags": ["v1"]})
        return httpx.Response(404, json={"errors": [{"code": "NAME_UNKNOWN"}]})

    return handler


def test_login_is_sent_without_a_challenge(opened: Open) -> None:
    """A registry that is open to everybody gets the login, and may show more to it."""
    listing = opened(tags_for(BASIC)).list_tags("team/private")
    assert isinstance(listing, Listing)
    assert list(listing.tags) == ["v1"]


def test_wrong_password_fails_at_an_open_registry(opened: Open) -> None:
    """A wrong password is an error, also where an anonymous user may read."""
    wrong = BasicCredential("reader", Secret("another-made-up-password"))
    assert isinstance(refusal(opened(tags_for(None, BASIC), wrong)), Unauthorized)
    opened(tags_for(None, BASIC), NoCredential()).list_tags("team/a")


@pytest.mark.parametrize("status", [200, 403, 404])
@pytest.mark.parametrize("where", ["/v2/", "/v2/team/a/tags/list"])
def test_challenge_counts_with_any_status(
    where: str, status: int, opened: Open, clock: FakeClock
) -> None:
    """A challenge asks for the login, whatever the status of its response is."""
    fake = TokenRegistry(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        if "/v2/" not in request.url.path or "Authorization" in request.headers:
            return fake(request)
        challenge = {"WWW-Authenticate": f'Bearer realm="{fake.realm}"'}
        headers = challenge if request.url.path == where else {}
        return httpx.Response(status, json={"tags": []}, headers=headers)

    opened(handler).list_tags("team/a")
    assert [each.url.params["scope"] for each in fake.sign_ins] == ["repository:team/a:pull"]
    assert [each.headers["Authorization"] for each in fake.sign_ins] == [BASIC]


def test_password_replaces_a_token(opened: Open, clock: FakeClock) -> None:
    """If a token does not suffice, the registry may ask for the password."""
    fake = TokenRegistry(clock)
    sent: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        scheme = request.headers.get("Authorization", "").partition(" ")[0]
        if request.url.host != "registry.example.com":
            return fake(request)
        sent.append(scheme)
        if scheme == "Bearer":
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return httpx.Response(200, json={"tags": []}) if scheme == "Basic" else fake(request)

    registry = opened(handler)
    registry.list_tags("team/a")
    registry.list_tags("team/a")
    assert sent == ["", "Bearer", "Basic", "Basic"]


def test_token_replaces_a_password(opened: Open, clock: FakeClock) -> None:
    """Repositories of one registry may want different kinds of login."""
    fake = TokenRegistry(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v2/team/basic/tags/list":
            return fake(request)
        if request.headers.get("Authorization") == BASIC:
            return httpx.Response(200, json={"tags": []})
        return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})

    registry = opened(handler)
    for _ in range(2):
        registry.list_tags("team/basic")
        registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1


def test_ready_token_is_sent_to_the_registry(opened: Open, clock: FakeClock) -> None:
    """A bearer token of the configuration goes to the registry, and to no token server."""
    fake = TokenRegistry(clock)
    fake.issued["made-up-ready-token"] = httpx.QueryParams()
    registry = opened(fake, TokenCredential(Secret("made-up-ready-token")))
    registry.list_tags("team/a")
    assert fake.sign_ins == []
    fake.revoked.add("made-up-ready-token")
    error = refusal(registry)
    assert isinstance(error, Unauthorized)
    assert "made-up-ready-token" not in str(error)


def test_missing_password_has_advice(opened: Open) -> None:
    """If a registry wants a password and none is configured, the error has advice."""
    handler, _ = basic({BASIC})
    assert 'kind = "basic"' in str(refusal(opened(handler, NoCredential())))


def test_body_of_a_challenge_is_not_read(opened: Open) -> None:
    """The body of a 401 response is closed unread before the next request."""
    handler, sent = basic({BASIC})
    read: list[bytes] = []

    def endless() -> Iterator[bytes]:
        while len(read) < 100:
            read.append(b"x")
            yield read[-1]

    def challenging(request: httpx.Request) -> httpx.Response:
        answer = handler(request)
        if answer.status_code != 401:
            return answer
        return httpx.Response(401, headers=answer.headers, content=endless())

    opened(challenging).list_tags("team/a")
    assert sent == [None, BASIC]
    assert read == []


@pytest.mark.parametrize("base", [{}, {"WWW-Authenticate": 'Basic realm="here"'}])
def test_password_is_sent_if_a_challenge_is_missing(opened: Open, base: dict[str, str]) -> None:
    """A 401 response without a challenge, as some proxies send it, is answered with the login."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/":
            return httpx.Response(401, headers=base)
        sent.append(request.headers.get("Authorization"))
        return httpx.Response(200, json={"tags": []}) if sent[-1] else httpx.Response(401)

    opened(handler).list_tags("team/a")
    assert sent == [None, BASIC]


def test_unknown_challenge_is_an_error(opened: Open) -> None:
    """A 401 response without a known challenge is an error that says so."""
    answer = httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"})
    error = refusal(opened(lambda _: answer))
    assert isinstance(error, Unauthorized)
    assert "neither" in str(error)


def test_redirect_gets_no_credentials(opened: Open) -> None:
    """The target of a redirect to another host gets no credentials."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.host == "evil.example.com":
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        if "Authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        return httpx.Response(302, headers={"Location": f"https://evil.example.com/?{BASIC}"})

    assert "https://evil.example.com/ answered 401" in str(refusal(opened(handler)))
    evil = [request for request in requests if request.url.host == "evil.example.com"]
    assert ["Authorization" in request.headers for request in evil] == [False]


def test_repeated_credentials_are_redacted(opened: Open, clock: FakeClock) -> None:
    """An error contains neither the password, its encoded form, nor a token."""
    fake = TokenRegistry(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if answer.status_code == 200 and "tags" in answer.json():
            echo = f"{PASSWORD} {BASIC} {request.headers['Authorization']}"
            body = {"errors": [{"code": echo, "message": echo}]}
            return httpx.Response(403, content=json.dumps(body))
        return answer

    text = str(refusal(opened(handler)))
    assert "made-up-token-0" not in text
    assert "***" in text


def test_credential_for_swr_is_refused() -> None:
    """A credential for SWR is refused before any request."""
    with pytest.raises(ConfigError, match="OCI registry"):
        auth_for(AgencyCredential(), ENDPOINT)


@pytest.mark.parametrize("username", ["", "team:reader", "reader\n"])
def test_invalid_username_is_refused(username: str) -> None:
    """A username that Basic authentication cannot send is refused early."""
    with pytest.raises(ConfigError, match=r"the username .* check it"):
        auth_for(BasicCredential(username, Secret(PASSWORD)), ENDPOINT)
