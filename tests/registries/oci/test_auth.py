"""Authentication of OCI requests: passwords, logins and what must not leak."""

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
from tagsync.registries.oci.shared_login import Login
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.token_server import (
    BASIC,
    ENDPOINT,
    PASSWORD,
    Handler,
    Open,
    TokenRegistry,
    refusal,
)


def basic(accepted: set[str]) -> tuple[Handler, list[str | None]]:
    """Return a registry that wants a password, and what each request carried."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        # Recorded here, because the same request object is changed and sent again.
        sent.append(request.headers.get("Authorization"))
        if sent[-1] in accepted:
            return httpx.Response(200, json={"tags": []})
        return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    return handler, sent


def test_password_is_sent_after_the_challenge(opened: Open) -> None:
    """The first request is anonymous; all later requests carry the password."""
    handler, sent = basic({BASIC})
    registry = opened(handler)
    registry.list_tags("team/a")
    registry.list_tags("team/b")
    assert sent == [None, BASIC, BASIC]


def test_wrong_password_is_sent_once(opened: Open) -> None:
    """After a refusal, no thread sends the password again for a while."""
    handler, sent = basic(set())
    registry = opened(handler)
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda number: refusal(registry, f"team/r{number}"), range(32)))
    assert {type(error) for error in errors} == {Unauthorized}
    assert sent.count(BASIC) == 1


def test_failing_helper_is_not_run_for_each_repository(clock: FakeClock) -> None:
    """A helper that fails runs again only after some minutes."""
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


def test_login_is_read_again(clock: FakeClock) -> None:
    """A login is used for ten minutes, or until it is refused."""
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


def test_one_refusing_repository_does_not_block_others(opened: Open) -> None:
    """The first refusal after a success is not repeated; a second one is."""
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


def test_missing_password_has_advice(opened: Open) -> None:
    """If a registry wants a password and none is configured, the error has advice."""
    handler, _ = basic({BASIC})
    assert 'kind = "basic"' in str(refusal(opened(handler, NoCredential())))


def test_body_of_a_challenge_is_not_read(opened: Open) -> None:
    """The body of a 401 response is closed unread before the next request."""
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


def test_unknown_challenge_is_an_error(opened: Open) -> None:
    """A 401 response without a known challenge is an error that says so."""
    answer = httpx.Response(401, headers={"WWW-Authenticate": "Negotiate"})
    error = refusal(opened(lambda _: answer))
    assert isinstance(error, Unauthorized)
    assert "neither" in str(error)


def test_redirect_gets_no_credentials(opened: Open) -> None:
    """The target of a redirect to another host gets no credentials."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.host == "evil.example.com":
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        if "Authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": "Basic realm=x"})
        return httpx.Response(302, headers={"Location": f"https://evil.example.com/?{BASIC}"})

    assert "https://evil.example.com/ answered 401" in str(refusal(opened(handler)))
    evil = [request for request in requests if request.url.host == "evil.example.com"]
    assert ["Authorization" in request.headers for request in evil] == [False]


def test_repeated_credentials_are_redacted(opened: Open, clock: FakeClock) -> None:
    """An error contains neither the password, its encoded form, nor a token."""
    fake = TokenRegistry(clock)

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


def test_credential_for_swr_is_refused() -> None:
    """A credential for SWR is refused before any request."""
    with pytest.raises(ConfigError, match="OCI registry"):
        auth_for(TokenCredential(Secret("x")), ENDPOINT)


@pytest.mark.parametrize("username", ["", "team:reader", "reader\n"])
def test_invalid_username_is_refused(username: str) -> None:
    """A username that Basic authentication cannot send is refused early."""
    with pytest.raises(ConfigError, match=r"the username .* check it"):
        auth_for(BasicCredential(username, Secret(PASSWORD)), ENDPOINT)
