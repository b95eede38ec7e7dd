"""Bearer tokens: when they are fetched, shared and renewed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event
from urllib.parse import parse_qs

import httpx
import pytest

from tagsync.errors import (
    Forbidden,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.registries.credentials import (
    NoCredential,
)
from tagsync.registries.oci.auth import MAX_TOKENS, ChallengedAuth, auth_for
from tagsync.registries.oci.shared_login import Login
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.token_server import (
    BASIC,
    ENDPOINT,
    USER,
    Open,
    TokenRegistry,
    refusal,
    registry_of,
)


def test_each_repository_has_a_token(opened: Open, clock: FakeClock) -> None:
    """A token is fetched once for each repository, with its scope."""
    fake = TokenRegistry(clock)
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


def test_cookies_of_a_sign_in_are_ignored(opened: Open, clock: FakeClock) -> None:
    """No request carries a cookie that a challenge, a sign-in or an answer set."""
    fake = TokenRegistry(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        response = fake(request)
        response.headers["Set-Cookie"] = "session=1; Path=/"
        return response

    registry = opened(handler)
    for _ in range(2):
        registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    assert not [request for request in fake.requests if "Cookie" in request.headers]


def test_expiring_token_is_renewed(opened: Open, clock: FakeClock) -> None:
    """A token is renewed shortly before it expires, without a new challenge."""
    fake = TokenRegistry(clock)
    registry = opened(fake)
    registry.list_tags("team/a")
    clock.advance(seconds=280)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    clock.advance(seconds=15)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2
    assert len(fake.requests) == 1 + 2 + 3


def test_default_lifetime_of_a_token(opened: Open, clock: FakeClock) -> None:
    """Without expires_in a token is valid for a minute."""
    fake = TokenRegistry(clock)
    fake.expires_in = None
    registry = opened(fake)
    registry.list_tags("team/a")
    clock.advance(seconds=50)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    clock.advance(seconds=15)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2


def test_refused_token_is_renewed_once(opened: Open, clock: FakeClock) -> None:
    """A refused token is renewed once, at the token server of the new challenge."""
    fake = TokenRegistry(clock)
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


def test_threads_share_one_token(opened: Open, clock: FakeClock) -> None:
    """Threads that were challenged at once fetch one token for a repository."""
    fake = TokenRegistry(clock)
    together = Barrier(8, timeout=10)

    def handler(request: httpx.Request) -> httpx.Response:
        if "Authorization" not in request.headers:
            together.wait()
        return fake(request)

    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: registry.list_tags("team/a"), range(8)))
    assert len(fake.sign_ins) == 1


def test_number_of_tokens_is_bounded(clock: FakeClock) -> None:
    """Tokens are stored for a bounded number of repositories."""
    fake = TokenRegistry(clock)
    auth = auth_for(USER, ENDPOINT, clock)
    with closing(registry_of(fake, auth)) as registry:
        for number in range(MAX_TOKENS + 10):
            registry.list_tags(f"team/r{number}")
    assert len(auth.secrets) <= MAX_TOKENS + 2


def test_anonymous_token(opened: Open, clock: FakeClock) -> None:
    """Without a login, a token is requested anonymously."""
    fake = TokenRegistry(clock)
    opened(fake, NoCredential()).list_tags("team/a")
    assert [request.headers.get("Authorization") for request in fake.sign_ins] == [None]


def test_identity_token_is_sent_in_a_form(clock: FakeClock) -> None:
    """An identity token is sent in an OAuth 2 form, never in a URL."""
    fake = TokenRegistry(clock)
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


def test_wrong_login_is_sent_once(opened: Open, clock: FakeClock) -> None:
    """A wrong password is sent once, however many repositories and threads there are."""
    fake = TokenRegistry(clock)
    fake.answer = httpx.Response(401)
    second = Event()

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if fake.sign_ins[1:]:
            second.set()
        elif fake.sign_ins and request.url.host != "registry.example.com":
            # A slow sign-in, so that other threads arrive while it is under way.
            second.wait(0.2)
        return answer

    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert len(fake.sign_ins) == 1
    clock.advance(minutes=6)
    fake.answer = None
    registry.list_tags("team/r0")


def test_forbidden_repository_does_not_block_others(opened: Open, clock: FakeClock) -> None:
    """A 403 for one repository's token does not concern the others."""
    fake = TokenRegistry(clock)
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
def test_other_answers_are_not_tokens(
    answer: httpx.Response, kind: type[RegistryError], opened: Open, clock: FakeClock
) -> None:
    """Any other answer to a sign-in is an error; redirects are not followed."""
    fake = TokenRegistry(clock)
    fake.answer = answer
    error = refusal(opened(fake))
    assert isinstance(error, kind)
    assert len(fake.sign_ins) == 1
    assert "evil.example.com" not in {request.url.host for request in fake.requests}
