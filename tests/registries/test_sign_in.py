"""Any answer to a sign-in is a credential or a RegistryError without secrets."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import httpx
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from tagsync.errors import RegistryError
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import AgencyCredential, PasswordCredential
from tagsync.registries.oci.auth import ChallengedAuth
from tagsync.registries.oci.challenges import parse_challenges
from tagsync.registries.oci.shared_login import Login
from tagsync.registries.pacing import Pacer
from tagsync.registries.renewal import RegistryAuth
from tagsync.registries.swr.api import REFUSALS
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.hostile import AWKWARD, BODIES, HEADERS, TEXTS

SECRET = "made-up-secret"
USER = PasswordCredential("https://iam.example.com", "robot", Secret(SECRET), "acme", "eu-de")

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once."""
    with stamina.set_testing(True, attempts=1):
        yield


_MOMENTS = st.sampled_from(
    [
        *("2026-05-04T12:00:00Z", "2026-05-04T12:00:00.123456789Z", "2026-05-04T12:00:00+08:00"),
        *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-05-04T12:00:00", "", "x"),
    ]
)
_SOME = TEXTS | _MOMENTS | st.integers() | st.none() | st.sampled_from([SECRET, [], {}, 1e300])
_KEYS = ("token", "access_token", "expires_in", "expires_at", "access", "secret", "securitytoken")
_FLAT = st.dictionaries(st.sampled_from(_KEYS), _SOME, max_size=7)
CREDENTIALS = st.one_of(
    _FLAT,
    _FLAT.map(lambda inner: {"token": inner}),
    _FLAT.map(lambda inner: {"credential": inner}),
).map(lambda value: json.dumps(value).encode())
"""Bodies that are credentials, or similar to them."""

_VALUES = st.binary(max_size=40) | st.sampled_from(
    [text.encode() for text in AWKWARD if "\n" not in text and "\r" not in text]
)
ANSWERS = st.tuples(
    st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 405, 409, 429, 500, 503])
    | st.integers(200, 599),
    st.builds(
        lambda headers, token: [*headers, (b"X-Subject-Token", token)],
        HEADERS,
        _VALUES,
    ),
    CREDENTIALS | BODIES,
)


def assert_answer_or_error(auth: RegistryAuth, answer: Callable[[httpx.Request], Answer]) -> None:
    """Assert that a request succeeds, or fails with one sentence and no secret."""

    def handler(request: httpx.Request) -> httpx.Response:
        status, headers, body = answer(request)
        return httpx.Response(status, headers=headers, content=body)

    client = Client(
        "https://registry.example.com",
        auth,
        REFUSALS,
        Limits(),
        secrets=lambda: auth.secrets,
        transport=httpx.MockTransport(handler),
        pacer=Pacer(1e9),
    )
    with closing(client):
        try:
            client.get("/v2/a/tags/list", {}, 2**20)
        except RegistryError as error:
            assert str(error).isprintable()  # noqa: PT017  any RegistryError is correct
            assert len(str(error)) < 1500  # noqa: PT017  as above
            assert SECRET not in f"{error} {error!r} {error.code}"  # noqa: PT017  as above
            assert error.retry_after is None or 0 <= error.retry_after <= 86400  # noqa: PT017  as above


@given(ANSWERS)
def test_any_answer_of_iam(answer: Answer) -> None:
    """Any answer of IAM is a token that a header can carry, or an error."""
    auth = PasswordAuth(
        PasswordCredential("https://iam.example.com", "robot", Secret(SECRET), "acme", "eu-de"),
        FakeClock(),
    )
    assert_answer_or_error(
        auth, lambda request: answer if "iam" in request.url.host else (200, [], b"[]")
    )


@given(ANSWERS, ANSWERS)
def test_any_answer_of_the_metadata_service(token: Answer, keys: Answer) -> None:
    """Any answer of a metadata service is keys to sign with, or an error."""

    def handler(request: httpx.Request) -> Answer:
        if request.url.host == "registry.example.com":
            return 200, [], b"[]"
        return token if request.method == "PUT" else keys

    assert_answer_or_error(AgencyAuth(AgencyCredential(), FakeClock()), handler)


_PIECES = st.sampled_from(
    [
        *(
            "Bearer",
            "Basic",
            "bearer",
            "Negotiate",
            " ",
            ",",
            "=",
            '"',
            "realm",
            "service",
            "scope",
        ),
        *("https://auth.example.org/token", "http://auth.example.org", "https://a@b/", "//x", "\\"),
        *(
            "https://[::1",
            "https://auth.example.org:99999/",
            "https://é.example/",
            "\x1b[2J",
            "\xff",
        ),
    ]
)
CHALLENGES = st.lists(_PIECES, max_size=10).map("".join) | st.sampled_from(
    [
        'Bearer realm="https://auth.example.org/token",service="x",scope="repository:a:pull"',
        'Bearer realm="https://auth.example.org/token"',
        'Basic realm="x"',
    ]
)


@given(CHALLENGES, ANSWERS, st.booleans())
def test_any_challenge_and_token_answer(challenge: str, answer: Answer, identity: bool) -> None:
    """Any challenge and any answer of the token server is a token, or an error."""
    login = Login(None if identity else "robot", Secret(SECRET))
    auth = ChallengedAuth("https://registry.example.com", lambda: login, FakeClock())

    def handler(request: httpx.Request) -> Answer:
        if request.url.host == "registry.example.com":
            return 401, [(b"WWW-Authenticate", challenge.encode("latin-1", "replace"))], b""
        assert request.url.scheme == "https"
        return answer

    assert_answer_or_error(auth, handler)


@given(st.lists(st.text(max_size=60) | CHALLENGES, max_size=4))
def test_any_header_is_parsed(headers: list[str]) -> None:
    """Parsing never fails, and returns lower-case schemes and parameters."""
    for scheme, parameters in parse_challenges(headers).items():
        assert scheme == scheme.lower()
        assert all(name == name.lower() for name in parameters)


def test_valid_answer_is_a_credential() -> None:
    """The generated answers can be valid, so the tests above test something."""
    clock = FakeClock()
    expiry = (clock.now + timedelta(hours=1)).isoformat()
    used: list[str] = []

    def handler(request: httpx.Request) -> Answer:
        if request.url.host == "registry.example.com":
            used.append(request.headers["X-Auth-Token"])
            return 200, [], b"[]"
        body = json.dumps({"token": {"expires_at": expiry}}).encode()
        return 201, [(b"X-Subject-Token", b"made-up")], body

    auth = PasswordAuth(
        PasswordCredential("https://iam.example.com", "robot", Secret(SECRET), "acme", "eu-de"),
        clock,
    )
    assert_answer_or_error(auth, handler)
    assert used == ["made-up"]
