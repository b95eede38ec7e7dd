"""What an OCI registry is asked with: challenges, tokens, and where credentials never go."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from threading import Barrier, Event, Lock
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import stamina

from tagsync.clock import Clock
from tagsync.errors import (
    ConfigError,
    Forbidden,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import (
    BasicCredential,
    Credential,
    NoCredential,
    TokenCredential,
)
from tagsync.registries.oci.api import REFUSALS, Oci
from tagsync.registries.oci.auth import MAX_TOKENS, ChallengedAuth, auth_for
from tagsync.registries.oci.challenges import parse_challenges
from tagsync.registries.oci.logins import Login
from tagsync.registries.pacing import Pacer
from tagsync.secrets import Secret
from tests.support.clock import FakeClock

PASSWORD = "made-up-password"
BASIC = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
USER = BasicCredential("reader", Secret(PASSWORD))
ENDPOINT = "https://registry.example.com"
REALM = "https://auth.example.org/token"

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


class Fake:
    """A registry that wants a token, and at another host whoever gives it.

    Attributes:
        realm: where it says that tokens are given.
        issued: every token, with what was asked for.
        good: the tokens that the registry accepts; null for all that were issued.
        answer: replaces what a sign-in is answered.
        expires_in: what the tokens say of themselves.
    """

    def __init__(self, clock: Clock, realm: str = REALM) -> None:
        self.clock = clock
        self.realm = realm
        self.issued: dict[str, httpx.QueryParams] = {}
        self.revoked: set[str] = set()
        self.requests: list[httpx.Request] = []
        self.answer: httpx.Response | None = None
        self.expires_in: int | None = 300
        self._lock = Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            if request.url.host == httpx.URL(self.realm).host and "/v2/" not in request.url.path:
                return self.answer or self._token(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and token in self.issued and token not in self.revoked:
            return httpx.Response(200, json={"tags": []})
        name = request.url.path.removeprefix("/v2/").removesuffix("/tags/list")
        challenge = f'Bearer realm="{self.realm}",service="registry",scope="repository:{name}:pull"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    def _token(self, request: httpx.Request) -> httpx.Response:
        token = f"made-up-token-{len(self.issued)}"
        self.issued[token] = request.url.params
        body: dict[str, Any] = {"token": token}
        if self.expires_in is not None:
            body["expires_in"] = self.expires_in
        return httpx.Response(200, json=body)

    @property
    def sign_ins(self) -> list[httpx.Request]:
        host = httpx.URL(self.realm).host
        return [r for r in self.requests if r.url.host == host and "/v2/" not in r.url.path]


def registry_of(handler: Handler, auth: ChallengedAuth, endpoint: str = ENDPOINT) -> Oci:
    client = Client(
        endpoint,
        auth,
        REFUSALS,
        Limits(),
        secrets=lambda: auth.secrets,
        transport=httpx.MockTransport(handler),
        pacer=Pacer(1e9),
    )
    return Oci(client, 2**20, 4)


@pytest.fixture
def opened(clock: FakeClock) -> Iterator[Callable[..., Oci]]:
    """Opens registries whose time is the test's."""
    registries: list[Oci] = []

    def open_with(handler: Handler, credential: Credential = USER, endpoint: str = ENDPOINT) -> Oci:
        registry = registry_of(handler, auth_for(credential, endpoint, clock), endpoint)
        registries.append(registry)
        return registry

    yield open_with
    for registry in registries:
        registry.close()


Open = Callable[..., Oci]


def refusal(registry: Oci, repository: str = "team/a") -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        registry.list_tags(repository)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    assert BASIC.partition(" ")[2] not in text
    return caught.value


# Tokens.


def test_a_token_for_each_repository(opened: Open, clock: FakeClock) -> None:
    """A token is fetched once for each repository, with its scope, and used until it expires."""
    fake = Fake(clock)
    registry = opened(fake)
    for _ in range(3):
        registry.list_tags("team/a")
        registry.list_tags("team/b/c")
    assert [request.url.params["scope"] for request in fake.sign_ins] == [
        "repository:team/a:pull",
        "repository:team/b/c:pull",
    ]
    assert fake.sign_ins[0].url.params["service"] == "registry"
    assert {request.headers["Authorization"] for request in fake.sign_ins} == {BASIC}
    assert len(fake.requests) == 2 + 2 + 6  # challenged, signed in, answered


def test_no_cookie_of_a_sign_in_is_sent(opened: Open, clock: FakeClock) -> None:
    """What a challenge, a sign-in and an answer set is sent neither with the next nor later."""
    fake = Fake(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        response = fake(request)
        response.headers["Set-Cookie"] = "session=1; Path=/"
        return response

    registry = opened(handler)
    for _ in range(2):
        registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    assert not [request for request in fake.requests if "Cookie" in request.headers]


def test_a_token_is_renewed_when_it_expires(opened: Open, clock: FakeClock) -> None:
    """A token is used until it is about to expire, and the next one needs no challenge."""
    fake = Fake(clock)
    registry = opened(fake)
    registry.list_tags("team/a")
    clock.advance(seconds=280)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    clock.advance(seconds=15)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2
    assert len(fake.requests) == 1 + 2 + 3


def test_a_token_that_does_not_say_when_it_expires(opened: Open, clock: FakeClock) -> None:
    """Without expires_in a token lives for a minute, by the specification."""
    fake = Fake(clock)
    fake.expires_in = None
    registry = opened(fake)
    registry.list_tags("team/a")
    clock.advance(seconds=50)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    clock.advance(seconds=15)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2


def test_a_token_that_is_refused_is_fetched_again_once(opened: Open, clock: FakeClock) -> None:
    """A token that died early is replaced, from where the registry says by then."""
    fake = Fake(clock)
    registry = opened(fake)
    registry.list_tags("team/a")
    fake.revoked = set(fake.issued)
    fake.realm = "https://moved.example.net/token"
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    fake.revoked |= {f"made-up-token-{number}" for number in range(100)}
    error = refusal(registry)
    assert isinstance(error, Unauthorized)
    assert len(fake.sign_ins) == 2


def test_threads_share_a_token(opened: Open, clock: FakeClock) -> None:
    """Many threads at once fetch one token for a repository, though all of them were challenged."""
    fake = Fake(clock)
    together = Barrier(8, timeout=10)

    def handler(request: httpx.Request) -> httpx.Response:
        if "Authorization" not in request.headers:
            together.wait()
        return fake(request)

    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: registry.list_tags("team/a"), range(8)))
    assert len(fake.sign_ins) == 1


def test_tokens_are_not_kept_without_bound(clock: FakeClock) -> None:
    """However many repositories are polled, tokens are kept for a bounded number."""
    fake = Fake(clock)
    auth = auth_for(USER, ENDPOINT, clock)
    with closing(registry_of(fake, auth)) as registry:
        for number in range(MAX_TOKENS + 10):
            registry.list_tags(f"team/r{number}")
    assert len(auth.secrets) <= MAX_TOKENS + 2


def test_nobody_gets_a_token_too(opened: Open, clock: FakeClock) -> None:
    """Without a login the token is asked for without one."""
    fake = Fake(clock)
    opened(fake, NoCredential()).list_tags("team/a")
    assert [request.headers.get("Authorization") for request in fake.sign_ins] == [None]


def test_an_identity_token_is_exchanged(clock: FakeClock) -> None:
    """An identity token, as Docker keeps it, goes into the form of OAuth 2, never into a URL."""
    fake = Fake(clock)
    fake.answer = httpx.Response(200, json={"access_token": "made-up-token-0", "expires_in": 60})
    fake.issued["made-up-token-0"] = httpx.QueryParams()
    identity = Secret("made-up-identity")
    auth = ChallengedAuth(ENDPOINT, lambda: Login(None, identity), clock)
    with closing(registry_of(fake, auth)) as registry:
        registry.list_tags("team/a")
    (sign_in,) = fake.sign_ins
    assert sign_in.method == "POST"
    assert identity.reveal() not in str(sign_in.url)
    form = parse_qs(sign_in.content.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == [identity.reveal()]
    assert form["scope"] == ["repository:team/a:pull"]


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.org/token",
        "http://127.0.0.1:9999/token",
        "http://169.254.169.254/latest",
        "ftp://auth.example.org/token",
        "https://user:x@auth.example.org/token",
        "https:///token",
        "/token",
        "",
        "https://auth.example.org:x/",
    ],
)
@pytest.mark.parametrize("credential", [USER, NoCredential()])
def test_a_realm_where_nothing_is_sent(realm: str, credential: Credential, opened: Open) -> None:
    """What would send credentials in the clear, or to no host at all, is not asked."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("Authorization"))
        return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    assert isinstance(refusal(opened(handler, credential)), MalformedResponse)
    assert sent == [None]


def test_a_realm_on_loopback(opened: Open, clock: FakeClock) -> None:
    """On this machine itself a registry and its tokens may do without TLS."""
    fake = Fake(clock, "http://127.0.0.1:5001/token")
    opened(fake, endpoint="http://127.0.0.1:5000").list_tags("team/a")
    assert len(fake.sign_ins) == 1


def test_wrong_credentials_are_tried_once(opened: Open, clock: FakeClock) -> None:
    """A thousand repositories do not try a password a thousand times, not even many at once."""
    fake = Fake(clock)
    fake.answer = httpx.Response(401)
    second = Event()

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if fake.sign_ins[1:]:
            second.set()
        elif fake.sign_ins and request.url.host != "registry.example.com":
            # As slow as a sign-in may be, so that others come while it is under way.
            second.wait(0.2)
        return answer

    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert len(fake.sign_ins) == 1
    clock.advance(minutes=6)
    fake.answer = None
    registry.list_tags("team/r0")


def test_a_repository_that_is_closed(opened: Open, clock: FakeClock) -> None:
    """A 403 for one repository's token is its own, and says nothing of the others."""
    fake = Fake(clock)
    registry = opened(fake)
    fake.answer = httpx.Response(403)
    assert isinstance(refusal(registry, "team/closed"), Forbidden)
    fake.answer = None
    registry.list_tags("team/a")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(429, headers={"Retry-After": "7"}), Throttled),
        (httpx.Response(302, headers={"Location": "https://evil.example.com/"}), MalformedResponse),
        (httpx.Response(200, content=b"<html>"), MalformedResponse),
        (httpx.Response(200, json={}), MalformedResponse),
        (httpx.Response(200, json={"token": ""}), MalformedResponse),
        (httpx.Response(200, json={"token": "a\r\nX: y"}), MalformedResponse),
        (httpx.Response(200, content=iter([b'{"token":"', b"x" * 100_000])), ResponseTooLarge),
        (httpx.Response(200, content=b'{"x":' * 50_000), MalformedResponse),
    ],
)
def test_answers_without_a_token(
    answer: httpx.Response, kind: type[RegistryError], opened: Open, clock: FakeClock
) -> None:
    """Whatever a sign-in is answered that is no token is an error, and no redirect is followed."""
    fake = Fake(clock)
    fake.answer = answer
    error = refusal(opened(fake))
    assert isinstance(error, kind)
    assert len(fake.sign_ins) == 1
    assert "evil.example.com" not in {request.url.host for request in fake.requests}


# A user and a password.


def basic(accepted: set[str]) -> tuple[Handler, list[str | None]]:
    """A registry that wants a password, and what each request to it carried."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        # A request that is sent again is the same object, so what it carried is noted.
        sent.append(request.headers.get("Authorization"))
        if sent[-1] in accepted:
            return httpx.Response(200, json={"tags": []})
        return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    return handler, sent


def test_a_password_is_sent_when_asked_for(opened: Open) -> None:
    """The first request finds out, and every one after it carries the password."""
    handler, sent = basic({BASIC})
    registry = opened(handler)
    registry.list_tags("team/a")
    registry.list_tags("team/b")
    assert sent == [None, BASIC, BASIC]


def test_a_wrong_password_is_tried_once(opened: Open) -> None:
    """A password that is refused is not sent again for a while, by no thread."""
    handler, sent = basic(set())
    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert {type(error) for error in errors} == {Unauthorized}
    assert sent.count(BASIC) == 1


def test_a_login_that_cannot_be_had(clock: FakeClock) -> None:
    """A credential helper that fails is not asked for each repository, but again after a while."""
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


def test_a_login_is_asked_for_again(clock: FakeClock) -> None:
    """What a helper gives is kept for ten minutes, or until it is refused."""
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


def test_a_password_that_one_repository_refuses(opened: Open) -> None:
    """One refusal after it was accepted does not keep the others out, a second one does."""
    handler, _ = basic({BASIC})
    closed = {"/v2/team/closed/tags/list", "/v2/team/shut/tags/list"}

    def guarded(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401) if request.url.path in closed else handler(request)

    registry = opened(guarded)
    registry.list_tags("team/a")
    assert isinstance(refusal(registry, "team/closed"), Unauthorized)
    registry.list_tags("team/a")
    for name in ("team/closed", "team/shut", "team/a"):
        assert isinstance(refusal(registry, name), Unauthorized)


def test_a_password_that_is_not_there(opened: Open) -> None:
    """A registry that wants a password where none is configured says what to do."""
    handler, _ = basic({BASIC})
    assert 'kind = "basic"' in str(refusal(opened(handler, NoCredential())))


def test_a_challenge_without_end(opened: Open) -> None:
    """Whatever follows a challenge is not read: what answers it is the next request."""
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


def test_a_challenge_that_is_none(opened: Open) -> None:
    """A 401 without a challenge that is understood is told as such."""
    answer = httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"})
    error = refusal(opened(lambda _: answer))
    assert isinstance(error, Unauthorized)
    assert "neither" in str(error)


def test_a_redirect_gets_no_credentials(opened: Open) -> None:
    """A registry that sends on to another host after the password gets nobody there."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if "Authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        return httpx.Response(302, headers={"Location": f"https://evil.example.com/?{BASIC}"})

    assert "never followed" in str(refusal(opened(handler)))
    assert {request.url.host for request in requests} == {"registry.example.com"}


def test_what_is_echoed_is_not_told(opened: Open, clock: FakeClock) -> None:
    """Neither the password, nor the form in which it is sent, nor a token is ever repeated."""
    fake = Fake(clock)

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


# Challenges.


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"'],
            {
                "bearer": {
                    "realm": "https://a/t?x=1,2",
                    "service": "s",
                    "scope": "repository:a/b:pull,push",
                }
            },
        ),
        (
            ["Basic realm=here", 'bearer  Realm = "x" , service=y'],
            {"basic": {"realm": "here"}, "bearer": {"realm": "x", "service": "y"}},
        ),
        (
            ['Bearer realm="x",service="y", Basic realm="z"'],
            {"bearer": {"realm": "x", "service": "y"}, "basic": {"realm": "z"}},
        ),
        (["Negotiate"], {"negotiate": {}}),
        (['realm="x"'], {}),
        ([""], {}),
        ([], {}),
        (['Bearer realm="unclosed'], {"bearer": {"realm": '"unclosed'}}),
        (['Bearer realm="a",realm="b"', 'Bearer realm="c"'], {"bearer": {"realm": "a"}}),
    ],
)
def test_challenges(headers: list[str], expected: dict[str, dict[str, str]]) -> None:
    """Challenges are read in every form that RFC 9110 allows; the first of a scheme counts."""
    assert parse_challenges(headers) == expected


def test_a_credential_of_another_kind() -> None:
    """A credential for SWR is refused before anything is sent."""
    with pytest.raises(ConfigError, match="OCI registry"):
        auth_for(TokenCredential(Secret("x")), ENDPOINT)


@pytest.mark.parametrize("username", ["", "team:reader", "reader\n"])
def test_a_username_that_cannot_be_sent(username: str) -> None:
    """A user's name that the password's part would begin in is refused before anything is sent."""
    with pytest.raises(ConfigError, match=r"the username .* check it"):
        auth_for(BasicCredential(username, Secret(PASSWORD)), ENDPOINT)
