"""An OCI registry that challenges for tokens, and its token server, in memory."""

import base64
from collections.abc import Callable
from threading import Lock
from typing import Any

import httpx
import pytest

from tagsync.clock import Clock
from tagsync.errors import (
    RegistryError,
)
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import (
    BasicCredential,
)
from tagsync.registries.oci.api import REFUSALS, Oci
from tagsync.registries.oci.auth import ChallengedAuth
from tagsync.registries.pacing import Pacer
from tagsync.secrets import Secret

PASSWORD = "made-up-password"
BASIC = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
USER = BasicCredential("reader", Secret(PASSWORD))
ENDPOINT = "https://registry.example.com"
REALM = "https://auth.example.org/token"

Handler = Callable[[httpx.Request], httpx.Response]


class TokenRegistry:
    """A registry that challenges for tokens, and at another host its token server.

    Attributes:
        realm: URL of the token server, as the challenge names it.
        issued: The query of each request for a token, by token.
        revoked: Tokens that the registry no longer accepts.
        requests: All requests to both hosts.
        answer: Replaces the response to a request for a token.
        expires_in: Lifetime of the tokens in seconds. None leaves it out of the response.
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
        """The requests to the token server."""
        host = httpx.URL(self.realm).host
        return [r for r in self.requests if r.url.host == host and "/v2/" not in r.url.path]


def registry_of(handler: Handler, auth: ChallengedAuth, endpoint: str = ENDPOINT) -> Oci:
    """Return the OCI registry of a handler, with this authentication."""
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


Open = Callable[..., Oci]


def refusal(registry: Oci, repository: str = "team/a") -> RegistryError:
    """Return the error for a repository, which is one sentence without the password."""
    with pytest.raises(RegistryError) as caught:
        registry.list_tags(repository)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    assert BASIC.partition(" ")[2] not in text
    return caught.value
