"""Bearer tokens, each for one repository, from a registry's token server.

Sources: RFC 6750 (Bearer); the Distribution project's "Token authentication specification" and
"Oauth2 token authentication" (identity tokens).
"""

import json
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import (
    Forbidden,
    MalformedResponse,
    NewTokenRefused,
    RegistryError,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.registries.oci.challenges import (
    TokenChallenge,
    challenges_of,
    joined_scope,
    token_challenge,
)
from tagsync.registries.oci.shared_login import Login, LoginFlow, SharedLogin, basic_credentials
from tagsync.registries.renewal import (
    REPEAT_REFUSAL_FOR,
    BearerToken,
    Fetch,
    FixedAuth,
    Lease,
    RenewedAuth,
    decode_credentials,
    discard_body,
    is_header_value,
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

MAX_LIFETIME: Final = timedelta(days=1)
"""The maximum time that a token is used, if the response names a longer lifetime."""

NEW_FOR: Final = timedelta(seconds=3)
"""How long after its issue a refused token may still be accepted, because clocks differ."""

RETRY_NEW_AFTER: Final = 1.0
"""Seconds to wait before a request is repeated with a new token that was refused."""

MAX_USELESS_WAITS: Final = 3
"""How often in a row it may be useless to wait for a new token before tagsync stops to wait."""

MAX_REDIRECTS: Final = 5
"""Maximum number of redirects of a request for a token."""

_CLIENT_ID: Final = "tagsync"


class _TokenAuth(BearerToken):
    """A token for one repository.

    Attributes:
        scope: The permissions that were requested.
    """

    def __init__(self, token: Secret, scope: str) -> None:
        super().__init__(token)
        self.scope = scope


class Patience:
    """Whether it is worth waiting until a registry accepts its new tokens.

    The clocks of a registry's machines may differ, so that a token is refused for a second after
    it was issued. A registry may also refuse each token for a repository that the user must not
    read. If waiting did not help several times in a row, all repositories of a registry stop
    waiting.
    """

    def __init__(self) -> None:
        self._useless = 0

    @property
    def is_left(self) -> bool:
        """Whether to wait for the next new token."""
        return self._useless < MAX_USELESS_WAITS

    def note(self, lease: Lease) -> None:
        """Note whether waiting has helped, for a token that was refused when it was new."""
        if lease.is_refused_when_new:
            self._useless = 0 if lease.is_accepted else self._useless + 1
            lease.is_refused_when_new = False


class BearerAuth(RenewedAuth):
    """Tokens for one repository, from the token server that the challenge names."""

    _renew_before = RENEW_BEFORE
    _useless_for = REPEAT_REFUSAL_FOR
    _repeat_refusal_for = timedelta(0)  # `SharedLogin` decides when a login is sent again

    def __init__(
        self,
        challenge: TokenChallenge,
        endpoint: httpx.URL,
        repository: str,
        login: SharedLogin,
        clock: Clock,
        patience: Patience,
    ) -> None:
        """Prepare the flow. No request is sent yet."""
        super().__init__(clock)
        self._challenge = challenge
        self._endpoint = endpoint
        self._repository = repository
        self._login = login
        self._patience = patience
        self._joins_scopes = True

    @property
    def _issuer(self) -> str:  # type: ignore[override]  # it changes with the challenge
        return self._challenge.realm.host

    def update_challenge(self, response: httpx.Response) -> None:
        """Update the challenge from a refusal.

        The token server may have moved, or the request may need more permissions.
        """
        self._challenge = self._new_challenge(response) or self._challenge

    def _new_challenge(self, response: httpx.Response) -> TokenChallenge | None:
        """Return the challenge of a refusal, or None if it asks for no other token."""
        challenge = self._challenge_of(response)
        if challenge is None:
            return None
        if self._joins_scopes:
            scope = joined_scope(self._challenge.scope, challenge.scope)
            challenge = challenge._replace(scope=scope)
        return None if challenge == self._challenge else challenge

    def _challenge_of(self, response: httpx.Response) -> TokenChallenge | None:
        parameters = challenges_of(response).get("bearer")
        if parameters is None:
            return None
        return token_challenge(parameters, self._endpoint, self._repository)

    def _note_refused_scope(self, response: httpx.Response, lease: Lease) -> None:
        """Join no more scopes if the registry refuses a token that has the joined ones.

        Such a registry wants tokens with exactly the permissions that its challenge names.
        """
        asked, had = self._challenge_of(response), _scope_of(lease)
        if asked is None or lease.is_accepted or had == asked.scope:
            return
        if had == joined_scope(had, asked.scope):
            self._joins_scopes = False

    def _is_refusal(self, response: httpx.Response) -> bool:
        """Return whether the registry may have refused the token.

        Some registries refuse an expired token with 400 or 403.
        """
        return response.status_code in {
            httpx.codes.UNAUTHORIZED,
            httpx.codes.FORBIDDEN,
            httpx.codes.BAD_REQUEST,
        }

    def _should_renew(self, response: httpx.Response, lease: Lease) -> bool:
        self._note_refused_scope(response, lease)
        # Another thread may have updated the challenge since this token was fetched.
        if self._new_challenge(response) or _scope_of(lease) != self._challenge.scope:
            return True
        if asks_for_password(response):
            return False
        if lease.is_accepted:
            return not self._renewal_is_useless()
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return False
        waited = lease.is_refused_when_new
        self._wait_if_new(lease)
        return not waited

    def _note_second_refusal(self, response: httpx.Response, lease: Lease) -> None:
        super()._note_second_refusal(response, lease)
        self._note_refused_scope(response, lease)
        if response.status_code == httpx.codes.UNAUTHORIZED and not asks_for_password(response):
            self._wait_if_new(lease)

    def _wait_if_new(self, lease: Lease) -> None:
        """Make the caller repeat the request if the registry refused a new token.

        Raises:
            NewTokenRefused: If the token is new, so that the registry may accept it soon.
        """
        age = abs(self._clock() - lease.fetched_at)
        if age < NEW_FOR and self._patience.is_left and not lease.is_accepted:
            lease.is_refused_when_new = True
            raise NewTokenRefused(
                f"{self._endpoint.host} refuses the token that {self._issuer} has just issued"
                f" for {truncate(self._challenge.scope)} (status 401): check the credentials and"
                " their permissions",
                retry_after=RETRY_NEW_AFTER,
                status=httpx.codes.UNAUTHORIZED,
            )
        self._patience.note(lease)
        lease.renew_at = self._clock()

    def _note_accepted(self, lease: Lease) -> None:
        super()._note_accepted(lease)
        self._patience.note(lease)

    def _note_replaced(self, lease: Lease | None) -> None:
        if lease is not None:
            self._patience.note(lease)

    def fetch(self, request: httpx.Request) -> Fetch:
        """Fetch a token, and the time when it expires.

        The token is requested with the login, or anonymously without one.
        """

        def fetch_with(login: Login | None) -> LoginFlow[tuple[FixedAuth, datetime]]:
            sent_at, challenge = self._clock(), self._challenge
            response = yield from self._ask(challenge, login, request)
            if response.is_client_error:
                raise self._refusal(response.status_code, login)
            raise_unless_success(response, self._issuer, "the registry's endpoint")
            answer = decode_credentials(response, _TokenAnswer, self._issuer, self._clock)
            stripped = (text.strip() for text in (answer.token, answer.access_token) if text)
            token = next(filter(is_header_value, stripped), None)
            if token is None:
                raise MalformedResponse(f"{self._issuer} answered without a token")
            return _TokenAuth(Secret(token), challenge.scope), sent_at + answer.lifetime

        def probe(login: Login) -> LoginFlow[bool | None]:
            """Request a token without permissions, as ``docker login`` does."""
            plain = self._challenge._replace(scope="")
            response = yield from self._ask(plain, login, request)
            discard_body(response)
            # A token server may also refuse a request that names no repository.
            return True if response.is_success else None

        return (yield from self._login.use(self._repository, fetch_with, probe))

    def _ask(
        self, challenge: TokenChallenge, login: Login | None, on_behalf_of: httpx.Request
    ) -> LoginFlow[httpx.Response]:
        """Send a request for a token, and follow redirects within the token server.

        Raises:
            Throttled, Busy: If a later request may succeed, by the response's status.
        """
        request = _token_request(challenge, login, on_behalf_of)
        response = yield request
        for _ in range(MAX_REDIRECTS):
            target = _redirect_target(request, response)
            if target is None:
                break
            discard_body(response)
            request = httpx.Request(
                request.method,
                target,
                headers={k: v for k, v in request.headers.items() if k.lower() != "host"},
                content=request.content,
                extensions=request.extensions,
            )
            response = yield request
        raise_if_transient(response, self._issuer, self._clock)
        return response

    def _refusal(self, status: int, login: Login | None) -> RegistryError:
        if login is None:
            user = "an anonymous user"
        elif login.username is None:
            user = "an identity token"
        else:
            user = f"user {login.username!r}"
        kind = Unauthorized if status == httpx.codes.UNAUTHORIZED else Forbidden
        scope = truncate(self._challenge.scope)
        return kind(
            f"{self._issuer} gave no token for {scope} to {user} (status {status}): check the"
            " credentials and their permissions",
            status=status,
        )


class _TokenAnswer(msgspec.Struct, frozen=True):
    """The body of a token server's response. OAuth 2 calls a token ``access_token``.

    Either token may be an empty string. The lifetime may have any form.
    """

    token: str | None = None
    access_token: str | None = None
    expires_in: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def lifetime(self) -> timedelta:
        """How long the token is valid."""
        try:
            # Python's decoder accepts all numbers; msgspec refuses 1e400.
            seconds = float(json.loads(bytes(self.expires_in)))
        except (TypeError, ValueError, OverflowError, RecursionError):
            return DEFAULT_LIFETIME
        if not seconds > 0:  # also if it is not a number (NaN)
            return DEFAULT_LIFETIME
        return timedelta(seconds=min(seconds, MAX_LIFETIME.total_seconds()))


def _scope_of(lease: Lease) -> str:
    """Return the scope of a token that `BearerAuth` has fetched."""
    auth = lease.auth
    assert isinstance(auth, _TokenAuth), "BearerAuth fetches no other credential"  # noqa: S101  tells the type checker
    return auth.scope


def asks_for_password(response: httpx.Response) -> bool:
    """Return whether a response challenges for a user and a password, and for nothing else."""
    challenges = challenges_of(response)
    return "basic" in challenges and "bearer" not in challenges


def _redirect_target(request: httpx.Request, response: httpx.Response) -> httpx.URL | None:
    """Return the URL to which a token server redirects a request.

    Returns:
        None if the response is not a redirect, or if the URL is at another host. The login must not
        be sent there.
    """
    if not response.has_redirect_location or (
        request.method == "POST" and response.status_code not in {307, 308}
    ):
        return None
    try:
        target = request.url.join(response.headers["Location"])
    except httpx.InvalidURL:
        return None
    here = request.url
    same = (here.scheme, here.host, here.port) == (target.scheme, target.host, target.port)
    if not same or target.userinfo:
        return None
    return target if target.query else target.copy_with(query=here.query)


def _token_request(
    challenge: TokenChallenge, login: Login | None, on_behalf_of: httpx.Request
) -> httpx.Request:
    """Return the request for a token.

    A user and a password are sent in a header of a GET request, an identity token is sent in the
    form of a POST request.
    """
    optional = {"service": challenge.service, "scope": challenge.scope}
    parameters = {name: value for name, value in optional.items() if value}
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
