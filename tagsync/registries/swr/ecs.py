"""Temporary keys from the metadata service of an ECS host."""

from collections.abc import Generator, Mapping
from typing import Annotated, Final

import httpx
import msgspec

from tagsync.clock import Clock
from tagsync.errors import (
    MalformedResponse,
    Unauthorized,
)
from tagsync.registries.renewal import (
    Obtaining,
    RenewedAuth,
    _body,
    _Moment,
    _url,
    check_for_header,
    decode,
    drop_body,
    fits_header,
    headers_like,
    raise_if_passing,
    raise_unless_success,
)
from tagsync.registries.swr.signing import SigningAuth
from tagsync.secrets import Secret

_METADATA_TIMEOUT: Final = httpx.Timeout(5.0)  # it is on the host itself, or it is not there


class AgencyAuth(RenewedAuth):
    """The agency of an ECS host, for which its metadata service gives temporary keys."""

    def __init__(
        self,
        *,
        metadata_endpoint: str = "http://169.254.169.254",
        project_id: str | None = None,
        clock: Clock,
    ) -> None:
        """Sends nothing yet.

        Args:
            metadata_endpoint: the URL of the metadata service, without a path.
            project_id: sent as ``X-Project-Id``.
            clock: dates the requests, and tells when the keys are due.

        Raises:
            ConfigError: the endpoint is no URL, or no HTTP header can carry the project's id.
        """
        super().__init__(clock)
        if project_id is not None:
            check_for_header("project_id", project_id)
        key, endpoint = "metadata_endpoint", metadata_endpoint
        self._token_url = _url(key, endpoint, "/meta-data/latest/api/token")
        self._keys_url = _url(key, endpoint, "/openstack/latest/securitykey")
        self._source = f"the metadata service {self._keys_url.host}"
        self._project_id = project_id

    def _obtain(self, request: httpx.Request) -> Obtaining:
        headers = headers_like(request)
        token = yield from self._metadata_token(headers)
        if token is not None:
            headers["X-Metadata-Token"] = token.reveal()
        response = yield _metadata_request("GET", self._keys_url, headers)
        raise_if_passing(response, self._source, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._source, "that this is an ECS host")
        keys = decode(response, _KeysAnswer, self._source, self._clock).credential
        auth = SigningAuth(
            keys.access,
            keys.secret,
            security_token=keys.securitytoken,
            project_id=self._project_id,
            clock=self._clock,
        )
        return auth, keys.expires_at

    def _metadata_token(
        self, headers: Mapping[str, str]
    ) -> Generator[httpx.Request, httpx.Response, Secret | None]:
        """The token without which a hardened host refuses; null where the service has none."""
        response = yield _metadata_request(
            "PUT", self._token_url, {**headers, "X-Metadata-Token-Ttl-Seconds": "21600"}
        )
        if response.status_code in {
            httpx.codes.NOT_FOUND,
            httpx.codes.METHOD_NOT_ALLOWED,
            httpx.codes.SERVICE_UNAVAILABLE,
        }:
            drop_body(response)
            return None
        raise_if_passing(response, self._source, self._clock)
        if response.is_client_error:
            raise self._refusal(response.status_code)
        raise_unless_success(response, self._source, "that this is an ECS host")
        token = _body(response, self._source, self._clock).decode("ascii", "replace").strip()
        if not fits_header(token):
            raise MalformedResponse(f"{self._source} gave a token that no HTTP header can carry")
        return Secret(token)

    def _refusal(self, status: int) -> Unauthorized:
        if status == httpx.codes.NOT_FOUND:
            return Unauthorized(
                f"this host has no agency, says {self._source}: give the server an ECS agency that"
                " may read SWR, or configure another kind of credential",
                status=status,
            )
        return Unauthorized(
            f"{self._source} refused to give keys (status {status}): check that this is an ECS"
            " host with an agency",
            status=status,
        )


class _Keys(msgspec.Struct, frozen=True):
    access: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z")]
    secret: Secret
    securitytoken: Secret
    expires_at: _Moment


class _KeysAnswer(msgspec.Struct, frozen=True):
    """The body of ``securitykey``."""

    credential: _Keys


def _metadata_request(method: str, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Request:
    extensions = {"timeout": _METADATA_TIMEOUT.as_dict()}
    return httpx.Request(method, url, headers=headers, extensions=extensions)
