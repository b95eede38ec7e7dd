"""Bearer tokens for single repositories."""

from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlencode

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import Forbidden, MalformedResponse, RegistryError, Unauthorized
from tagsync.escaping import truncate
from tagsync.registries.oci.challenges import _Wanted, _wanted, challenges_of
from tagsync.registries.oci.docker_login import Login
from tagsync.registries.oci.logins import _Asking, _SharedLogin, basic_of
from tagsync.registries.renewal import (
    SIGN_IN_TIMEOUT,
    FixedAuth,
    Obtaining,
    RenewedAuth,
    decode,
    headers_like,
    raise_if_passing,
    raise_unless_success,
)
from tagsync.secrets import Secret

TOKEN_LIVES: Final = timedelta(seconds=60)
"""How long a token lives whose giver does not say it, by the specification."""

RENEW_BEFORE: Final = timedelta(seconds=10)
"""How long before it expires a token is renewed: they live for minutes."""

_CLIENT: Final = "tagsync"


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
