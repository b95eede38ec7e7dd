"""Bearer tokens: when they are fetched, shared and renewed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event
from urllib.parse import parse_qs

import httpx
import pytest
import stamina

from tagsync.errors import (
    Forbidden,
    MalformedResponse,
    NewTokenRefused,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.models import Listing
from tagsync.registries.credentials import (
    NoCredential,
)
from tagsync.registries.oci.auth import MAX_TOKENS, ChallengedAuth, auth_for
from tagsync.registries.oci.shared_login import MAX_REFUSALS, Login
from tagsync.registries.oci.tokens import MAX_USELESS_WAITS
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


def test_sign_in_asks_for_no_compression(opened: Open, clock: FakeClock) -> None:
    """The answer to a sign-in is not decompressed, so the request accepts no encoding."""
    fake = TokenRegistry(clock)
    opened(fake).list_tags("team/a")
    assert [request.headers["Accept-Encoding"] for request in fake.sign_ins] == ["identity"]


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


def test_wrong_login_is_sent_a_few_times(opened: Open, clock: FakeClock) -> None:
    """A wrong password is sent four times, however many repositories and threads there are."""
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
    assert len(fake.sign_ins) == MAX_REFUSALS
    clock.advance(minutes=6)
    assert isinstance(refusal(registry, "team/r31"), Unauthorized)
    assert isinstance(refusal(registry, "team/r30"), Unauthorized)
    assert len(fake.sign_ins) == MAX_REFUSALS + 1
    clock.advance(minutes=6)
    fake.answer = None
    registry.list_tags("team/r29")
    clock.advance(minutes=6)
    registry.list_tags("team/r0")


class ClosedRegistry(TokenRegistry):
    """A registry whose token server answers 401 for the repositories ``closed/…``.

    Attributes:
        plain: The status for a request that names no repository.
    """

    plain = 401

    def _token(self, request: httpx.Request) -> httpx.Response:
        scope = request.url.params.get("scope", "")
        if not scope:
            return httpx.Response(self.plain, json={"token": "made-up-plain-token"})
        return httpx.Response(401) if ":closed/" in scope else super()._token(request)


@pytest.mark.parametrize(("plain", "closed"), [(401, 2), (403, 2), (200, 40)])
def test_closed_repository_says_nothing_about_others(
    plain: int, closed: int, opened: Open, clock: FakeClock
) -> None:
    """A token server's 401 for one repository does not stop the polls of the others."""
    fake = ClosedRegistry(clock)
    fake.plain = plain
    registry = opened(fake)
    for number in range(closed):
        assert isinstance(refusal(registry, f"closed/r{number}"), Unauthorized)
    registry.list_tags("team/a")
    for number in range(40):
        assert isinstance(refusal(registry, f"closed/s{number}"), Unauthorized)
    registry.list_tags("team/b")
    before = len(fake.sign_ins)
    clock.advance(minutes=4)
    assert isinstance(refusal(registry, "closed/s0"), Unauthorized)
    assert len(fake.sign_ins) == before


def test_open_repository_has_its_turn(opened: Open, clock: FakeClock) -> None:
    """If many closed repositories come first, an open one is tried after the pause."""
    registry = opened(ClosedRegistry(clock))
    names = [f"closed/r{number}" for number in range(9)]
    for name in [*names, "team/a"]:
        assert isinstance(refusal(registry, name), Unauthorized)
    clock.advance(minutes=6)
    for name in names[:3]:
        assert isinstance(refusal(registry, name), Unauthorized)
    registry.list_tags("team/a")


def test_new_token_is_refused_for_a_second(opened: Open, clock: FakeClock) -> None:
    """A token that is refused when it is new is used again, and not fetched again."""
    fake = TokenRegistry(clock)
    early = True

    def handler(request: httpx.Request) -> httpx.Response:
        if "Bearer" in request.headers.get("Authorization", "") and early:
            challenge = f'Bearer realm="{fake.realm}",service="registry"'
            challenge += ',scope="repository:team/a:pull"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})
        return fake(request)

    registry = opened(handler)
    error = refusal(registry)
    assert isinstance(error, NewTokenRefused)
    assert (error.transient, error.retry_after) == (True, 1.0)
    clock.advance(seconds=1)
    early = False
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1


def test_waiting_for_a_new_token_ends(opened: Open, clock: FakeClock) -> None:
    """If waiting was useless a few times, a refusal is final at once for all repositories."""
    fake = TokenRegistry(clock)
    fake.revoked = {f"made-up-token-{number}" for number in range(100)}
    registry = opened(fake)
    for number in range(MAX_USELESS_WAITS):
        assert isinstance(refusal(registry, f"team/r{number}"), NewTokenRefused)
        clock.advance(seconds=4)
        assert type(refusal(registry, f"team/r{number}")) is Unauthorized
    assert type(refusal(registry, "team/a")) is Unauthorized


@pytest.mark.parametrize("status", [400, 403])
def test_expired_token_is_refused_with_another_status(
    status: int, opened: Open, clock: FakeClock
) -> None:
    """A token that was accepted and is now refused is renewed, but not for each request."""
    fake = TokenRegistry(clock)
    closed = False

    def handler(request: httpx.Request) -> httpx.Response:
        token = request.headers.get("Authorization", "").partition(" ")[2]
        if token in fake.revoked or (closed and token in fake.issued):
            return httpx.Response(status)
        return fake(request)

    registry = opened(handler)
    registry.list_tags("team/a")
    fake.revoked = set(fake.issued)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2
    closed = True
    for _ in range(5):
        refusal(registry, "team/a")
    assert len(fake.sign_ins) == 3


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refused_path_does_not_renew_each_time(status: int, opened: Open, clock: FakeClock) -> None:
    """If a token is accepted for the list but not for manifests, it is renewed once in a while."""
    fake = TokenRegistry(clock)
    fake.expires_in = 3600

    def handler(request: httpx.Request) -> httpx.Response:
        if "/manifests/" in request.url.path:
            return httpx.Response(status)
        answer = fake(request)
        if answer.status_code == 200 and "tags" in answer.json():
            return httpx.Response(200, json={"tags": ["v1"]})
        return answer

    registry = opened(handler)
    for _ in range(5):
        refusal(registry, "team/a")
        clock.advance(seconds=10)
    assert len(fake.sign_ins) == 2


def test_403_with_another_scope_is_a_challenge(opened: Open, clock: FakeClock) -> None:
    """A 403 that asks for another scope gets a token with this scope."""
    fake = TokenRegistry(clock)
    wanted = "repository:team/a:pull,metadata_read"

    def handler(request: httpx.Request) -> httpx.Response:
        token = request.headers.get("Authorization", "").partition(" ")[2]
        if token in fake.issued and fake.issued[token].get("scope") != wanted:
            challenge = f'Bearer realm="{fake.realm}",scope="{wanted}",error="insufficient_scope"'
            return httpx.Response(403, headers={"WWW-Authenticate": challenge})
        return fake(request)

    opened(handler).list_tags("team/a")
    assert [each.url.params["scope"] for each in fake.sign_ins][-1] == wanted


def test_tokens_with_exactly_one_action(opened: Open, clock: FakeClock) -> None:
    """A registry that refuses tokens with more than the wanted action gets one token for each."""
    fake = TokenRegistry(clock)
    digest = f"sha256:{'1' * 64}"

    def handler(request: httpx.Request) -> httpx.Response:
        is_list = request.url.path.endswith("/tags/list")
        wanted = f"repository:team/a:{'metadata_read' if is_list else 'pull'}"
        token = request.headers.get("Authorization", "").partition(" ")[2]
        if request.url.path.startswith("/v2/") and (
            token not in fake.issued or fake.issued[token].get("scope") != wanted
        ):
            challenge = f'Bearer realm="{fake.realm}",scope="{wanted}"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})
        if is_list:
            return httpx.Response(200, json={"tags": [f"v{number}" for number in range(20)]})
        if "/manifests/" in request.url.path:
            return httpx.Response(200, headers={"Docker-Content-Digest": digest})
        return fake(request)

    registry = opened(handler)
    for _ in range(2):
        with stamina.set_testing(True, attempts=3):
            listing = registry.list_tags("team/a")
        assert isinstance(listing, Listing)
        assert {tag.digest for tag in listing.tags.values()} == {digest}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ('{"token":"t"}', 60),
        ('{"token":"t","access_token":""}', 60),
        ('{"token":"","access_token":"t","expires_in":null}', 60),
        ('{"token":null,"access_token":"t","expires_in":0}', 60),
        ('{"token":"t","expires_in":-5}', 60),
        ('{"token":"t","expires_in":"soon"}', 60),
        ('{"token":"t","expires_in":[]}', 60),
        ('{"token":"t","expires_in":"nan"}', 60),
        ('{"token":"t","expires_in":300}', 300),
        ('{"token":"t","expires_in":"300"}', 300),
        ('{"token":"t","expires_in":300.7}', 300.7),
        ('{"token":"t","expires_in":3e2}', 300),
        ('{"token":"t","expires_in":9223372036854775808}', 86400),
        ('{"token":"t","expires_in":1e308}', 86400),
        ('{"token":"t","expires_in":"Infinity"}', 86400),
        (f'{{"token":"t","expires_in":"{"9" * 400}"}}', 86400),
        ('{"token":"t","expires_in":1e400}', 86400),
        (f'{{"token":"t","expires_in":{"9" * 5000}}}', 60),
        (f'{{"token":"t","expires_in":{"[" * 900}{"]" * 900}}}', 60),
        ('{"token":"t","expires_in":true}', 60),
        ('{"token":" t\\n"}', 60),
    ],
)
def test_all_forms_of_a_token(body: str, seconds: float, opened: Open, clock: FakeClock) -> None:
    """One of both keys may be empty, and the lifetime may have any form."""
    fake = TokenRegistry(clock)
    fake.answer = httpx.Response(200, content=body)
    fake.issued["t"] = httpx.QueryParams()
    registry = opened(fake)
    registry.list_tags("team/a")
    clock.advance(seconds=max(60.0, seconds - 10) - 1)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 1
    clock.advance(seconds=2)
    registry.list_tags("team/a")
    assert len(fake.sign_ins) == 2


@pytest.mark.parametrize("identity", [False, True])
def test_token_server_redirects_within_its_host(identity: bool, clock: FakeClock) -> None:
    """A redirect within the token server is followed, with the login and the query."""
    fake = TokenRegistry(clock)
    posted: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(307, headers={"Location": "/auth/token"})
        posted.append(request.content)
        return fake(request)

    # Not a single letter: while a secret exists, it is redacted in the texts of other tests, too.
    login = Login(None if identity else "reader", Secret("made-up-identity"))
    auth = ChallengedAuth(ENDPOINT, lambda: login, clock)
    with closing(registry_of(handler, auth)) as registry:
        registry.list_tags("team/a")
    (sign_in,) = fake.sign_ins
    assert sign_in.url.path == "/auth/token"
    assert (b"made-up-identity" in b"".join(posted)) == identity
    assert ("Authorization" in sign_in.headers) != identity
    assert sign_in.url.params.get("scope") == (None if identity else "repository:team/a:pull")


@pytest.mark.parametrize(
    "location",
    ["https://evil.example.com/", "http://auth.example.org/t", "https://auth.example.org:444/", ""],
)
def test_token_server_redirects_elsewhere(location: str, opened: Open, clock: FakeClock) -> None:
    """A redirect to another host, port or scheme gets no login."""
    fake = TokenRegistry(clock)
    fake.answer = httpx.Response(307, headers={"Location": location} if location else {})
    assert isinstance(refusal(opened(fake)), MalformedResponse)
    assert len(fake.sign_ins) == 1


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
