"""The authentication of requests to OCI registries."""

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
from tagsync.registries.oci.challenges import _wanted, challenges_of
from tagsync.registries.oci.docker_login import Login, Logins, docker_login, host_of, read
from tagsync.registries.oci.logins import _Asking, _SharedLogin, basic_of
from tagsync.registries.oci.tokens import _BearerAuth
from tagsync.registries.renewal import (
    RegistryAuth,
    Steps,
    check_text,
    drop_body,
)
from tagsync.secrets import Secret

TOKENS_KEPT: Final = 256
"""For how many repositories tokens are kept, so that their number does not grow with the watches;
whoever asks for more fetches some of them once more."""


class ChallengedAuth(RegistryAuth):
    """Whatever a registry challenges for, found out once and remembered, for many threads at once.

    The first request is sent without credentials. The 401 that answers it names what is wanted: a
    user and a password, which is then sent with every request, or a token for the repository in
    question.
    """

    def __init__(self, endpoint: str, logins: Logins, clock: Clock) -> None:
        """Sends nothing yet.

        Args:
            endpoint: the registry's URL.
            logins: give the user and the password, or the identity token; a token can be had
                without.
            clock: tells when tokens are due.
        """
        self._endpoint = httpx.URL(endpoint)
        self._login = _SharedLogin(logins, clock)
        self._clock = clock
        self._lock = Lock()
        self._basic: _BasicAuth | None = None
        self._bearers: dict[str, _BearerAuth] = {}

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The login and every token in use."""
        with self._lock:
            bearers = tuple(self._bearers.values())
        return (*self._login.secrets, *(token for each in bearers for token in each.secrets))

    def sync_auth_flow(self, request: httpx.Request) -> Steps:
        """Sends the request with what the registry is known to want, or finds that out first.

        Raises:
            Unauthorized: the login was refused, now or within `REFUSAL_STANDS`, or there is none.
            Forbidden: whoever gives tokens gives none for this repository.
            MalformedResponse: the challenge is none, or names a place where no credentials go.
            RegistryError: as `RenewedAuth`.
        """
        request.read()
        repository = _repository_of(request.url.path)
        answer = self._basic or self._bearers.get(repository)
        if answer is None:
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return
            drop_body(response)
            answer = self._answer(repository, response)
        yield from answer.sync_auth_flow(request)

    def _answer(self, repository: str, response: httpx.Response) -> "_BasicAuth | _BearerAuth":
        challenges = challenges_of(response.headers.get_list("WWW-Authenticate"))
        with self._lock:
            if "bearer" in challenges:
                wanted = _wanted(challenges["bearer"], self._endpoint)
                while len(self._bearers) >= TOKENS_KEPT:
                    del self._bearers[next(iter(self._bearers))]
                fresh = _BearerAuth(wanted, self._endpoint, self._login, self._clock)
                return self._bearers.setdefault(repository, fresh)
            if "basic" in challenges:
                self._basic = self._basic or _BasicAuth(self._endpoint.host, self._login)
                return self._basic
        raise Unauthorized(
            f"{self._endpoint.host} refuses to answer, and asks neither for a password nor for a"
            " token: check the endpoint",
            status=response.status_code,
        )


class _BasicAuth(RegistryAuth):
    """A user and a password, sent with every request."""

    def __init__(self, host: str, login: _SharedLogin) -> None:
        self._host = host
        self._login = login

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return self._login.secrets

    def sync_auth_flow(self, request: httpx.Request) -> Steps:
        def ask(login: Login | None) -> _Asking[None]:
            if login is None or login.username is None:
                raise Unauthorized(
                    f"{self._host} asks for a user and a password: configure them under"
                    ' [registries.auth] with kind = "basic" or "docker"'
                )
            request.headers["Authorization"] = f"Basic {basic_of(login)}"
            response = yield request
            if response.status_code == httpx.codes.UNAUTHORIZED:
                drop_body(response)
                raise Unauthorized(
                    f"{self._host} refused user {login.username!r} (status 401): check the"
                    " credentials",
                    status=response.status_code,
                )

        yield from self._login.using(ask)


def _repository_of(path: str) -> str:
    """The repository that a path is about; empty for the list of all."""
    match = re.search(r"/v2/(.+)/(?:tags|manifests)/[^/]+$", path)
    return match[1] if match else ""


def of(credential: Credential, endpoint: str, clock: Clock = utc_now) -> ChallengedAuth:
    """What answers a registry's challenges with a credential.

    Raises:
        ConfigError: the credential is for another kind of registry, or cannot be sent, or Docker's
            configuration cannot be read.
    """
    match credential:
        case NoCredential():
            return ChallengedAuth(endpoint, lambda: None, clock)
        case BasicCredential(username, password):
            if not username or ":" in username or not username.isprintable():
                raise ConfigError(
                    f"the username {username!r} is empty, or holds a colon or a control character,"
                    " which no user's name that is sent with a password may: check it under"
                    " [registries.auth]"
                )
            check_text("password", password)
            login = Login(username, password)
            return ChallengedAuth(endpoint, lambda: login, clock)
        case DockerCredential(path):
            read(path)
            host = host_of(endpoint)
            return ChallengedAuth(endpoint, lambda: docker_login(path, host), clock)
        case _:
            raise ConfigError(
                'an OCI registry is asked with kind = "none", "basic" or "docker" under'
                " [registries.auth]"
            )
