"""What an OCI registry is asked with: nothing at first, and then whatever it challenges for.

::

    ChallengedAuth          one for a registry
    ├── _BasicAuth          one for a registry that challenges for a user and a password
    └── _BearerAuth         one for each repository: a token, of whoever the challenge names

Sources: RFC 9110, 11 (challenges); RFC 7617 (Basic); RFC 6750 (Bearer); the Distribution project's
"Token authentication specification" and "Oauth2 token authentication" (identity tokens).

The rules of `tagsync.registries.auth` hold here, but for one: Docker's credential helpers are run
within a flow, by whoever needs them first.
"""

import base64
import re
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import Annotated, Final, NamedTuple, TypeVar
from urllib.parse import urlencode
from urllib.request import parse_http_list

import httpx
import msgspec

from tagsync.clock import Clock, utc_now
from tagsync.errors import ConfigError, Forbidden, MalformedResponse, RegistryError, Unauthorized
from tagsync.escaping import truncate
from tagsync.registries.credentials import (
    BasicCredential,
    Credential,
    DockerCredential,
    NoCredential,
)
from tagsync.registries.hosts import is_loopback
from tagsync.registries.oci.docker_login import Login, Logins, docker_login, host_of, read
from tagsync.registries.renewal import (
    REFUSAL_STANDS,
    SIGN_IN_TIMEOUT,
    Failure,
    FixedAuth,
    Obtaining,
    RegistryAuth,
    RenewedAuth,
    Steps,
    check_text,
    copy_of,
    decode,
    drop_body,
    headers_like,
    raise_if_passing,
    raise_unless_success,
)
from tagsync.secrets import Secret

TOKEN_LIVES: Final = timedelta(seconds=60)
"""How long a token lives whose giver does not say it, by the specification."""

RENEW_BEFORE: Final = timedelta(seconds=10)
"""How long before it expires a token is renewed: they live for minutes."""

LOGIN_KEPT_FOR: Final = timedelta(minutes=10)
"""For how long Docker's configuration and its helpers are not asked again."""

TOKENS_KEPT: Final = 256
"""For how many repositories tokens are kept, so that their number does not grow with the watches;
whoever asks for more fetches some of them once more."""

_CLIENT: Final = "tagsync"

_AnswerT = TypeVar("_AnswerT")
_Asking = Generator[httpx.Request, httpx.Response, _AnswerT]


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


class _SharedLogin:
    """A registry's login, and whether it was accepted when it was last used.

    Registries and those who give tokens for them lock an account after a few wrong passwords, and
    a pass over a thousand repositories would try a thousand times. So a login that is not known to
    be good is used by one thread at a time, and a refusal stands for `REFUSAL_STANDS`, as does that
    there is none to be had. One that was
    good just before may have met a repository that is closed to it: only a second refusal in a row
    stands.
    """

    def __init__(self, logins: Logins, clock: Clock) -> None:
        self._logins = logins
        self._clock = clock
        self._lock = Lock()
        self._login: Login | None = None
        self._read_at: datetime | None = None
        self._accepted = False
        self._refusal: Failure | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secret, and the form in which it is sent."""
        login = self._login
        if login is None:
            return ()
        return (login.secret, *(() if login.username is None else (Secret(basic_of(login)),)))

    def using(self, ask: Callable[[Login | None], _Asking[_AnswerT]]) -> _Asking[_AnswerT]:
        """Asks with the login.

        Raises:
            Unauthorized: it was refused, now or before, or cannot be had.
        """
        if self._accepted and self._is_fresh():
            return (yield from self._ask(ask, self._login))
        with self._lock:
            self._repeat_refusal()
            if not self._is_fresh():
                self._read()
            if self._login is not None:
                return (yield from self._ask(ask, self._login))
        return (yield from ask(None))

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < LOGIN_KEPT_FOR

    def _read(self) -> None:
        try:
            self._login = self._logins()
        except ConfigError as error:
            # A helper that hangs would let every repository wait for it, one after the other.
            self._refusal = Failure(Unauthorized(str(error)), self._clock())
            raise Unauthorized(str(error)) from error
        self._read_at = self._clock()

    def _repeat_refusal(self) -> None:
        if (refusal := self._refusal) and abs(self._clock() - refusal.at) < REFUSAL_STANDS:
            raise copy_of(refusal.error)

    def _ask(
        self, ask: Callable[[Login | None], _Asking[_AnswerT]], login: Login | None
    ) -> _Asking[_AnswerT]:
        try:
            answer = yield from ask(login)
        except Unauthorized as error:
            if not self._accepted:
                self._refusal = Failure(copy_of(error), self._clock())
            # What a helper gives may have been renewed since it was asked.
            self._accepted, self._read_at = False, None
            raise
        self._accepted, self._refusal = True, None
        return answer


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


class _Wanted(NamedTuple):
    """What a challenge for a token names: where it is given, and what for."""

    realm: httpx.URL
    service: str | None
    scope: str | None


class _Token(FixedAuth):
    """A token for one repository."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return (self._token,)

    def mark(self, request: httpx.Request) -> None:
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"


class _BearerAuth(RenewedAuth):
    """Tokens for one repository, fetched from the place that the registry's challenge named."""

    _renew_before = RENEW_BEFORE

    def __init__(
        self, wanted: _Wanted, endpoint: httpx.URL, login: _SharedLogin, clock: Clock
    ) -> None:
        super().__init__(clock)
        self._wanted = wanted
        self._endpoint = endpoint
        self._login = login

    @property
    def _source(self) -> str:  # type: ignore[override]  # it changes with the challenge
        return self._wanted.realm.host

    def _learn(self, response: httpx.Response) -> None:
        challenges = challenges_of(response.headers.get_list("WWW-Authenticate"))
        if "bearer" in challenges:
            self._wanted = _wanted(challenges["bearer"], self._endpoint)

    def _obtain(self, request: httpx.Request) -> Obtaining:
        def ask(login: Login | None) -> _Asking[tuple[FixedAuth, datetime]]:
            asked_at = self._clock()
            response = yield _token_request(self._wanted, login, request)
            raise_if_passing(response, self._source, self._clock)
            if response.is_client_error:
                raise self._refusal(response.status_code, login)
            raise_unless_success(response, self._source, "the registry's endpoint")
            answer = decode(response, _TokenAnswer, self._source, self._clock)
            token = answer.token or answer.access_token
            if token is None:
                raise MalformedResponse(f"{self._source} answered without a token")
            return _Token(token), asked_at + answer.lives

        return (yield from self._login.using(ask))

    def _refusal(self, status: int, login: Login | None) -> RegistryError:
        who = "nobody in particular" if login is None else f"user {login.username!r}"
        who = "an identity token" if login and login.username is None else who
        kind = Unauthorized if status == httpx.codes.UNAUTHORIZED else Forbidden
        scope = truncate(self._wanted.scope or "no scope")
        return kind(
            f"{self._source} gave no token for {scope} to {who} (status {status}): check the"
            " credentials, and what they may read",
            status=status,
        )


class _TokenAnswer(msgspec.Struct, frozen=True):
    """What a token comes in; OAuth 2 calls it ``access_token``."""

    token: Secret | None = None
    access_token: Secret | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None

    @property
    def lives(self) -> timedelta:
        return TOKEN_LIVES if self.expires_in is None else timedelta(seconds=self.expires_in)


def basic_of(login: Login) -> str:
    """A user and a password as they are sent (RFC 7617, in UTF-8)."""
    return base64.b64encode(f"{login.username}:{login.secret.reveal()}".encode()).decode()


def challenges_of(headers: list[str]) -> dict[str, dict[str, str]]:
    """The challenges of ``WWW-Authenticate``: parameters by lower-case scheme; the first counts.

    Args:
        headers: each may hold several challenges.
    """
    found: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for item in (item for header in headers for item in parse_http_list(header)):
        # A scheme stands before its first parameter: Bearer realm="…",service="…"
        begins = re.fullmatch(r"([A-Za-z][\w-]*)(?: +(.*))?", item, re.DOTALL)
        if begins:
            parameters = {}
            found.setdefault(begins[1].lower(), parameters)
        name, equals, value = ((begins[2] or "") if begins else item).partition("=")
        if equals:
            parameters.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _wanted(challenge: Mapping[str, str], endpoint: httpx.URL) -> _Wanted:
    """Reads a challenge for a token.

    A token is given at another host than the registry's more often than not. What goes there are
    credentials, so nothing but TLS will do, or this machine's own loopback if the registry is on
    it.

    Raises:
        MalformedResponse: it names no such place.
    """
    named = challenge.get("realm", "")
    try:
        realm = httpx.URL(named)
    except httpx.InvalidURL:
        realm = httpx.URL()
    local = is_loopback(realm.host) and is_loopback(endpoint.host)
    if not realm.host or realm.userinfo or realm.scheme not in {"https", "http"}:
        raise MalformedResponse(
            f"{endpoint.host} names {truncate(named)!r} as the place where it wants a token from,"
            " which is no URL to ask"
        )
    if realm.scheme == "http" and not local:
        raise MalformedResponse(
            f"{endpoint.host} wants a token from {truncate(named)!r}, where credentials would go in"
            " the clear: they are only sent to https://"
        )
    return _Wanted(realm, challenge.get("service"), challenge.get("scope"))


def _token_request(wanted: _Wanted, login: Login | None, like: httpx.Request) -> httpx.Request:
    about = {"service": wanted.service, "scope": wanted.scope}
    parameters = {name: value for name, value in about.items() if value is not None}
    headers = headers_like(like)
    extensions = {"timeout": like.extensions.get("timeout", SIGN_IN_TIMEOUT.as_dict())}
    if login is not None and login.username is None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        form = {
            "grant_type": "refresh_token",
            "client_id": _CLIENT,
            "refresh_token": login.secret.reveal(),
            **parameters,
        }
        content = urlencode(form).encode()
        return httpx.Request(
            "POST", wanted.realm, headers=headers, content=content, extensions=extensions
        )
    if login is not None:
        headers["Authorization"] = f"Basic {basic_of(login)}"
    url = wanted.realm.copy_merge_params(parameters)
    return httpx.Request("GET", url, headers=headers, extensions=extensions)


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
