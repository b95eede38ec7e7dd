"""Authentication for lists whose API does not take the registry's own tokens."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import Unauthorized
from tagsync.registries.oci.shared_login import Login, basic_credentials
from tagsync.registries.renewal import (
    BearerToken,
    Fetch,
    FixedAuth,
    FixedToken,
    RenewedAuth,
    decode_credentials,
    raise_if_transient,
    raise_unless_success,
    sign_in_extensions,
    sign_in_headers,
)
from tagsync.secrets import Secret

HUB_TOKEN_LIFETIME: Final = timedelta(minutes=10)
"""How long a token of Docker Hub's API is valid. Its response does not say it."""


class BasicLogin(FixedAuth):
    """A user and a password that are sent with every request (RFC 7617).

    Without a login, or if it is a token, requests are anonymous.
    """

    def __init__(self, login: Callable[[], Login | None]) -> None:
        """Take the function that returns the current login."""
        self._login = login
        self._used: Login | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a user and a password.

        Raises:
            Unauthorized: If the login cannot be read.
        """
        return self._current() is not None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password that was sent last, and its encoded form. None before the first request."""
        if (login := self._used) is None:
            return ()
        return login.secret, Secret(basic_credentials(login))

    def authenticate(self, request: httpx.Request) -> None:
        """Add the user and the password to a request."""
        if (login := self._current()) is not None:
            self._used = login
            request.headers["Authorization"] = f"Basic {basic_credentials(login)}"

    def _current(self) -> Login | None:
        login = self._login()
        return None if login is None or login.username is None else login


class PrivateToken(FixedToken):
    """An access token in the header that GitLab's API has for it."""

    def authenticate(self, request: httpx.Request) -> None:
        """Add the token to a request."""
        request.headers["PRIVATE-TOKEN"] = self._token.reveal()


class _HubToken(msgspec.Struct):
    access_token: Secret


class HubLogin(RenewedAuth):
    """A token that Docker Hub's API issues for a user and a password.

    ``POST /v2/auth/token`` takes a user, with a password or a personal access token, or an
    organization, with an organization access token. Docker Hub locks an account after a few wrong
    passwords, so a refused login is not sent again for an hour.
    """

    _renew_before = timedelta(minutes=1)
    _repeat_refusal_for = timedelta(hours=1)

    def __init__(self, api: str, login: Callable[[], Login | None], clock: Clock) -> None:
        """Prepare the login. No request is sent yet.

        Args:
            api: The URL of the API.
            login: Returns the user and the password.
            clock: Returns the time.
        """
        super().__init__(clock)
        self._url = httpx.URL(api + "/v2/auth/token")
        self._issuer = self._url.host
        self._login = login

    def fetch(self, request: httpx.Request) -> Fetch:
        """Exchange the login for a token."""
        login = self._login()
        if login is None or login.username is None:
            raise Unauthorized(f"{self._issuer} needs a user and a password, which are missing")
        body = {"identifier": login.username, "secret": login.secret.reveal()}
        response = yield httpx.Request(
            "POST",
            self._url,
            headers={**sign_in_headers(request), "Content-Type": "application/json"},
            content=msgspec.json.encode(body),
            extensions=sign_in_extensions(request),
        )
        raise_if_transient(response, self._issuer, self._clock)
        if response.is_client_error:
            raise Unauthorized(
                f"{self._issuer} refused user {login.username!r} (status {response.status_code}):"
                " if a second factor or single sign-on is required, use an access token as the"
                " password",
                status=response.status_code,
            )
        raise_unless_success(response, self._issuer, "the proxy, if there is one")
        answer = decode_credentials(response, _HubToken, self._issuer, self._clock)
        return BearerToken(answer.access_token), self._clock() + HUB_TOKEN_LIFETIME
