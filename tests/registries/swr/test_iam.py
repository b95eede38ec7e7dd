"""Tokens of the identity service (IAM)."""

import json

import httpx
import pytest

from tagsync.errors import (
    MalformedResponse,
    Unauthorized,
)
from tagsync.registries.swr.iam import TokenAuth
from tagsync.secrets import Secret
from tests.support.cloud import API, IAM, PASSWORD, Cloud, SetClock, by_password, send, sent, shows


def test_token_is_sent() -> None:
    """A token is sent unchanged."""
    assert (
        sent(TokenAuth(Secret("abc")), httpx.Request("GET", API)).headers["X-Auth-Token"] == "abc"
    )


def test_sign_in_request() -> None:
    """The sign-in has the documented form, with a project as its scope."""
    clock = SetClock()
    cloud = Cloud(clock)
    send(by_password(clock), cloud)
    request = cloud.requests[0]

    assert (request.method, str(request.url)) == ("POST", f"{IAM}/v3/auth/tokens?nocatalog=true")
    assert json.loads(request.content) == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": "robot", "password": PASSWORD, "domain": {"name": "acme"}}
                },
            },
            "scope": {"project": {"name": "eu-de"}},
        }
    }


def test_refused_sign_in_names_the_user() -> None:
    """The error for a refused sign-in names user and host, but not the password."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    cloud.override["/v3/auth/tokens"] = lambda request: httpx.Response(401, text=str(request))
    with pytest.raises(Unauthorized) as caught:
        send(auth, cloud)

    for word in ("iam.example.com", "'robot'", "'acme'", "'eu-de'"):
        assert word in str(caught.value)
    assert not shows(caught.value, PASSWORD)


@pytest.mark.parametrize("token", [None, "", "two\tparts", "caf\xe9"])
def test_unusable_token_is_malformed(token: str | None) -> None:
    """A sign-in without a token that can be sent is malformed."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    headers = {} if token is None else {b"X-Subject-Token": token.encode("latin-1")}
    cloud.override["/v3/auth/tokens"] = lambda _: httpx.Response(
        201, headers=headers, json={"token": {"expires_at": cloud.expiry()}}
    )
    with pytest.raises(MalformedResponse, match="X-Subject-Token"):
        send(auth, cloud)
