"""Sign requests with an access key (AK/SK), by the algorithm ``SDK-HMAC-SHA256``.

Source: the vendor's "API signing guide".
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import httpx

from tagsync.clock import Clock
from tagsync.registries.credentials import KeyCredential
from tagsync.registries.renewal import FixedAuth, check_header_value, check_secret
from tagsync.secrets import Secret

_ALGORITHM: Final = "SDK-HMAC-SHA256"

_SIGNED: Final = ("content-type", "host", "x-project-id", "x-sdk-date", "x-security-token")
"""The headers to sign, as far as a request has them."""


def canonical_path(path: bytes) -> str:
    """Return the path to sign: percent-encoded by RFC 3986, with a slash at the end.

    Args:
        path: The path as it is sent.
    """
    # Encode bytes instead of text: a percent-encoded byte may be invalid as UTF-8.
    parts = unquote_to_bytes(path).split(b"/")
    quoted = "/".join(quote(part, safe="~") for part in parts)
    return quoted if quoted.endswith("/") else quoted + "/"


def canonical_query(query: bytes) -> str:
    """Return the query to sign and to send: sorted, and percent-encoded by RFC 3986.

    Args:
        query: The query in any encoding. ``+`` means a space, because httpx encodes a space as
            ``+``.
    """
    fields = (field.replace(b"+", b" ").partition(b"=") for field in query.split(b"&") if field)
    pairs = sorted((unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in fields)
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)


def canonical_request(
    method: str, path: bytes, query: bytes, headers: Mapping[str, str], body: bytes
) -> str:
    """Return the canonical request: the text that the client and the server hash.

    Args:
        method: The HTTP method.
        path: The path as it is sent.
        query: The query in any encoding and order.
        headers: The headers to sign, by lower-case name.
        body: The whole body.
    """
    return "\n".join(
        (
            method.upper(),
            canonical_path(path),
            canonical_query(query),
            *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
            "",
            ";".join(sorted(headers)),
            hashlib.sha256(body).hexdigest(),
        )
    )


def string_to_sign(date: str, canonical: str) -> str:
    """Return the text to sign with the secret key.

    Args:
        date: The request's ``X-Sdk-Date``.
        canonical: The result of `canonical_request`.
    """
    return f"{_ALGORITHM}\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def signature(secret_key: Secret, text: str) -> str:
    """Sign `text`, a result of `string_to_sign`, and return the hexadecimal signature."""
    return hmac.new(secret_key.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()


class SigningAuth(FixedAuth):
    """An access key, which signs each request.

    The query is sent in the same form in which it is signed. The path is sent unchanged, with ``$``
    as ``$``, but is signed in its canonical form. The vendor's SDK does the same.
    """

    def __init__(self, keys: KeyCredential[Secret], clock: Clock) -> None:
        """Check the keys.

        Args:
            keys: The secret key signs each request and is never sent. The access key and the
                security token are sent; both are treated as secrets, too.
            clock: Returns the date of a request. The registry accepts a difference of 15 minutes
                from its own clock.

        Raises:
            ConfigError: If the secret key is empty or not UTF-8 text, or if an HTTP header cannot
                carry one of the other values.
        """
        check_header_value("access_key", keys.access_key.reveal())
        check_secret("secret_key", keys.secret_key)
        if keys.security_token is not None:
            check_header_value("security_token", keys.security_token.reveal())
        if keys.project_id is not None:
            check_header_value("project_id", keys.project_id)
        self._keys = keys
        self._clock = clock

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The access key, the secret key, and the security token if there is one."""
        keys = self._keys
        token = () if keys.security_token is None else (keys.security_token,)
        return (keys.access_key, keys.secret_key, *token)

    def authenticate(self, request: httpx.Request) -> None:
        """Set the date and the signature of a request that is about to be sent."""
        keys, headers = self._keys, request.headers
        date = self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers["X-Sdk-Date"] = date
        if keys.project_id is not None:
            headers["X-Project-Id"] = keys.project_id
        if keys.security_token is not None:
            headers["X-Security-Token"] = keys.security_token.reveal()
        query = canonical_query(request.url.query).encode()
        request.url = request.url.copy_with(query=query or None)
        signed = {name: headers[name] for name in _SIGNED if name in headers}
        # httpx has normalised the path. Sign this form, because it is the one that is sent.
        path = request.url.raw_path.partition(b"?")[0]
        canonical = canonical_request(request.method, path, query, signed, request.content)
        headers["Authorization"] = (
            f"{_ALGORITHM} Access={keys.access_key.reveal()},"
            f" SignedHeaders={';'.join(sorted(signed))},"
            f" Signature={signature(keys.secret_key, string_to_sign(date, canonical))}"
        )
