"""Registries that repeat a secret in what tagsync would record."""

import json
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from tagsync.errors import MalformedResponse, RegistryError
from tagsync.registries.echoes import EchoGuard
from tagsync.registries.oci.auth import auth_for
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.token_server import BASIC, ENDPOINT, PASSWORD, USER, registry_of

Answer = Callable[[httpx.Request], httpx.Response]


def listing_of(tags: list[str]) -> Answer:
    """Return a registry with these tags, which wants a password."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != BASIC:
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        path = request.url.path
        if path == "/v2/_catalog":
            return httpx.Response(200, json={"repositories": tags})
        if path.endswith("/tags/list"):
            return httpx.Response(200, json={"tags": tags})
        headers = {"Docker-Content-Digest": f"sha256:{'0' * 64}"}
        return httpx.Response(200, headers=headers)

    return handler


def guarded(handler: Answer, clock: FakeClock) -> EchoGuard:
    auth = auth_for(USER, ENDPOINT, clock)
    return EchoGuard(registry_of(handler, auth), ENDPOINT, lambda: auth.secrets)


def refusal(handler: Answer, clock: FakeClock, *, catalogue: bool = False) -> str:
    with closing(guarded(handler, clock)) as registry:
        ask = (lambda: registry.list_repositories(["*"])) if catalogue else None
        with pytest.raises(RegistryError) as caught:
            ask() if ask else registry.list_tags("team/a")
    for secret in (PASSWORD, PASSWORD.upper(), BASIC.partition(" ")[2]):
        assert secret not in str(caught.value)
    assert isinstance(caught.value, MalformedResponse)
    return str(caught.value)


@pytest.mark.parametrize("tag", [PASSWORD, f"v1-{PASSWORD.upper()}", BASIC[6:].rstrip("=")])
def test_tag_with_a_secret_is_not_recorded(tag: str, clock: FakeClock) -> None:
    """A listing with a valid tag that contains a secret is refused."""
    assert "repeats a secret" in refusal(listing_of(["v1", tag]), clock)


def test_repository_with_a_secret_is_not_recorded(clock: FakeClock) -> None:
    """A catalogue with a valid name that contains a secret is refused."""
    names = ["team/a", f"team/{PASSWORD}"]
    assert "repeats a secret" in refusal(listing_of(names), clock, catalogue=True)


def test_other_listings_are_returned(clock: FakeClock) -> None:
    """A listing without a secret is returned as it is."""
    with closing(guarded(listing_of(["v1"]), clock)) as registry:
        assert registry.list_repositories(["*"]) == {"v1"}
        registry.list_tags("team/a")


def challenging(challenge: str) -> Answer:
    return lambda _: httpx.Response(401, headers={"WWW-Authenticate": challenge})


@pytest.mark.parametrize("quoted", [str, repr, json.dumps, str.upper])
def test_name_in_a_message_is_redacted(quoted: Callable[[str], str], clock: FakeClock) -> None:
    """The name that a message quotes, and a message of the server, contain no secret."""
    name = f"you sent {quoted(PASSWORD)}"
    refusal_text = []
    for tags in ([name], [f"{PASSWORD}{'x' * 200}"], [PASSWORD, PASSWORD]):
        with closing(guarded(listing_of(tags), clock)) as registry:
            try:
                registry.list_tags("team/a")
            except RegistryError as error:
                refusal_text.append(str(error))
    assert PASSWORD not in " ".join(refusal_text)


def test_url_in_a_message_is_redacted(clock: FakeClock) -> None:
    """The URL of a next page, which the registry chose, is redacted in messages."""

    def handler(request: httpx.Request) -> httpx.Response:
        if "last" in request.url.params:
            return httpx.Response(200, content=b"<html>")
        answer = listing_of(["v1"])(request)
        if answer.status_code == 200:
            link = f'</v2/team/a/tags/list?last={PASSWORD}&n=1000>; rel="next"'
            answer.headers["Link"] = link
        return answer

    assert "***" in refusal(handler, clock)


def test_realm_in_a_message_is_redacted(clock: FakeClock) -> None:
    """A realm that repeats a secret is redacted, also if it is percent-encoded."""
    secret = Secret("made-up%20secret/with/slashes")
    encoded = "made-up%2520secret%2Fwith%2Fslashes"
    error = None
    with closing(guarded(challenging(f'Bearer realm="ftp://{encoded}"'), clock)) as registry:
        try:
            registry.list_tags("team/a")
        except RegistryError as caught:
            error = str(caught)
    assert error is not None
    assert secret.reveal() not in error
    assert encoded not in error
