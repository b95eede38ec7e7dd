"""Check the signatures of requests, as the vendor's gateway does."""

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
"""The maximum difference between a request's date and the emulator's clock."""

ALGORITHM: Final = "SDK-HMAC-SHA256"
"""The signing algorithm. The header ``Authorization`` of a signed request begins with its name."""

_DATE: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} Access=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{{64}})"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The secret key of an access key, and headers that its requests must contain.

    Attributes:
        secret_key: The key that signs requests.
        security_token: The token of temporary keys, or None if the keys are permanent. Each request
            must send the token as ``X-Security-Token`` and sign this header.
        project_id: The id of a project, or None. Each request must send the id as ``X-Project-Id``
            and sign this header.
    """

    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    project_id: str | None = None


def signature_fault(request: Request, keys: Mapping[str, Keys], now: datetime) -> str | None:
    """Return the reason why a request's signature is wrong, or None if it is right.

    The check follows the vendor's API signing guide and, where the guide is unclear, the vendor's
    SDKs. It shares no code with tagsync's own signing, so that a test can compare the two.

    Args:
        request: The request as received.
        keys: The keys by access key.
        now: The time to compare the request's date with, with a time zone.

    Returns:
        The reason, as a clause that contains no secret.
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
    expected = _signature(request, names, key.secret_key)
    return None if secrets_equal(signature, expected) else "the signature is wrong"


def _header_fault(request: Request, key: Keys, names: Sequence[str]) -> str | None:
    missing = ({"host", "x-sdk-date"} - set(names)) or {
        name for name in names if name not in request.headers
    }
    if missing:
        return f"{', '.join(sorted(missing))} is not signed or not sent"
    required = {"X-Security-Token": key.security_token, "X-Project-Id": key.project_id}
    for name, value in required.items():
        if value is not None and name.lower() not in names:
            return f"{name} is not signed"
        if value is not None and not secrets_equal(request.headers[name], value):
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
    # http.server decodes header values as Latin-1, so Latin-1 restores the bytes that were sent.
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
    """Return a path as it is signed: encoded again, and with a slash at its end.

    The slash is signed even if the client did not send it.
    """
    encoded = "/".join(_encode(part) for part in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


def _canonical_query(query: str) -> str:
    # `unquote` does not decode a plus as a space, and the vendor requires %20 for a space.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    decoded = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in decoded)


def _encode(text: str) -> str:
    return quote(text, safe="~")


def secrets_equal(given: str, expected: str) -> bool:
    """Compare two secrets in a time that does not depend on their contents."""
    return compare_digest(
        given.encode(errors="surrogatepass"), expected.encode(errors="surrogatepass")
    )
