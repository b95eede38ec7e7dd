"""Who may ask: the identity service, an ECS host's metadata service, and the gateway's check."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from tagsync.clock import Clock
from tagsync.emulator.answers import TEXT, Refusal, as_json, gateway, identity_refusal
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.signatures import ALGORITHM, Keys, same, signature_fault

AGENCY_ACCESS_KEY: Final = "EMULATEDAGENCYKEY001"
"""The access key that goes with the keys of an `Emulator`'s ``agency``."""

_MAX_METADATA_TTL: Final = 21600
"""Seconds: the longest life that the metadata service gives to a token."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in.

    Attributes:
        password: of the user.
        domain: the name of the account that the user belongs to.
        project: the name of the project that the token may be for.
    """

    password: str = field(repr=False)
    domain: str
    project: str


class _Tokens:
    """Those that were issued, each until it expires."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expiries: dict[str, datetime] = {}

    def issue(self, lifetime: timedelta) -> tuple[str, datetime]:
        token, expires_at = secrets.token_hex(32), self._clock() + lifetime
        self._expiries[token] = expires_at
        return token, expires_at

    def accept(self, token: str) -> bool:
        now = self._clock()
        return any(
            same(token, issued) and now < expires_at
            for issued, expires_at in self._expiries.items()
        )

    def revoke(self) -> None:
        self._expiries.clear()


class Identity:
    """The vendor's identity service (IAM): a token for a password."""

    def __init__(self, users: Mapping[str, User], lifetime: timedelta, clock: Clock) -> None:
        self._users = users
        self._lifetime = lifetime
        self.tokens = _Tokens(clock)

    def sign_in(self, request: Request) -> Answer:
        """Answers who asks for a token with a password."""
        user = self._user(request.body)
        if user is None:
            raise Refusal(identity_refusal(401, "The username or password is wrong."))
        token, expires_at = self.tokens.issue(self._lifetime)
        project = {"name": user.project, "domain": {"name": user.domain}}
        body = {"methods": ["password"], "expires_at": _expiry(expires_at), "project": project}
        return as_json({"token": body}, {"X-Subject-Token": token}, status=201)

    def _user(self, body: bytes) -> User | None:
        """Whose name, password, account and project a sign-in gives; null where one is wrong."""
        match _sign_in_of(body):
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
                raise Refusal(identity_refusal(400, "The request body is invalid."))
        if user is None or (domain, project) != (user.domain, user.project):
            return None
        return user if same(password, user.password) else None


def _sign_in_of(body: bytes) -> object:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content.get("auth") if isinstance(content, dict) else None


class Metadata:
    """The service at which an ECS host finds the keys of its agency."""

    def __init__(
        self, agency: Keys | None, lifetime: timedelta, clock: Clock, *, wants_tokens: bool
    ) -> None:
        self._agency = agency
        self._wants_tokens = wants_tokens
        self._lifetime = lifetime
        self._clock = clock
        self._tokens = _Tokens(clock)
        self._expires_at: datetime | None = None

    def give_token(self, request: Request) -> Answer:
        """Answers who asks for a token of the metadata service."""
        if not self._wants_tokens:
            return Answer(405, b"", {"Allow": "GET"})
        ttl = request.headers.get("X-Metadata-Token-Ttl-Seconds", "")
        if not re.fullmatch("[0-9]{1,9}", ttl) or not 1 <= int(ttl) <= _MAX_METADATA_TTL:
            return Answer(400, b"Bad Request", TEXT)
        token, _ = self._tokens.issue(timedelta(seconds=int(ttl)))
        return Answer(200, token.encode(), TEXT)

    def give_keys(self, request: Request) -> Answer:
        """Answers who asks for the keys of the agency."""
        given = request.headers.get("X-Metadata-Token", "")
        if self._agency is None or (self._wants_tokens and not self._tokens.accept(given)):
            return Answer(401, b"Unauthorized", TEXT)
        if not self.keys():
            self._expires_at = self._clock() + self._lifetime
        credential = {
            "access": AGENCY_ACCESS_KEY,
            "secret": self._agency.secret_key,
            "securitytoken": self._agency.security_token,
            "expires_at": _expiry(self._expires_at or self._clock()),
        }
        return as_json({"credential": credential})

    def keys(self) -> dict[str, Keys]:
        """Those that were given away and have not expired."""
        if self._agency is None or self._expires_at is None or self._clock() >= self._expires_at:
            return {}
        return {AGENCY_ACCESS_KEY: self._agency}


class Guard:
    """Lets those pass who show a credential that somebody has."""

    def __init__(
        self,
        token: str | None,
        keys: Mapping[str, Keys],
        identity: Identity,
        metadata: Metadata,
    ) -> None:
        self._token = token
        self._keys = keys
        self._identity = identity
        self._metadata = metadata

    def check(self, request: Request, now: datetime) -> None:
        """Raises `Refusal` unless a request shows one."""
        if request.headers.get("Authorization", "").startswith(ALGORITHM):
            fault = signature_fault(request, {**self._keys, **self._metadata.keys()}, now)
        else:
            fault = self._token_fault(request.headers.get("X-Auth-Token"))
        if fault is not None:
            message = f"Incorrect IAM authentication information: {fault}"
            raise Refusal(gateway(401, "APIGW.0301", message))

    def _token_fault(self, given: str | None) -> str | None:
        if given is None:
            return "the request has neither a token nor a signature"
        if self._token is not None and same(given, self._token):
            return None
        return None if self._identity.tokens.accept(given) else "the token is wrong or has expired"


def _expiry(moment: datetime) -> str:
    """As IAM and the metadata service write it, with six fractional digits."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
