"""Logins of lists with an API of their own, and the clients that send them."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
import stamina

from tagsync.errors import ConfigError, RegistryError
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import NoCredential
from tagsync.registries.oci.api import REFUSALS
from tagsync.registries.oci.auth import auth_for
from tagsync.registries.oci.lists.auth import BasicLogin
from tagsync.registries.oci.shared_login import Login
from tagsync.registries.pacing import Pacer
from tagsync.registries.renewal import BearerToken
from tagsync.secrets import Secret
from tests.support.http_client import Time

HOME, OTHER = "https://registry.example.com", "https://api.example.com"
PASSWORD, TOKEN = "made-up-password", "made-up-list-token"
BASIC = b64encode(f"reader:{PASSWORD}".encode()).decode()


class Network:
    """A network in memory, with the requests that it got."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        text = request.headers.get("Authorization", "")
        body = {"errors": [{"code": "DENIED", "message": text}]}
        return httpx.Response(self.status, json=body if self.status != 200 else [])


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Send each request once."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def network() -> Network:
    """A network that answers every request."""
    return Network()


@pytest.fixture
def home(network: Network, time: Time) -> Iterator[Client]:
    """The client of a registry, with a token that belongs to its host, and one request a second."""
    auth = BearerToken(Secret("made-up-registry-token"))
    pacer = Pacer(1.0, monotonic=time.monotonic, sleep=time.sleep)
    client = Client(
        HOME,
        auth,
        REFUSALS,
        Limits(requests_per_second=1.0),
        transport=httpx.MockTransport(network),
        pacer=pacer,
        monotonic=time.monotonic,
    )
    with closing(client):
        yield client


@pytest.fixture
def time() -> Time:
    """A clock that only waits move."""
    return Time()


def test_basic_login_is_sent_with_every_request(home: Client, network: Network) -> None:
    """User and password are sent; both forms of the password are secrets once they were sent."""
    auth = BasicLogin(lambda: Login("reader", Secret(PASSWORD)))
    assert (auth.is_set, auth.secrets) == (True, ())
    with closing(home.sibling(f"{HOME}/api", auth, lambda: auth.secrets)) as client:
        client.get("/list", {}, 1000)
    assert network.requests[0].headers["Authorization"] == f"Basic {BASIC}"
    assert [secret.reveal() for secret in auth.secrets] == [PASSWORD, BASIC]


@pytest.mark.parametrize("login", [None, Login(None, Secret("made-up-bearer"))])
def test_login_without_a_user_is_not_sent(
    home: Client, network: Network, login: Login | None
) -> None:
    """A token of the registry, or no login, leaves the requests for the list anonymous."""
    auth = BasicLogin(lambda: login)
    assert not auth.is_set
    with closing(home.sibling(f"{HOME}/api", auth, lambda: auth.secrets)) as client:
        client.get("/list", {}, 1000)
    assert "Authorization" not in network.requests[0].headers


def test_other_host_gets_no_credential_of_the_first(home: Client, network: Network) -> None:
    """A sibling sends its own credential only, and the registry's client only its own."""
    token = BearerToken(Secret(TOKEN))
    with (
        closing(home.sibling(OTHER, token, lambda: token.secrets)) as with_token,
        closing(home.sibling(OTHER, None, tuple)) as anonymous,
    ):
        with_token.get("/list", {}, 1000)
        anonymous.get("/list", {}, 1000)
    home.get("/v2/x/tags/list", {}, 1000)
    sent = [(r.url.host, r.headers.get("Authorization")) for r in network.requests]
    assert sent == [
        ("api.example.com", f"Bearer {TOKEN}"),
        ("api.example.com", None),
        ("registry.example.com", "Bearer made-up-registry-token"),
    ]


@pytest.mark.parametrize(("endpoint", "waits"), [(f"{HOME}/api", True), (OTHER, False)])
def test_rate_is_that_of_the_host(home: Client, time: Time, endpoint: str, waits: bool) -> None:
    """A sibling at the registry's origin shares its rate; another host has its own."""
    home.get("/v2/", {}, 1000)
    before = time.monotonic()
    with closing(home.sibling(endpoint, None, tuple)) as client:
        client.get("/list", {}, 1000)
    assert (time.monotonic() > before) == waits


def test_secrets_of_a_sibling_are_redacted(home: Client, network: Network) -> None:
    """A server that repeats the token of the list does not get it into an error."""
    token = BearerToken(Secret(TOKEN))
    network.status = 403
    with (
        closing(home.sibling(OTHER, token, lambda: token.secrets)) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.get("/list", {}, 1000)
    assert "DENIED" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("value", ["", "two\nlines", " token"])
def test_list_token_that_no_header_can_carry_is_refused(value: str) -> None:
    """The error has the name of the key, and comes before any request."""
    with pytest.raises(ConfigError, match="list_token is empty"):
        auth_for(NoCredential(list_token=Secret(value)), HOME)
