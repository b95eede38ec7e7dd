"""Tokens of the vendor's identity service (IAM).

Source: the vendor's "IAM: obtaining a user token through password authentication".
"""

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import MalformedResponse, Unauthorized
from tagsync.registries.credentials import PasswordCredential
from tagsync.registries.renewal import (
    Fetch,
    FixedAuth,
    Moment,
    RenewedAuth,
    check_header_value,
    check_secret,
    decode_credentials,
    endpoint_url,
    is_header_value,
    raise_if_transient,
    raise_unless_success,
    sign_in_extensions,
    sign_in_headers,
)
from tagsync.secrets import Secret


class TokenAuth(FixedAuth):
    """A token of the identity service, sent as ``X-Auth-Token``."""

    def __init__(self, token: Secret) -> None:
        """Check the token.

        Raises:
            ConfigError: If an HTTP header cannot carry it.
        """
        check_header_value("token", token.reveal())
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The token."""
        return (self._token,)

    def authenticate(self, request: httpx.Request) -> None:
        """Set ``X-Auth-Token``."""
        request.headers["X-Auth-Token"] = self._token.reveal()


class PasswordAuth(RenewedAuth):
    """A token with the scope of one project, issued for a user's password.

    ``POST {iam}/v3/auth/tokens?nocatalog=true`` answers with the token in the header
    ``X-Subject-Token``. The token is valid for 24 hours, or less if the user's password or
    permissions change.
    """

    def __init__(self, user: PasswordCredential[Secret], clock: Clock) -> None:
        """Check the credential. No request is sent yet.

        Raises:
            ConfigError: If ``iam_endpoint`` is not a URL, or the password is empty or not UTF-8
                text.
        """
        super().__init__(clock)
        check_secret("password", user.password)
        path = "/v3/auth/tokens?nocatalog=true"
        self._url = endpoint_url("iam_endpoint", user.iam_endpoint, path)
        self._issuer = self._url.host
        self._user = user

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password, and the tokens in use."""
        return (self._user.password, *super().secrets)

    def fetch(self, request: httpx.Request) -> Fetch:
        """Sign in to fetch a token and the time when it expires."""
        response = yield self._sign_in_request(request)
        raise_if_transient(response, self._issuer, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._issuer, "iam_endpoint")
        answer = decode_credentials(response, _TokenAnswer, self._issuer, self._clock)
        token = response.headers.get("X-Subject-Token", "")
        if not is_header_value(token):
            raise MalformedResponse(
                f"{self._issuer} answered a sign-in without a usable X-Subject-Token:"
                " check iam_endpoint",
                status=response.status_code,
            )
        return TokenAuth(Secret(token)), answer.token.expires_at

    def _sign_in_request(self, request: httpx.Request) -> httpx.Request:
        user = {
            "name": self._user.username,
            "password": self._user.password.reveal(),
            "domain": {"name": self._user.domain},
        }
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": self._user.project}}
        return httpx.Request(
            "POST",
            self._url,
            headers={**sign_in_headers(request), "Content-Type": "application/json"},
            content=msgspec.json.encode({"auth": {"identity": identity, "scope": scope}}),
            extensions=sign_in_extensions(request),
        )

    def _refusal(self, status: int) -> Unauthorized:
        return Unauthorized(
            f"{self._issuer} refused to sign in user {self._user.username!r} of domain"
            f" {self._user.domain!r} for project {self._user.project!r} (status {status}):"
            " check these names, the password and iam_endpoint",
            status=status,
        )


class _Token(msgspec.Struct, frozen=True):
    expires_at: Moment


class _TokenAnswer(msgspec.Struct, frozen=True):
    """The body of the response to a sign-in. The token itself is in a header."""

    token: _Token
