"""Tokens of the identity service (IAM)."""

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import (
    MalformedResponse,
    Unauthorized,
)
from tagsync.registries.renewal import (
    SIGN_IN_TIMEOUT,
    FixedAuth,
    Obtaining,
    RenewedAuth,
    _Moment,
    _url,
    check_for_header,
    check_text,
    decode,
    fits_header,
    headers_like,
    raise_if_passing,
    raise_unless_success,
)
from tagsync.secrets import Secret


class TokenAuth(FixedAuth):
    """A token of the identity service (IAM), sent as ``X-Auth-Token``."""

    def __init__(self, token: Secret) -> None:
        """Takes the token.

        Raises:
            ConfigError: no HTTP header can carry it.
        """
        check_for_header("token", token.reveal())
        self._token = token

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The token."""
        return (self._token,)

    def mark(self, request: httpx.Request) -> None:
        """Sets ``X-Auth-Token``."""
        request.headers["X-Auth-Token"] = self._token.reveal()


class PasswordAuth(RenewedAuth):
    """A user's password, for which IAM gives a token scoped to one project.

    ``POST {iam}/v3/auth/tokens?nocatalog=true``; the token comes in ``X-Subject-Token`` and lives
    24 hours, or less after a change of password or permissions.
    """

    def __init__(
        self,
        iam_endpoint: str,
        username: str,
        password: Secret,
        domain: str,
        project: str,
        *,
        clock: Clock,
    ) -> None:
        """Sends nothing yet.

        Args:
            iam_endpoint: the URL of the identity service, without a path.
            username: of an IAM user.
            password: of that user.
            domain: the account's name, which the user belongs to.
            project: the project's name, usually the region's.
            clock: tells when the token is due.

        Raises:
            ConfigError: the endpoint is no URL, or the password no text.
        """
        super().__init__(clock)
        check_text("password", password)
        self._url = _url("iam_endpoint", iam_endpoint, "/v3/auth/tokens?nocatalog=true")
        self._source = self._url.host
        self._username = username
        self._password = password
        self._domain = domain
        self._project = project

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password, and the tokens in use."""
        return (self._password, *super().secrets)

    def _obtain(self, request: httpx.Request) -> Obtaining:
        response = yield self._sign_in(request)
        raise_if_passing(response, self._source, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._source, "iam_endpoint")
        answer = decode(response, _TokenAnswer, self._source, self._clock)
        token = response.headers.get("X-Subject-Token", "")
        if not fits_header(token):
            raise MalformedResponse(
                f"{self._source} answered a sign-in without a usable X-Subject-Token:"
                " check iam_endpoint",
                status=response.status_code,
            )
        return TokenAuth(Secret(token)), answer.token.expires_at

    def _sign_in(self, request: httpx.Request) -> httpx.Request:
        user = {
            "name": self._username,
            "password": self._password.reveal(),
            "domain": {"name": self._domain},
        }
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": self._project}}
        # httpx puts the client's timeout on the request that it was given and on no other; without
        # one, a server that never answers would hold every thread.
        timeout = request.extensions.get("timeout", SIGN_IN_TIMEOUT.as_dict())
        return httpx.Request(
            "POST",
            self._url,
            headers={**headers_like(request), "Content-Type": "application/json"},
            content=msgspec.json.encode({"auth": {"identity": identity, "scope": scope}}),
            extensions={"timeout": timeout},
        )

    def _refusal(self, status: int) -> Unauthorized:
        return Unauthorized(
            f"{self._source} refused to sign in user {self._username!r} of domain"
            f" {self._domain!r} for project {self._project!r} (status {status}):"
            " check these names, the password and iam_endpoint",
            status=status,
        )


class _Token(msgspec.Struct, frozen=True):
    expires_at: _Moment


class _TokenAnswer(msgspec.Struct, frozen=True):
    """The body of a sign-in, of which only the expiry matters."""

    token: _Token
