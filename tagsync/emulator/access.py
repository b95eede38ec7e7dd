"""The emulator's identity service, metadata service and check of credentials."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from tagsync.clock import Clock
from tagsync.emulator.answers import TEXT, Refusal, gateway_error, identity_error, json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.signatures import ALGORITHM, Keys, secrets_equal, signature_fault

AGENCY_ACCESS_KEY: Final = "EMULATEDAGENCYKEY001"
"""The access key that belongs to the argument ``agency`` of `Emulator`."""

_MAX_METADATA_TTL_SECONDS: Final = 21600
"""The maximum lifetime of a token of the metadata service."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the identity service.

    Attributes:
        password: The user's password.
        domain: The name of the account that the user belongs to.
        project: The name of the only project for which the user can get a token.
    """

    password: str = field(repr=False)
    domain: str
    project: str


class _Tokens:
    """Issued tokens. A token is valid until it expires or all tokens are revoked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expiries: dict[str, datetime] = {}

    def issue(self, lifetime: timedelta) -> tuple[str, datetime]:
        token, expires_at = secrets.token_hex(32), self._clock() + lifetime
        self._expiries[token] = expires_at
        return token, expires_at

    def is_valid(self, token: str) -> bool:
        now = self._clock()
        return any(
            secrets_equal(token, issued) and now < expires_at
            for issued, expires_at in self._expiries.items()
        )

    def revoke(self) -> None:
        self._expiries.clear()


class IdentityService:
    """The vendor's identity service (IAM), which issues a token for a password."""

    def __init__(self, users: Mapping[str, User], lifetime: timedelta, clock: Clock) -> None:
        self._users = users
        self._lifetime = lifetime
        self.tokens = _Tokens(clock)

    def sign_in(self, request: Request) -> Answer:
        """Answer a request in which a user asks for a token with a name and a password.

        Raises:
            Refusal: If the body is malformed, or the name, password, account or project is wrong.
        """
        user = self._authenticate(request.body)
        if user is None:
            raise Refusal(identity_error(401, "The username or password is wrong."))
        token, expires_at = self.tokens.issue(self._lifetime)
        project = {"name": user.project, "domain": {"name": user.domain}}
        body = {
            "methods": ["password"],
            "expires_at": _format_expiry(expires_at),
            "project": project,
        }
        return json_answer({"token": body}, {"X-Subject-Token": token}, status=201)

    def _authenticate(self, body: bytes) -> User | None:
        """Return the user, or `None` if the name, password, account or project is wrong."""
        match _auth_object(body):
            case {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": str(name),
                            "password": str(password),
                            "domain": {"name": str(domain)},
                        }
                    },
                },
                "scope": {"project": {"name": str(project)}},
            }:
                user = self._users.get(name)
            case _:
                raise Refusal(identity_error(400, "The request body is invalid."))
        if user is None or (domain, project) != (user.domain, user.project):
            return None
        return user if secrets_equal(password, user.password) else None


def _auth_object(body: bytes) -> object:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content.get("auth") if isinstance(content, dict) else None


class MetadataService:
    """The metadata service of an ECS host, which issues the keys of the host's agency.

    An agency is a role that is assigned to the host. The keys of an agency are temporary.
    """

    def __init__(
        self, agency: Keys | None, lifetime: timedelta, clock: Clock, *, requires_token: bool
    ) -> None:
        self._agency = agency
        self._requires_token = requires_token
        self._lifetime = lifetime
        self._clock = clock
        self._tokens = _Tokens(clock)
        self._expires_at: datetime | None = None

    def issue_token(self, request: Request) -> Answer:
        """Answer a request for a token of the metadata service."""
        if not self._requires_token:
            return Answer(405, b"", {"Allow": "GET"})
        ttl = request.headers.get("X-Metadata-Token-Ttl-Seconds", "")
        if not re.fullmatch("[0-9]{1,9}", ttl) or not 1 <= int(ttl) <= _MAX_METADATA_TTL_SECONDS:
            return Answer(400, b"Bad Request", TEXT)
        token, _ = self._tokens.issue(timedelta(seconds=int(ttl)))
        return Answer(200, token.encode(), TEXT)

    def issue_keys(self, request: Request) -> Answer:
        """Answer a request for the keys of the agency."""
        token = request.headers.get("X-Metadata-Token", "")
        if self._agency is None or (self._requires_token and not self._tokens.is_valid(token)):
            return Answer(401, b"Unauthorized", TEXT)
        if not self.valid_keys():
            self._expires_at = self._clock() + self._lifetime
        credential = {
            "access": AGENCY_ACCESS_KEY,
            "secret": self._agency.secret_key,
            "securitytoken": self._agency.security_token,
            "expires_at": _format_expiry(self._expires_at or self._clock()),
        }
        return json_answer({"credential": credential})

    def valid_keys(self) -> dict[str, Keys]:
        """Return the issued keys by access key. The result is empty if they have expired."""
        if self._agency is None or self._expires_at is None or self._clock() >= self._expires_at:
            return {}
        return {AGENCY_ACCESS_KEY: self._agency}


class Guard:
    """The gateway's check of each request's credential."""

    def __init__(
        self,
        token: str | None,
        keys: Mapping[str, Keys],
        identity: IdentityService,
        metadata: MetadataService,
    ) -> None:
        self._token = token
        self._keys = keys
        self._identity = identity
        self._metadata = metadata

    def check(self, request: Request, now: datetime) -> None:
        """Check the credential of a request.

        Raises:
            Refusal: If the request has no credential, or a wrong one.
        """
        if request.headers.get("Authorization", "").startswith(ALGORITHM):
            fault = signature_fault(request, {**self._keys, **self._metadata.valid_keys()}, now)
        else:
            fault = self._token_fault(request.headers.get("X-Auth-Token"))
        if fault is not None:
            message = f"Incorrect IAM authentication information: {fault}"
            raise Refusal(gateway_error(401, "APIGW.0301", message))

    def _token_fault(self, token: str | None) -> str | None:
        if token is None:
            return "the request has neither a token nor a signature"
        fixed = self._token is not None and secrets_equal(token, self._token)
        valid = fixed or self._identity.tokens.is_valid(token)
        return None if valid else "the token is wrong or has expired"


def _format_expiry(moment: datetime) -> str:
    """Format a time as IAM and the metadata service do, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
