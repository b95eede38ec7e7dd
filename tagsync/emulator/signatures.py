"""Signatures of requests, ``SDK-HMAC-SHA256``, as the vendor's gateway checks them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final
from urllib.parse import quote, unquote

from tagsync.emulator.http import Request

SKEW_ALLOWED: Final = timedelta(minutes=15)
"""How far the date of a signed request may be from the emulator's clock."""

ALGORITHM: Final = "SDK-HMAC-SHA256"
"""How the ``Authorization`` of a signed request begins."""

_DATE: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} Access=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{{64}})"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """What belongs to an access key.

    Attributes:
        secret_key: what requests are signed with.
        security_token: what temporary keys come with; each request has to send and sign it.
        project_id: where given, each request has to send and sign it as ``X-Project-Id``.
    """

    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    project_id: str | None = None


def signature_fault(request: Request, keys: Mapping[str, Keys], now: datetime) -> str | None:
    """What is wrong with the signature of a request (``SDK-HMAC-SHA256``).

    Follows the vendor's API signing guide and, where that leaves something open, what its SDKs
    sign. Pure, and no part of the client under test: it takes the request as it was received.

    Args:
        request: with the target as it was sent.
        keys: by access key.
        now: what the request's date is held against, aware of its time zone.

    Returns:
        A sentence without a secret in it; null where the signature is right.
    """
    match = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        return "the Authorization header is malformed"
    access_key, signed, signature = match.groups()
    names = signed.split(";")
    if access_key not in keys:
        return "the access key is unknown"
    key = keys[access_key]
    fault = _header_fault(request, key, names) or _date_fault(request, now)
    if fault is not None:
        return fault
    right = _signature(request, names, key.secret_key)
    return None if same(signature, right) else "the signature is wrong"


def _header_fault(request: Request, key: Keys, names: Sequence[str]) -> str | None:
    missing = ({"host", "x-sdk-date"} - set(names)) or {
        name for name in names if name not in request.headers
    }
    if missing:
        return f"{', '.join(sorted(missing))} is not signed or not sent"
    wanted = {"X-Security-Token": key.security_token, "X-Project-Id": key.project_id}
    for name, value in wanted.items():
        if value is not None and name.lower() not in names:
            return f"{name} is not signed"
        if value is not None and not same(request.headers[name], value):
            return f"{name} is wrong"
    return None


def _date_fault(request: Request, now: datetime) -> str | None:
    try:
        date = datetime.strptime(request.headers["X-Sdk-Date"], _DATE).replace(tzinfo=UTC)
    except ValueError:
        return "X-Sdk-Date is malformed"
    if abs(date - now) > SKEW_ALLOWED:
        return "X-Sdk-Date is more than 15 minutes off"
    return None


def _signature(request: Request, names: Sequence[str], secret_key: str) -> str:
    # Header values were decoded as Latin-1, so that this gives their bytes back; the rest is ASCII.
    hashed = sha256(_canonical_request(request, names).encode("latin-1")).hexdigest()
    text = f"{ALGORITHM}\n{request.headers['X-Sdk-Date']}\n{hashed}"
    return hmac_digest(secret_key.encode(), text.encode("latin-1"), "sha256").hex()


def _canonical_request(request: Request, names: Sequence[str]) -> str:
    path, _, query = request.target.partition("?")
    ordered = sorted(names)
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in ordered)
    return "\n".join(
        (
            request.method,
            _canonical_path(path),
            _canonical_query(query),
            headers,
            ";".join(ordered),
            sha256(request.body).hexdigest(),
        )
    )


def _canonical_path(path: str) -> str:
    """Every part encoded anew, and a slash at the end, which is signed though it is not sent."""
    encoded = "/".join(_encode(part) for part in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


def _canonical_query(query: str) -> str:
    # A plus is one: a space is signed, and has to be sent, as %20.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    decoded = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in decoded)


def _encode(text: str) -> str:
    return quote(text, safe="~")


def same(given: str, right: str) -> bool:
    """Whether a secret is the right one, in a time that does not tell how far it is."""
    return compare_digest(
        given.encode(errors="surrogatepass"), right.encode(errors="surrogatepass")
    )
