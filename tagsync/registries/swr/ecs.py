"""Temporary keys from the metadata service of a cloud host (ECS).

Source: the vendor's "ECS: obtaining metadata" (``securitykey``).
"""

from collections.abc import Generator, Mapping
from typing import Annotated, Final

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import MalformedResponse, Unauthorized
from tagsync.registries.credentials import AgencyCredential, KeyCredential
from tagsync.registries.renewal import (
    Fetch,
    Moment,
    RenewedAuth,
    check_header_value,
    decode_credentials,
    discard_body,
    endpoint_url,
    is_header_value,
    raise_if_transient,
    raise_unless_success,
    read_body,
    sign_in_headers,
)
from tagsync.registries.swr.signing import SigningAuth
from tagsync.secrets import Secret

_METADATA_TIMEOUT: Final = httpx.Timeout(5.0)
"""Short, because the metadata service either runs on the host itself or does not exist."""

_TO_CHECK: Final = "that this is an ECS host"


class AgencyAuth(RenewedAuth):
    """Temporary keys that sign each request, given to the host through its agency."""

    def __init__(
        self, agency: AgencyCredential, clock: Clock, *, project_id: str | None = None
    ) -> None:
        """Check the credential. No request is sent yet.

        Args:
            agency: Names the metadata service.
            clock: Returns the time, which dates the signatures and decides when to renew the keys.
            project_id: The project's id, sent as ``X-Project-Id``. None sends no such header.

        Raises:
            ConfigError: If ``metadata_endpoint`` is not a URL, or an HTTP header cannot carry the
                project's id.
        """
        super().__init__(clock)
        if project_id is not None:
            check_header_value("project_id", project_id)
        key, endpoint = "metadata_endpoint", agency.metadata_endpoint
        self._token_url = endpoint_url(key, endpoint, "/meta-data/latest/api/token")
        self._keys_url = endpoint_url(key, endpoint, "/openstack/latest/securitykey")
        self._issuer = f"the metadata service {self._keys_url.host}"
        self._project_id = project_id

    def fetch(self, request: httpx.Request) -> Fetch:
        """Fetch temporary keys and the time when they expire."""
        headers = sign_in_headers(request)
        token = yield from self._metadata_token(headers)
        if token is not None:
            headers["X-Metadata-Token"] = token.reveal()
        response = yield _metadata_request("GET", self._keys_url, headers)
        raise_if_transient(response, self._issuer, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._issuer, _TO_CHECK)
        answer = decode_credentials(response, _KeysAnswer, self._issuer, self._clock).credential
        keys = KeyCredential(
            Secret(answer.access), answer.secret, answer.securitytoken, self._project_id
        )
        return SigningAuth(keys, self._clock), answer.expires_at

    def _metadata_token(
        self, headers: Mapping[str, str]
    ) -> Generator[httpx.Request, httpx.Response, Secret | None]:
        """Return the token that some hosts require before they give keys.

        Returns:
            None if the metadata service of this host has no tokens.
        """
        response = yield _metadata_request(
            "PUT", self._token_url, {**headers, "X-Metadata-Token-Ttl-Seconds": "21600"}
        )
        if response.status_code in {
            httpx.codes.NOT_FOUND,
            httpx.codes.METHOD_NOT_ALLOWED,
            httpx.codes.SERVICE_UNAVAILABLE,
        }:
            discard_body(response)
            return None
        raise_if_transient(response, self._issuer, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._issuer, _TO_CHECK)
        token = read_body(response, self._issuer, self._clock).decode("ascii", "replace").strip()
        if not is_header_value(token):
            raise MalformedResponse(f"{self._issuer} sent a token that no HTTP header can carry")
        return Secret(token)

    def _refusal(self, status: int) -> Unauthorized:
        if status == httpx.codes.NOT_FOUND:
            return Unauthorized(
                f"{self._issuer} answers that this host has no agency: give the server an ECS"
                " agency that may read SWR, or configure another kind of credential",
                status=status,
            )
        return Unauthorized(
            f"{self._issuer} refused to give keys (status {status}): check that this is an ECS"
            " host with an agency",
            status=status,
        )


class _Keys(msgspec.Struct, frozen=True):
    access: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]
    secret: Secret
    securitytoken: Secret
    expires_at: Moment


class _KeysAnswer(msgspec.Struct, frozen=True):
    """The body of a response of the path ``securitykey``."""

    credential: _Keys


def _metadata_request(method: str, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Request:
    extensions = {"timeout": _METADATA_TIMEOUT.as_dict()}
    return httpx.Request(method, url, headers=headers, extensions=extensions)
