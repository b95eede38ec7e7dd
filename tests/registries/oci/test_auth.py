"""Authentication of OCI requests: passwords, logins, and credentials that stay here."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest

from tagsync.errors import (
    ConfigError,
    Unauthorized,
)
from tagsync.registries.credentials import (
    BasicCredential,
    NoCredential,
    TokenCredential,
)
from tagsync.registries.oci.auth import ChallengedAuth, auth_for
from tagsync.registries.oci.logins import Login
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.token_server import BASIC, ENDPOINT, PASSWORD, Fake, Handler, Open, refusal

# A user and a password.


def basic(accepted: set[str]) -> tuple[Handler, list[str | None]]:
    """A registry that wants a password, and what each request to it carried."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        # A request that is sent again is the same object, so what it carried is noted.
        sent.append(request.headers.get("Authorization"))
        if sent[-1] in accepted:
            return httpx.Response(200, json={"tags": []})
        return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    return handler, sent


def test_a_password_is_sent_when_asked_for(opened: Open) -> None:
    """The first request finds out, and every one after it carries the password."""
    handler, sent = basic({BASIC})
    registry = opened(handler)
    registry.list_tags("team/a")
    registry.list_tags("team/b")
    assert sent == [None, BASIC, BASIC]


def test_a_wrong_password_is_tried_once(opened: Open) -> None:
    """A password that is refused is not sent again for a while, by no thread."""
    handler, sent = basic(set())
    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert {type(error) for error in errors} == {Unauthorized}
    assert sent.count(BASIC) == 1


def test_a_login_that_cannot_be_had(clock: FakeClock) -> None:
    """A credential helper that fails is not asked for each repository, but again after a while."""
    asked: list[datetime] = []

    def logins() -> Login:
        asked.append(clock())
        raise ConfigError("docker-credential-made-up did not answer")

    auth = ChallengedAuth(ENDPOINT, logins, clock)
    client = httpx.Client(transport=httpx.MockTransport(basic(set())[0]), auth=auth)
    for number in range(3):
        with pytest.raises(Unauthorized, match="did not answer"):
            client.get(f"{ENDPOINT}/v2/team/r{number}/tags/list")
    assert len(asked) == 1
    clock.advance(minutes=6)
    with pytest.raises(Unauthorized, match="did not answer"):
        client.get(f"{ENDPOINT}/v2/team/a/tags/list")
    assert len(asked) == 2


def test_a_login_is_asked_for_again(clock: FakeClock) -> None:
    """What a helper gives is kept for ten minutes, or until it is refused."""
    passwords = iter(["old", PASSWORD, PASSWORD])
    asked: list[datetime] = []

    def logins() -> Login:
        asked.append(clock())
        return Login("reader", Secret(next(passwords)))

    handler, sent = basic({BASIC})
    auth = ChallengedAuth(ENDPOINT, logins, clock)
    client = httpx.Client(transport=httpx.MockTransport(handler), auth=auth)
    with pytest.raises(Unauthorized):
        client.get(f"{ENDPOINT}/v2/team/a/tags/list")
    clock.advance(minutes=6)
    for minutes, times in ((0, 2), (9, 2), (2, 3)):
        clock.advance(minutes=minutes)
        assert client.get(f"{ENDPOINT}/v2/team/a/tags/list").status_code == 200
        assert len(asked) == times
    assert sent[-1] == BASIC


def test_a_password_that_one_repository_refuses(opened: Open) -> None:
    """One refusal after it was accepted does not keep the others out, a second one does."""
    handler, _ = basic({BASIC})
    closed = {"/v2/team/closed/tags/list", "/v2/team/shut/tags/list"}

    def guarded(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401) if request.url.path in closed else handler(request)

    registry = opened(guarded)
    registry.list_tags("team/a")
    assert isinstance(refusal(registry, "team/closed"), Unauthorized)
    registry.list_tags("team/a")
    for name in ("team/closed", "team/shut", "team/a"):
        assert isinstance(refusal(registry, name), Unauthorized)


def test_a_password_that_is_not_there(opened: Open) -> None:
    """A registry that wants a password where none is configured says what to do."""
    handler, _ = basic({BASIC})
    assert 'kind = "basic"' in str(refusal(opened(handler, NoCredential())))


def test_a_challenge_without_end(opened: Open) -> None:
    """Whatever follows a challenge is not read: what answers it is the next request."""
    handler, sent = basic({BASIC})
    read: list[bytes] = []

    def endless() -> Iterator[bytes]:
        while len(read) < 100:
            read.append(b"x")
            yield read[-1]

    def challenging(request: httpx.Request) -> httpx.Response:
        answer = handler(request)
        if answer.status_code != 401:
            return answer
        return httpx.Response(401, headers=answer.headers, content=endless())

    opened(challenging).list_tags("team/a")
    assert sent == [None, BASIC]
    assert read == []


def test_a_challenge_that_is_none(opened: Open) -> None:
    """A 401 without a challenge that is understood is told as such."""
    answer = httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"})
    error = refusal(opened(lambda _: answer))
    assert isinstance(error, Unauthorized)
    assert "neither" in str(error)


def test_a_redirect_gets_no_credentials(opened: Open) -> None:
    """A registry that sends on to another host after the password gets nobody there."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if "Authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        return httpx.Response(302, headers={"Location": f"https://evil.example.com/?{BASIC}"})

    assert "never followed" in str(refusal(opened(handler)))
    assert {request.url.host for request in requests} == {"registry.example.com"}


def test_what_is_echoed_is_not_told(opened: Open, clock: FakeClock) -> None:
    """Neither the password, nor the form in which it is sent, nor a token is ever repeated."""
    fake = Fake(clock)

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if answer.status_code == 200 and "tags" in answer.json():
            echo = f"{PASSWORD} {BASIC} {request.headers['Authorization']}"
            body = {"errors": [{"code": echo, "message": echo}]}
            return httpx.Response(403, content=json.dumps(body))
        return answer

    text = str(refusal(opened(handler)))
    assert "made-up-token-0" not in text
    assert "***" in text


def test_a_credential_of_another_kind() -> None:
    """A credential for SWR is refused before anything is sent."""
    with pytest.raises(ConfigError, match="OCI registry"):
        auth_for(TokenCredential(Secret("x")), ENDPOINT)


@pytest.mark.parametrize("username", ["", "team:reader", "reader\n"])
def test_a_username_that_cannot_be_sent(username: str) -> None:
    """A user's name that the password's part would begin in is refused before anything is sent."""
    with pytest.raises(ConfigError, match=r"the username .* check it"):
        auth_for(BasicCredential(username, Secret(PASSWORD)), ENDPOINT)
