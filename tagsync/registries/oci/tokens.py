"""Bearer tokens, each for one repository, from a registry's token server.

Sources: RFC 6750 (Bearer); the Distribution project's "Token authentication specification" and
"Oauth2 token authentication" (identity tokens).
"""

from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlencode

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import Forbidden, MalformedResponse, RegistryError, Unauthorized
from tagsync.escaping import truncate
from tagsync.registries.oci.challenges import TokenChallenge, challenges_of, token_challenge
from tagsync.registries.oci.shared_login import Login, LoginFlow, SharedLogin, basic_credentials
from tagsync.registries.renewal import (
    Fetch,
    FixedAuth,
    RenewedAuth,
    decode_credentials,
    raise_if_transient,
    raise_unless_success,
    sign_in_extensions,
    sign_in_headers,
)
from tagsync.secrets import Secret

DEFAULT_LIFETIME: Final = timedelta(seconds=60)
"""The lifetime of a token if the response does not name it, by the specification."""

RENEW_BEFORE: Final = timedelta(seconds=10)
"""How long before its expiry time a token is renewed. Tokens are valid for minutes only."""

_CLIENT_ID: Final = "tagsync"


class _TokenAuth(FixedAuth):
    """A token for one repository."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return (self._token,)

    def authenticate(self, request: httpx.Request) -> None:
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"


class BearerAuth(RenewedAuth):
    """Tokens for one repository, from the token server that the challenge names."""

    _renew_before = RENEW_BEFORE

    def __init__(
        self, challenge: TokenChallenge, endpoint: httpx.URL, login: SharedLogin, clock: Clock
    ) -> None:
        """Prepare the flow. No request is sent yet."""
        super().__init__(clock)
        self._challenge = challenge
        self._endpoint = endpoint
        self._login = login

    @property
    def _issuer(self) -> str:  # type: ignore[override]  # it changes with the challenge
        return self._challenge.realm.host

    def update_challenge(self, response: httpx.Response) -> None:
        """Update the challenge from a 401 response: the token server may have moved."""
        challenges = challenges_of(response)
        if "bearer" in challenges:
            self._challenge = token_challenge(challenges["bearer"], self._endpoint)

    def fetch(self, request: httpx.Request) -> Fetch:
        """Fetch a token, and the time when it expires.

        The token is requested with the login, or anonymously without one.
        """

        def fetch_with(login: Login | None) -> LoginFlow[tuple[FixedAuth, datetime]]:
            sent_at = self._clock()
            response = yield _token_request(self._challenge, login, request)
            raise_if_transient(response, self._issuer, self._clock)
            if response.is_client_error:
                raise self._refusal(response.status_code, login)
            raise_unless_success(response, self._issuer, "the registry's endpoint")
            answer = decode_credentials(response, _TokenAnswer, self._issuer, self._clock)
            token = answer.token or answer.access_token
            if token is None:
                raise MalformedResponse(f"{self._issuer} answered without a token")
            return _TokenAuth(token), sent_at + answer.lifetime

        return (yield from self._login.use(fetch_with))

    def _refusal(self, status: int, login: Login | None) -> RegistryError:
        if login is None:
            user = "an anonymous user"
        elif login.username is None:
            user = "an identity token"
        else:
            user = f"user {login.username!r}"
        kind = Unauthorized if status == httpx.codes.UNAUTHORIZED else Forbidden
        scope = truncate(self._challenge.scope or "no scope")
        return kind(
            f"{self._issuer} gave no token for {scope} to {user} (status {status}): check the"
            " credentials and their permissions",
            status=status,
        )


class _TokenAnswer(msgspec.Struct, frozen=True):
    """The body of a token server's response. OAuth 2 calls a token ``access_token``."""

    token: Secret | None = None
    access_token: Secret | None = None
    expires_in: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None

    @property
    def lifetime(self) -> timedelta:
        return DEFAULT_LIFETIME if self.expires_in is None else timedelta(seconds=self.expires_in)


def _token_request(
    challenge: TokenChallenge, login: Login | None, on_behalf_of: httpx.Request
) -> httpx.Request:
    """Return the request for a token.

    A user and a password are sent in a header of a GET request, an identity token is sent in the
    form of a POST request.
    """
    optional = {"service": challenge.service, "scope": challenge.scope}
    parameters = {name: value for name, value in optional.items() if value is not None}
    headers = sign_in_headers(on_behalf_of)
    extensions = sign_in_extensions(on_behalf_of)
    if login is not None and login.username is None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        form = {
            "grant_type": "refresh_token",
            "client_id": _CLIENT_ID,
            "refresh_token": login.secret.reveal(),
            **parameters,
        }
        content = urlencode(form).encode()
        return httpx.Request(
            "POST", challenge.realm, headers=headers, content=content, extensions=extensions
        )
    if login is not None:
        headers["Authorization"] = f"Basic {basic_credentials(login)}"
    url = challenge.realm.copy_merge_params(parameters)
    return httpx.Request("GET", url, headers=headers, extensions=extensions)
