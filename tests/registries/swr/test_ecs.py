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

# An agency's temporary keys


def test_metadata_token_is_used() -> None:
    """A token is fetched first, and shown when asking for the keys."""
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
def test_no_metadata_token(status: int) -> None:
    """A service that knows no such token is asked without one."""
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
def test_metadata_token_refused(answer: httpx.Response, error: type[RegistryError]) -> None:
    """Any other answer than a token or its absence is an error."""
    clock = SetClock()
    cloud = Cloud(clock)
    cloud.override["/meta-data/latest/api/token"] = lambda _: answer
    with pytest.raises(error):
        send(by_agency(clock), cloud)


def test_signed_with_temporary_keys() -> None:
    """The request is signed by the temporary keys, and their token is sent and signed."""
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


def test_no_agency() -> None:
    """A host without an agency is told so."""
    clock = SetClock()
    cloud = Cloud(clock)
    cloud.override["/openstack/latest/securitykey"] = lambda _: httpx.Response(404)
    with pytest.raises(Unauthorized, match="this host has no agency"):
        send(by_agency(clock), cloud)
