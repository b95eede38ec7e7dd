"""Challenges of OCI registries, and the token servers that they may name."""

import httpx
import pytest

from tagsync.errors import (
    MalformedResponse,
)
from tagsync.registries.credentials import (
    Credential,
    NoCredential,
)
from tagsync.registries.oci.challenges import joined_scope, parse_challenges, token_challenge
from tests.support.clock import FakeClock
from tests.support.token_server import ENDPOINT, REALM, USER, Open, TokenRegistry, refusal


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.org/token",
        "http://127.0.0.1:9999/token",
        "http://registry.example.com:5001/token",
        "http://169.254.169.254/latest",
        "ftp://auth.example.org/token",
        "https://user:x@auth.example.org/token",
        "https:///token",
        "//auth.example.org:x/token",
        "",
        "https://auth.example.org:x/",
        "https://xn--/token",
        "javascript:alert(1)",
    ],
)
@pytest.mark.parametrize("credential", [USER, NoCredential()])
def test_unsafe_realm_gets_no_request(realm: str, credential: Credential, opened: Open) -> None:
    """No request goes to a token server that has no TLS or no host."""
    sent: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("Authorization"))
        return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    error = refusal(opened(handler, credential))
    assert isinstance(error, MalformedResponse)
    assert "as its token server" in str(error)
    assert sent == [None]


def test_loopback_realm_needs_no_tls(opened: Open, clock: FakeClock) -> None:
    """A registry and a token server on this machine may do without TLS."""
    fake = TokenRegistry(clock, "http://127.0.0.1:5001/token")
    opened(fake, endpoint="http://127.0.0.1:5000").list_tags("team/a")
    assert len(fake.sign_ins) == 1


@pytest.mark.parametrize(
    ("realm", "sent_to"),
    [
        ("/token", f"{ENDPOINT}/token"),
        ("token?x=1", f"{ENDPOINT}/token?x=1"),
        ("//auth.example.org/token", "https://auth.example.org/token"),
        ("http://registry.example.com/token", f"{ENDPOINT}/token"),
        ("http://registry.example.com:80/token", f"{ENDPOINT}/token"),
        (f" {ENDPOINT}/token ", f"{ENDPOINT}/token"),
    ],
)
def test_realm_is_completed(realm: str, sent_to: str) -> None:
    """A realm may be relative, or http:// at a registry behind a proxy that ends TLS."""
    challenge = token_challenge({"realm": realm}, httpx.URL(ENDPOINT), "team/a")
    assert str(challenge.realm) == sent_to


@pytest.mark.parametrize("scope", [None, "", " "])
@pytest.mark.parametrize(
    ("repository", "expected"),
    [("team/a", "repository:team/a:pull"), ("", "registry:catalog:*")],
)
def test_missing_scope_is_completed(scope: str | None, repository: str, expected: str) -> None:
    """If a challenge names no scope, the one for reading the repository is requested."""
    parameters = {"realm": REALM} if scope is None else {"realm": REALM, "scope": scope}
    assert token_challenge(parameters, httpx.URL(ENDPOINT), repository).scope == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"'],
            {
                "bearer": {
                    "realm": "https://a/t?x=1,2",
                    "service": "s",
                    "scope": "repository:a/b:pull,push",
                }
            },
        ),
        (
            ["Basic realm=here", 'bearer  Realm = "x" , service=y'],
            {"basic": {"realm": "here"}, "bearer": {"realm": "x", "service": "y"}},
        ),
        (
            ['Bearer realm="x",service="y", Basic realm="z"'],
            {"bearer": {"realm": "x", "service": "y"}, "basic": {"realm": "z"}},
        ),
        (
            ['Bearer realm = "x" , service = "y" , scope = "z"'],
            {"bearer": {"realm": "x", "service": "y", "scope": "z"}},
        ),
        (["Bearer realm='x',service='y'"], {"bearer": {"realm": "x", "service": "y"}}),
        (['Bearer\trealm="x",service="y"'], {"bearer": {"realm": "x", "service": "y"}}),
        (["Negotiate"], {"negotiate": {}}),
        (['realm="x"'], {}),
        ([""], {}),
        ([], {}),
        (['Bearer realm="unclosed'], {"bearer": {"realm": '"unclosed'}}),
        (['Bearer realm="a",realm="b"', 'Bearer realm="c"'], {"bearer": {"realm": "a"}}),
        (["Bearer", 'Bearer realm="a"'], {"bearer": {"realm": "a"}}),
        (['Bearer, Bearer realm="a", Bearer'], {"bearer": {"realm": "a"}}),
    ],
)
def test_challenges_are_parsed(headers: list[str], expected: dict[str, dict[str, str]]) -> None:
    """All forms of RFC 9110 are parsed; of repeated schemes the first one counts."""
    assert parse_challenges(headers) == expected


@pytest.mark.parametrize(
    ("scope", "other", "expected"),
    [
        ("repository:a:metadata_read", "repository:a:pull", "repository:a:metadata_read,pull"),
        ("repository:a:pull,push", "repository:a:push", "repository:a:pull,push"),
        ("repository:a:pull", "repository:a:pull", "repository:a:pull"),
        ("repository:a:pull", "repository:b:pull", "repository:b:pull"),
        ("repository:a:pull", "registry:catalog:*", "registry:catalog:*"),
        ("repository:h:1/a:pull", "repository:h:1/a:push", "repository:h:1/a:pull,push"),
        ("pull", "push", "push"),
    ],
)
def test_scopes_of_a_repository_are_joined(scope: str, other: str, expected: str) -> None:
    """Two scopes of one resource become one with the actions of both; others are replaced."""
    assert joined_scope(scope, other) == expected
