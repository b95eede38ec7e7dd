"""Authenticate requests to OCI registries, by the login that a challenge names.

::

    ChallengedAuth          one per registry
    ├── _BasicAuth          one per registry, if it challenges for a user and a password
    └── BearerAuth          one per repository, if the registry challenges for a token

Sources: RFC 9110, 11 (challenges); RFC 7617 (Basic); RFC 6750 (Bearer).
"""

import os
import re
from threading import Lock
from typing import Final

import httpx

from tagsync.clock import Clock, utc_now
from tagsync.errors import ConfigError, Unauthorized
from tagsync.registries.credentials import (
    BasicCredential,
    Credential,
    DockerCredential,
    NoCredential,
)
from tagsync.registries.oci.challenges import challenges_of, token_challenge
from tagsync.registries.oci.docker_login import (
    docker_host,
    docker_login,
    find_docker_config,
    read_docker_config,
)
from tagsync.registries.oci.shared_login import (
    Login,
    LoginFlow,
    LoginSource,
    SharedLogin,
    basic_credentials,
)
from tagsync.registries.oci.tokens import BearerAuth
from tagsync.registries.renewal import AuthFlow, RegistryAuth, check_secret, discard_body
from tagsync.secrets import Secret

MAX_TOKENS: Final = 256
"""Maximum number of repositories whose tokens are stored, so that memory does not grow with the
number of repositories. If there are more repositories, some tokens are fetched again."""


class ChallengedAuth(RegistryAuth):
    """Authentication by the login that the registry's first 401 response asks for.

    The first request is sent without credentials. The challenge in the 401 response asks either for
    a user and a password, which are then sent with every request, or for a token, which is valid
    for one repository only. Docker's credential helpers run when a login is first needed.
    """

    def __init__(self, endpoint: str, source: LoginSource, clock: Clock) -> None:
        """Prepare the flow. No request is sent yet.

        Args:
            endpoint: The URL of the registry.
            source: Returns the login. If it returns None, tokens are requested anonymously.
            clock: Returns the time, which decides when tokens are renewed.
        """
        self._endpoint = httpx.URL(endpoint)
        self._login = SharedLogin(source, clock)
        self._clock = clock
        self._lock = Lock()
        self._basic: _BasicAuth | None = None
        self._bearers: dict[str, BearerAuth] = {}

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets of the login, and every token in use."""
        with self._lock:
            bearers = tuple(self._bearers.values())
        return (*self._login.secrets, *(token for each in bearers for token in each.secrets))

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request with the credential that the registry asks for.

        If no challenge has been received yet, the request is first sent without a credential, and
        the registry answers it with a challenge.

        Raises:
            Unauthorized: If the login was refused, now or recently, or is missing.
            Forbidden: If the token server refuses a token for this repository.
            MalformedResponse: If the challenge is invalid, or names a token server without TLS.
            RegistryError: As for `RenewedAuth.sync_auth_flow`.
        """
        request.read()
        repository = _repository_of(request.url.path)
        auth = self._basic or self._bearers.get(repository)
        if auth is None:
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            discard_body(response)
            auth = self._auth_for_challenge(repository, response)
        yield from auth.sync_auth_flow(request)

    def _auth_for_challenge(
        self, repository: str, response: httpx.Response
    ) -> "_BasicAuth | BearerAuth":
        challenges = challenges_of(response)
        with self._lock:
            if "bearer" in challenges:
                challenge = token_challenge(challenges["bearer"], self._endpoint)
                while len(self._bearers) >= MAX_TOKENS:
                    del self._bearers[next(iter(self._bearers))]
                fresh = BearerAuth(challenge, self._endpoint, self._login, self._clock)
                return self._bearers.setdefault(repository, fresh)
            if "basic" in challenges:
                self._basic = self._basic or _BasicAuth(self._endpoint.host, self._login)
                return self._basic
        raise Unauthorized(
            f"{self._endpoint.host} refuses the request, and challenges neither for a password nor"
            " for a token: check the endpoint",
            status=response.status_code,
        )


class _BasicAuth(RegistryAuth):
    """A user and a password, sent with every request."""

    def __init__(self, host: str, login: SharedLogin) -> None:
        self._host = host
        self._login = login

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return self._login.secrets

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        def send_with(login: Login | None) -> LoginFlow[None]:
            if login is None or login.username is None:
                raise Unauthorized(
                    f"{self._host} requires a user and a password: configure them under"
                    ' [registries.auth] with kind = "basic" or "docker"'
                )
            request.headers["Authorization"] = f"Basic {basic_credentials(login)}"
            response = yield request
            if response.status_code == httpx.codes.UNAUTHORIZED:
                discard_body(response)
                raise Unauthorized(
                    f"{self._host} refused user {login.username!r} (status 401): check the"
                    " credentials",
                    status=response.status_code,
                )

        yield from self._login.use(send_with)


def _repository_of(path: str) -> str:
    """Return the repository in a request's path, or an empty string for the catalogue."""
    match = re.search(r"/v2/(.+)/(?:tags|manifests)/[^/]+$", path)
    return match[1] if match else ""


def auth_for(credential: Credential, endpoint: str, clock: Clock = utc_now) -> ChallengedAuth:
    """Return the authentication for a credential.

    Raises:
        ConfigError: If an OCI registry does not accept this kind of credential, if a value in it is
            invalid, or if Docker's configuration cannot be read.
    """
    match credential:
        case NoCredential():
            return ChallengedAuth(endpoint, lambda: None, clock)
        case BasicCredential(username, password):
            if not username or ":" in username or not username.isprintable():
                raise ConfigError(
                    f"the username {username!r} is empty, or contains a colon or a control"
                    " character, which Basic authentication cannot send: check it under"
                    " [registries.auth]"
                )
            check_secret("password", password)
            login = Login(username, password)
            return ChallengedAuth(endpoint, lambda: login, clock)
        case DockerCredential(path):
            config_path = path or find_docker_config(os.environ)
            read_docker_config(config_path)
            host = docker_host(endpoint)
            return ChallengedAuth(endpoint, lambda: docker_login(config_path, host), clock)
        case _:
            raise ConfigError(
                "an OCI registry does not accept the login of SWR's API: set kind to 'basic',"
                " 'docker' or 'none' under [registries.auth]"
            )
