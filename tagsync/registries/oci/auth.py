"""Authenticate requests to OCI registries, by the login that a challenge names.

::

    ChallengedAuth          one per registry
    ├── _DirectAuth         one per login, if the registry itself accepts it
    └── BearerAuth          one per repository, if the registry challenges for a token

Sources: RFC 9110, 11 (challenges); RFC 7617 (Basic); RFC 6750 (Bearer).
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
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
    TokenCredential,
)
from tagsync.registries.oci.challenges import challenges_of, token_challenge
from tagsync.registries.oci.docker_login import (
    DockerLogins,
    docker_host,
    find_docker_config,
)
from tagsync.registries.oci.shared_login import (
    Login,
    LoginFlow,
    LoginSource,
    SharedLogin,
    basic_credentials,
)
from tagsync.registries.oci.tokens import BearerAuth, Patience, asks_for_password
from tagsync.registries.renewal import (
    AuthFlow,
    RegistryAuth,
    SendFlow,
    check_header_value,
    check_secret,
    discard_body,
    raise_if_transient,
    sign_in_extensions,
    sign_in_headers,
)
from tagsync.registries.responses import transient_error
from tagsync.secrets import Secret

MAX_TOKENS: Final = 256
"""Maximum number of repositories whose tokens are stored, so that memory does not grow with the
number of repositories. If there are more repositories, some tokens are fetched again."""


MAX_CHANGES: Final = 3
"""How many kinds of authentication are tried for one request, because each refusal may ask for
another one."""

_REFUSALS: Final = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})

_SCHEMES: Final = frozenset({"basic", "bearer"})
"""The schemes of challenges that tagsync knows."""

_LIST_PATHS: Final = (r"/gitlab/v1/repositories/(.+)/tags/list/$", r"/acr/v1/(.+)/_tags$")
"""The paths of registries' own lists that accept the token of a repository, its name as a group."""


class ChallengedAuth(RegistryAuth):
    """Authentication by the login that the registry's challenges ask for.

    The first request for a repository is sent without credentials. The challenge in the response
    asks either for a user and a password, which are then sent with every request, or for a token,
    which is valid for one repository only. If a later response asks for another login, it replaces
    the first one for this repository.

    A registry that is open to everybody shows anonymous users only a part. If a login is
    configured, it is therefore sent even if the registry did not challenge. Docker's credential
    helpers run when a login is first needed.
    """

    def __init__(
        self,
        endpoint: str,
        source: LoginSource,
        clock: Clock,
        places: DockerLogins | None = None,
    ) -> None:
        """Prepare the flow. No request is sent yet.

        Args:
            endpoint: The URL of the registry.
            source: Returns the login. If it returns None, requests are anonymous.
            clock: Returns the time, which decides when tokens are renewed.
            places: Replaces ``source`` if single namespaces may have logins of their own.
        """
        self._endpoint = httpx.URL(endpoint)
        self._base_url = httpx.URL(endpoint.rstrip("/") + "/v2/")
        self._source = source
        self._places = places
        self._clock = clock
        self._patience = Patience()
        self._lock = Lock()
        self._base: Mapping[str, Mapping[str, str]] | None = None
        self._logins: dict[str, SharedLogin] = {}
        self._direct: dict[str, _DirectAuth] = {}
        self._auths: dict[str, _DirectAuth | BearerAuth] = {}

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets of the logins, and every token in use."""
        with self._lock:
            logins, auths = tuple(self._logins.values()), tuple(self._auths.values())
        bearers = (each for each in auths if isinstance(each, BearerAuth))
        return tuple(
            secret for group in (logins, bearers) for each in group for secret in each.secrets
        )

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request with the credential that the registry asks for.

        If no challenge has been received yet, the request is first sent without a credential.

        Raises:
            Unauthorized: If the login was refused, now or recently, or is missing.
            Forbidden: If the token server refuses a token for this repository.
            MalformedResponse: If the challenge is invalid, or names a token server without TLS.
            RegistryError: As for `RenewedAuth.send`.
        """
        request.read()
        repository = _repository_of(request.url.path)
        auth = self._known_auth(repository)
        if auth is None:
            response = yield request
            auth = yield from self._auth_after_anonymous(request, repository, response)
            if auth is None:
                return
            discard_body(response)
        for _ in range(MAX_CHANGES):
            response = yield from auth.send(request)
            other = self._other_auth(auth, repository, response)
            if other is None:
                return
            discard_body(response)
            auth = other

    def login(self, repository: str) -> Login | None:
        """Return the login for a repository, or None without one.

        Raises:
            Unauthorized: If the login cannot be read.
        """
        return self._login_of(repository).current()

    def _login_of(self, repository: str) -> SharedLogin:
        """Return the login for a repository, which it shares with the others of its place."""
        place = self._places.place(repository) if self._places else ""
        source = partial(self._places.login, place) if self._places else self._source
        with self._lock:
            return self._logins.setdefault(place, SharedLogin(source, self._clock))

    def _known_auth(self, repository: str) -> "_DirectAuth | BearerAuth | None":
        known = self._auths.get(repository)
        if known is None and self._direct:
            place = self._places.place(repository) if self._places else ""
            return self._direct.get(place)
        return known

    def _auth_after_anonymous(
        self, request: httpx.Request, repository: str, response: httpx.Response
    ) -> "LoginFlow[_DirectAuth | BearerAuth | None]":
        """Return how to repeat a request that was sent without credentials.

        Returns:
            None if the response is final.
        """
        challenges: Mapping[str, Mapping[str, str]] = challenges_of(response)
        refused = response.status_code in _REFUSALS
        if not refused:
            if transient_error(response.status_code) or response.has_redirect_location:
                return None
            if self._login_of(repository).current() is None:
                return None
        if not challenges.keys() & _SCHEMES and not (refused and challenges):
            if self._login_of(repository).current() is not None:
                # Proxies may remove a challenge. The base path may still have one.
                challenges = yield from self._base_challenges(request)
                if not challenges.keys() & _SCHEMES:
                    challenges = {"basic": {}}
            elif response.status_code != httpx.codes.UNAUTHORIZED:
                return None
        auth = self._auth_for(challenges, repository)
        if auth is None:
            raise Unauthorized(
                f"{self._endpoint.host} refuses the request, and challenges neither for a password"
                " nor for a token: check the endpoint",
                status=response.status_code,
            )
        return auth

    def _base_challenges(
        self, request: httpx.Request
    ) -> LoginFlow[Mapping[str, Mapping[str, str]]]:
        """Return the challenges of the registry's base path, whatever the response's status."""
        if self._base is None:
            response = yield self._base_request(request)
            raise_if_transient(response, self._endpoint.host, self._clock)
            discard_body(response)
            self._base = challenges_of(response)
        return self._base

    def _base_request(self, on_behalf_of: httpx.Request) -> httpx.Request:
        return httpx.Request(
            "GET",
            self._base_url,
            headers=sign_in_headers(on_behalf_of),
            extensions=sign_in_extensions(on_behalf_of),
        )

    def _auth_for(
        self, challenges: Mapping[str, Mapping[str, str]], repository: str
    ) -> "_DirectAuth | BearerAuth | None":
        """Return the authentication that challenges ask for, or None if there is none."""
        shared = self._login_of(repository)
        # Without a login, a token is requested anonymously, and a login is read only if needed.
        is_bearer = (login := shared.current()) is not None and login.is_bearer
        if "bearer" in challenges and not is_bearer:
            challenge = token_challenge(challenges["bearer"], self._endpoint, repository)
            fresh = BearerAuth(
                challenge, self._endpoint, repository, shared, self._clock, self._patience
            )
            return self._store(repository, fresh)
        if "basic" in challenges or is_bearer:
            return self._store(repository, _DirectAuth(self._endpoint, self._base_request, shared))
        return None

    def _store(
        self, repository: str, fresh: "_DirectAuth | BearerAuth"
    ) -> "_DirectAuth | BearerAuth":
        """Store the authentication of a repository, unless another thread has done so."""
        place = self._places.place(repository) if self._places else ""
        with self._lock:
            if isinstance(fresh, _DirectAuth):
                fresh = self._direct.setdefault(place, fresh)
            known = self._auths.get(repository)
            if known is not None and type(known) is type(fresh):
                return known
            self._auths.pop(repository, None)
            while len(self._auths) >= MAX_TOKENS:
                del self._auths[next(iter(self._auths))]
            self._auths[repository] = fresh
            return fresh

    def _other_auth(
        self, auth: "_DirectAuth | BearerAuth", repository: str, response: httpx.Response
    ) -> "_DirectAuth | BearerAuth | None":
        """Return the authentication that a refusal asks for instead of the one that was used."""
        if response.status_code not in _REFUSALS:
            return None
        if isinstance(auth, BearerAuth):
            login = self._login_of(repository).current() if asks_for_password(response) else None
            has_password = login is not None and login.username is not None
            return self._auth_for({"basic": {}}, repository) if has_password else None
        challenges = challenges_of(response)
        wants_token = "bearer" in challenges and "basic" not in challenges
        return self._auth_for(challenges, repository) if wants_token and auth.has_user else None


class _DirectAuth(RegistryAuth):
    """A login that is sent to the registry with every request.

    It is a user and a password (Basic), or a token that the registry itself accepts (Bearer).
    """

    def __init__(
        self,
        endpoint: httpx.URL,
        base_request: Callable[[httpx.Request], httpx.Request],
        login: SharedLogin,
    ) -> None:
        self._host = endpoint.host
        self._base_request = base_request
        self._login = login

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return self._login.secrets

    @property
    def has_user(self) -> bool:
        """Whether the login has a user's name, so that a token server may accept it, too."""
        login = self._login.current()
        return login is not None and login.username is not None

    def send(self, request: httpx.Request) -> SendFlow:
        """Send the request with the login, and return the response.

        Raises:
            Unauthorized: If the login was refused, now or recently, or is missing.
        """

        def send_with(login: Login | None) -> LoginFlow[httpx.Response]:
            if login is None or (login.username is None and not login.is_bearer):
                raise Unauthorized(
                    f"{self._host} requires a user and a password: configure them under"
                    ' [registries.auth] with kind = "basic" or "docker"'
                )
            request.headers["Authorization"] = _authorization(login)
            response = yield request
            if response.status_code != httpx.codes.UNAUTHORIZED:
                return response
            challenges = challenges_of(response)
            if login.username is not None and "bearer" in challenges and "basic" not in challenges:
                return response
            discard_body(response)
            who = "the token" if login.username is None else f"user {login.username!r}"
            raise Unauthorized(
                f"{self._host} refused {who} (status 401): check the credentials and their"
                " permissions",
                status=response.status_code,
            )

        def probe(login: Login) -> LoginFlow[bool | None]:
            """Send the login to the base path, which answers 401 if the login is wrong."""
            anonymous = yield self._base_request(request)
            discard_body(anonymous)
            base = self._base_request(request)
            base.headers["Authorization"] = _authorization(login)
            response = yield base
            discard_body(response)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                return False
            # If the path is open to everybody, its response does not tell.
            challenged = anonymous.status_code == httpx.codes.UNAUTHORIZED
            return True if challenged and response.is_success else None

        repository = _repository_of(request.url.path)
        return (yield from self._login.use(repository, send_with, probe))

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Send the request with the login."""
        yield from self.send(request)


def _authorization(login: Login) -> str:
    if login.username is None:
        return f"Bearer {login.secret.reveal()}"
    return f"Basic {basic_credentials(login)}"


def _repository_of(path: str) -> str:
    """Return the repository in a request's path, or an empty string for the catalogue.

    The registries' own lists in `_LIST_PATHS` accept the token of their repository.
    """
    patterns = (r"/v2/(.+)/(?:tags|manifests)/[^/]+$", *_LIST_PATHS)
    found = (re.search(pattern, path) for pattern in patterns)
    return next((match[1] for match in found if match), "")


def auth_for(credential: Credential, endpoint: str, clock: Clock = utc_now) -> ChallengedAuth:
    """Return the authentication for a credential.

    Raises:
        ConfigError: If an OCI registry does not accept this kind of credential, if a value in it is
            invalid, or if Docker's configuration cannot be read.
    """
    list_token = getattr(credential, "list_token", None)
    if list_token is not None:
        check_header_value("list_token", list_token.reveal())
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
        case TokenCredential(token=token):
            check_header_value("token", token.reveal())
            bearer = Login(None, token, is_bearer=True)
            return ChallengedAuth(endpoint, lambda: bearer, clock)
        case DockerCredential(path):
            places = DockerLogins(path or find_docker_config(os.environ), docker_host(endpoint))
            return ChallengedAuth(endpoint, lambda: None, clock, places)
        case _:
            raise ConfigError(
                "an OCI registry does not accept the login of SWR's API: set kind to 'basic',"
                " 'token', 'docker' or 'none' under [registries.auth]"
            )
