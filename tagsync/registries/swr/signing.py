"""Sign requests with an access key (``SDK-HMAC-SHA256``)."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import httpx

from tagsync.clock import Clock
from tagsync.registries.renewal import FixedAuth, check_for_header, check_text
from tagsync.secrets import Secret

_ALGORITHM: Final = "SDK-HMAC-SHA256"

_SIGNED: Final = ("content-type", "host", "x-project-id", "x-sdk-date", "x-security-token")


def canonical_path(path: bytes) -> str:
    """The path as it is signed: unquoted once, each part quoted again, with a slash at its end.

    Args:
        path: as it is sent.
    """
    # Bytes, not text: an escape that is not UTF-8 stays what it is.
    parts = unquote_to_bytes(path).split(b"/")
    quoted = "/".join(quote(part, safe="~") for part in parts)
    return quoted if quoted.endswith("/") else quoted + "/"


def canonical_query(query: bytes) -> str:
    """The query as it is signed, and must be sent: sorted pairs, RFC 3986, space as ``%20``.

    Args:
        query: in any encoding; ``+`` is a space, which is how httpx writes one.
    """
    fields = (field.replace(b"+", b" ").partition(b"=") for field in query.split(b"&") if field)
    pairs = sorted((unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in fields)
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)


def canonical_request(
    method: str, path: bytes, query: bytes, headers: Mapping[str, str], body: bytes
) -> str:
    """What a request says, in the one form that both sides hash.

    Args:
        method: as it is sent.
        path: as it is sent.
        query: in any encoding and order.
        headers: those that are signed, by lower-case name.
        body: the whole of it.
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
    """What the secret key signs.

    Args:
        date: the request's ``X-Sdk-Date``.
        canonical: from `canonical_request`.
    """
    return f"{_ALGORITHM}\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def signature(secret_key: Secret, text: str) -> str:
    """The signature of `string_to_sign`, in hexadecimal."""
    return hmac.new(secret_key.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()


class SigningAuth(FixedAuth):
    """An access key and its secret (AK/SK), by ``SDK-HMAC-SHA256``.

    The query is sent in the order and encoding in which it is signed. The path is sent as it was
    built, ``$`` as ``$``: the signature covers its canonical form, as the vendor's SDK does it.
    """

    def __init__(
        self,
        access_key: str,
        secret_key: Secret,
        *,
        security_token: Secret | None = None,
        project_id: str | None = None,
        clock: Clock,
    ) -> None:
        """Takes the keys.

        Args:
            access_key: names the key; sent, and told to nobody else all the same.
            secret_key: signs; never sent.
            security_token: what temporary keys come with; sent and signed.
            project_id: sent as ``X-Project-Id``.
            clock: dates the requests; may differ by 15 minutes from the registry's.

        Raises:
            ConfigError: the secret key is no text, or no HTTP header can carry one of the others.
        """
        check_for_header("access_key", access_key)
        check_text("secret_key", secret_key)
        if security_token is not None:
            check_for_header("security_token", security_token.reveal())
        if project_id is not None:
            check_for_header("project_id", project_id)
        self._access_key = access_key
        self._secret_key = secret_key
        self._security_token = security_token
        self._project_id = project_id
        self._clock = clock

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The access key, the secret key, and the security token if there is one."""
        keys = (Secret(self._access_key), self._secret_key)
        return keys if self._security_token is None else (*keys, self._security_token)

    def mark(self, request: httpx.Request) -> None:
        """Dates and signs the request as it is about to be sent."""
        headers = request.headers
        date = self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers["X-Sdk-Date"] = date
        if self._project_id is not None:
            headers["X-Project-Id"] = self._project_id
        if self._security_token is not None:
            headers["X-Security-Token"] = self._security_token.reveal()
        query = canonical_query(request.url.query).encode()
        request.url = request.url.copy_with(query=query or None)
        signed = {name: headers[name] for name in _SIGNED if name in headers}
        # Of the URL as httpx has normalised it, which is what it sends.
        path = request.url.raw_path.partition(b"?")[0]
        canonical = canonical_request(request.method, path, query, signed, request.content)
        headers["Authorization"] = (
            f"{_ALGORITHM} Access={self._access_key}, SignedHeaders={';'.join(sorted(signed))},"
            f" Signature={signature(self._secret_key, string_to_sign(date, canonical))}"
        )
