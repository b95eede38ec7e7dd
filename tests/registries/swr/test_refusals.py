"""Refusals of SWR and its gateway: the error that each one means."""

import json
from collections.abc import Mapping

import httpx
import pytest

from tagsync.errors import (
    BadRequest,
    Busy,
    EndpointNotFound,
    Forbidden,
    NamespaceNotFound,
    RegistryError,
    RepositoryNotFound,
    Throttled,
    Unauthorized,
)
from tagsync.registries.responses import Answer, refusal_error
from tagsync.registries.swr.api import REFUSALS
from tagsync.secrets import Secret
from tests.support.swr import (
    SECRET,
    ask,
    sentence_of,
)


def refusal(status: int, body: object, headers: Mapping[str, str] | None = None) -> RegistryError:
    """Return the error that the client raises for an answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RegistryError) as caught:
        ask(lambda _: httpx.Response(status, content=content, headers=headers))
    assert caught.value.status == status
    assert str(status) in sentence_of(caught.value)
    return caught.value


CODE, MESSAGE = "SVCSTG.SWR.4001072", "offset and limit go together"

CAMEL = {"errorCode": CODE, "errorMessage": MESSAGE, "detail": "x"}

SNAKE = {"error_code": CODE, "error_msg": MESSAGE, "request_id": "y"}


@pytest.mark.parametrize(
    "body",
    [{"errors": [CAMEL]}, {"errors": [SNAKE]}, [CAMEL], [SNAKE], CAMEL, SNAKE],
    ids=["errors", "errors, gateway's keys", "array", "array, gateway's keys", "top", "gateway"],
)
def test_all_forms_of_an_error_body(body: object) -> None:
    """The error has the status, the code and the message, in every known form."""
    error = refusal(400, body)
    assert type(error) is BadRequest
    assert error.code == CODE
    assert f"400 ({CODE}: {MESSAGE})" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"\xff\xfe",
        b"[" * 200_000,
        b"null",
        b"[]",
        b"{}",
        b'"no"',
        b"[[]]",
        b'{"errors": []}',
        b'{"errors": {}}',
        b'{"errorCode": null}',
    ],
    ids=range(12),
)
def test_error_without_a_code(body: bytes) -> None:
    """Any other body is an error that names the status."""
    error = refusal(400, body)
    assert type(error) is BadRequest
    assert error.code is None
    assert "no readable message" in str(error)


def test_long_message_is_truncated() -> None:
    """A server's message is truncated to one line."""
    error = refusal(400, {"errorCode": "a\nb\u2028c", "errorMessage": "first\r\nsecond " * 1000})
    assert error.code == "a b c"
    assert len(str(error)) < 600


def test_error_without_a_message() -> None:
    """A code without a message is part of the error."""
    assert f"400 ({CODE})" in str(refusal(400, {"errorCode": CODE}))


KINDS: list[tuple[int, str | None, type[RegistryError]]] = [
    (400, "SVCSTG.SWR.4001072", BadRequest),
    (400, None, BadRequest),
    (401, "APIGW.0301", Unauthorized),
    (401, None, Unauthorized),
    (403, "SVCSTG.SWR.4030170", Forbidden),
    (403, None, Forbidden),
    (403, "SVCSTG.SWR.4031032", Throttled),
    (403, "SVCSTG.SWR.4031042", Throttled),
    (404, "SVCSTG.SWR.4040010", RepositoryNotFound),
    (404, "SVCSTG.SWR.4040113", RepositoryNotFound),
    (404, "SVCSTG.SWR.4041057", RepositoryNotFound),
    (404, "SVCSTG.SWR.4049999", RepositoryNotFound),
    (404, None, RepositoryNotFound),
    (404, "SVCSTG.SWR.4040058", NamespaceNotFound),
    (404, "SVCSTG.SWR.4041061", NamespaceNotFound),
    (404, "APIGW.0101", EndpointNotFound),
    (404, "APIG.0101", EndpointNotFound),
    (404, "apigw.0101", EndpointNotFound),
    (409, "SVCSTG.SWR.4090023", Busy),
    (429, "APIG.0308", Throttled),
    (429, None, Throttled),
    (500, "SVCSTG.SWR.5000000", Busy),
    (502, None, Busy),
    (503, None, Busy),
    (204, None, BadRequest),
    (302, None, BadRequest),
    (418, None, BadRequest),
]


@pytest.mark.parametrize(("status", "code", "kind"), KINDS)
def test_refusal_becomes_its_error(
    status: int, code: str | None, kind: type[RegistryError]
) -> None:
    """Each status and code becomes the error that it means."""
    error = refusal(status, {"errors": [{"errorCode": code, "errorMessage": "m"}]} if code else b"")
    assert type(error) is kind
    assert error.code == code
    assert code is None or f"({code}: m)" in str(error)


def test_unknown_path_means_a_wrong_endpoint() -> None:
    """A path that the gateway does not know is a wrong endpoint, not a deletion."""
    body = {"error_msg": "The API does not exist", "error_code": "APIGW.0101", "request_id": "z"}
    assert "check the endpoint" in str(refusal(404, body))


def test_redirect_names_its_target() -> None:
    """The error for a redirect names its target without the query."""
    error = refusal(302, b"", {"Location": "https://example.com/login?key=made-up"})
    assert "it redirects to https://example.com/login" in str(error)
    assert "made-up" not in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_stored(status: int) -> None:
    """The error has the seconds after which the registry asks for a retry."""
    assert refusal(status, b"", {"Retry-After": "12"}).retry_after == 12.0


@pytest.mark.parametrize("key", ["errorCode", "errorMessage"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_repeated_secret_is_redacted(status: int, key: str) -> None:
    """A credential that a server repeats is not part of the error."""
    error = refusal(status, {"errors": [{**CAMEL, key: f"bad token {SECRET}!"}]})
    assert "bad token ***!" in str(error)
    assert SECRET not in repr(error)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"errorCode": "x made-up-secret-1", "errorMessage": "m"}, {}),
        ({"errorCode": "c", "errorMessage": "m" * 285 + " made-up-secret-1"}, {}),
        (b"", {"Location": "http://127.0.0.1/?t=made-up-secret-1"}),
    ],
)
def test_no_part_of_a_secret_is_left(body: object, headers: dict[str, str]) -> None:
    """No part of a repeated secret is left in the error, wherever it was."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Answer("http://127.0.0.1/x", 302, httpx.Headers(headers), raw)
    error = refusal_error(answer, REFUSALS, (Secret("made-up-secret-1"),))
    assert "made-up" not in f"{error} {error.code}"


def test_refusal_has_no_control_characters() -> None:
    """A server's error cannot send control characters to a terminal."""
    error = refusal(400, {"errorCode": "a\x1b[31mb", "errorMessage": "c\u202ed"})
    assert str(error).isprintable()
    assert (error.code or "").isprintable()


def test_docker_registry_is_recognized() -> None:
    """The error for the Docker registry's host names the right host."""
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    assert "swr-api" in str(refusal(401, b"", headers))


def test_wrong_clock_is_reported() -> None:
    """The error for a refusal by a server with another time names the clocks."""
    error = refusal(401, b"", {"Date": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert "clocks" in str(error)
    assert "clocks" not in str(refusal(401, b""))


def test_target_of_a_redirect_is_truncated() -> None:
    """The target of a redirect is truncated, without control characters."""
    headers = httpx.Headers([(b"Location", b"https://elsewhere.example/\x1b[2J" + b"x" * 5000)])
    error = refusal_error(Answer("http://127.0.0.1/x", 302, headers, b""), REFUSALS)
    assert "elsewhere" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500
