"""Temporary keys from the metadata service of a cloud host."""

import httpx
import pytest

from tagsync.errors import (
    Busy,
    MalformedResponse,
    RegistryError,
    Throttled,
    Unauthorized,
)
from tagsync.registries.credentials import (
    AgencyCredential,
    KeyCredential,
)
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.signing import (
    SigningAuth,
)
from tagsync.secrets import Secret
from tests.support.cloud import API, Body, Cloud, SetClock, by_agency, send, sent


def test_metadata_token_is_sent() -> None:
    """A metadata token is fetched first, and sent with the request for keys."""
    clock = SetClock()
    cloud = Cloud(clock)
    send(by_agency(clock), cloud)

    assert cloud.paths()[:2] == [
        "PUT /meta-data/latest/api/token",
        "GET /openstack/latest/securitykey",
    ]
    assert cloud.requests[0].headers["X-Metadata-Token-Ttl-Seconds"] == "21600"
    assert cloud.requests[1].headers["X-Metadata-Token"] == "metadata-token"


@pytest.mark.parametrize("status", [404, 405, 503])
def test_metadata_token_is_optional(status: int) -> None:
    """If the service has no metadata tokens, keys are requested without one."""
    clock = SetClock()
    cloud = Cloud(clock)
    body = Body(b"x" * 4096 for _ in range(10_000))
    cloud.override["/meta-data/latest/api/token"] = lambda _: httpx.Response(status, stream=body)

    assert send(by_agency(clock), cloud) == 200
    assert "X-Metadata-Token" not in cloud.requests[1].headers
    assert body.taken == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(200, text=""), MalformedResponse),
        (httpx.Response(200, content=b"caf\xe9"), MalformedResponse),
        (httpx.Response(302), MalformedResponse),
        (httpx.Response(500), Busy),
        (httpx.Response(429), Throttled),
        (httpx.Response(403), Unauthorized),
    ],
)
def test_other_answers_to_the_token_request_are_errors(
    answer: httpx.Response, error: type[RegistryError]
) -> None:
    """Any other answer to the request for a metadata token is an error."""
    clock = SetClock()
    cloud = Cloud(clock)
    cloud.override["/meta-data/latest/api/token"] = lambda _: answer
    with pytest.raises(error):
        send(by_agency(clock), cloud)


def test_temporary_keys_sign_requests() -> None:
    """Requests are signed by the temporary keys, with their security token."""
    clock = SetClock()
    cloud = Cloud(clock)
    send(AgencyAuth(AgencyCredential(), clock, project_id="0123"), cloud)
    headers = cloud.requests[-1].headers
    keys = KeyCredential(
        Secret("ACCESS1"), Secret("made-up-secret-1"), Secret("made-up-token-1"), "0123"
    )

    wire = sent(SigningAuth(keys, clock), httpx.Request("GET", API))
    assert headers["Authorization"] == wire.headers["Authorization"]
    assert "host;x-project-id;x-sdk-date;x-security-token" in headers["Authorization"]


def test_missing_agency_is_reported() -> None:
    """The error for a host without an agency says so."""
    clock = SetClock()
    cloud = Cloud(clock)
    cloud.override["/openstack/latest/securitykey"] = lambda _: httpx.Response(404)
    with pytest.raises(Unauthorized, match="this host has no agency"):
        send(by_agency(clock), cloud)
