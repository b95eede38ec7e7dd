"""Signatures of requests: the vendor's vectors, and what reaches the network."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.errors import (
    ConfigError,
)
from tagsync.registries.credentials import (
    KeyCredential,
    PasswordCredential,
)
from tagsync.registries.swr.iam import PasswordAuth
from tagsync.registries.swr.signing import (
    SigningAuth,
    canonical_path,
    canonical_query,
    canonical_request,
    signature,
    string_to_sign,
)
from tagsync.secrets import Secret
from tests.support.cloud import API, IAM, SECRET_KEY, Cloud, SetClock, by_agency, send, sent
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "signing-vectors.json").read_text())["vectors"]


def vector_headers(vector: Mapping[str, Any]) -> dict[str, str]:
    given = vector["input"]
    headers = {"content-type": given["headers"]["Content-Type"], "host": given["host"]}
    if given["project_id"]:
        headers["x-project-id"] = given["project_id"]
    if given["security_token"]:
        headers["x-security-token"] = given["security_token"]
    return headers | {"x-sdk-date": given["headers"]["X-Sdk-Date"]}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_functions_match_the_vectors(vector: dict[str, Any]) -> None:
    """The canonical request, string to sign and signature are those of the SDK."""
    given, expected = vector["input"], vector["output"]
    canonical = canonical_request(
        given["method"],
        given["resource_path"].encode(),
        str(httpx.QueryParams(given["query_params"])).encode(),
        vector_headers(vector),
        given["body"].encode(),
    )
    text = string_to_sign(given["headers"]["X-Sdk-Date"], canonical)

    assert canonical == expected["canonical_request"]
    assert text == expected["string_to_sign"]
    assert signature(Secret(given["sk"]), text) == expected["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_sent_request_matches_the_vectors(vector: dict[str, Any]) -> None:
    """The request that is sent has the URI and the headers of the SDK."""
    given, expected = vector["input"], vector["output"]
    date = datetime.strptime(given["headers"]["X-Sdk-Date"], "%Y%m%dT%H%M%S%z")
    token = given["security_token"]
    keys = KeyCredential(
        Secret(given["ak"]),
        Secret(given["sk"]),
        Secret(token) if token else None,
        given["project_id"],
    )
    auth = SigningAuth(keys, SetClock(date))
    request = httpx.Request(
        given["method"],
        f"{given['scheme']}://{given['host']}{given['resource_path']}",
        params=given["query_params"],
        headers={"Content-Type": given["headers"]["Content-Type"]},
    )
    wire = sent(auth, request)

    assert wire.url.raw_path.decode() == expected["request_uri_sent"]
    assert {name: wire.headers[name] for name in expected["final_headers"]} == expected[
        "final_headers"
    ]


SEGMENTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4)

PAIRS = st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=4)


@given(segments=SEGMENTS, pairs=PAIRS, in_url=st.booleans())
def test_signature_matches_what_is_sent(
    segments: list[str], pairs: list[tuple[str, str]], in_url: bool
) -> None:
    """For any path and query, the signature is that of the target that httpx sends."""
    safe = "$:@!*'()+,;=~" if in_url else ""
    url = "https://swr-api.example.com/" + "/".join(quote(part, safe=safe) for part in segments)
    auth = SigningAuth(KeyCredential(Secret("AK"), Secret(SECRET_KEY)), SetClock())
    wire = sent(auth, httpx.Request("GET", url, params=tuple(pairs)))
    path, _, query = wire.url.raw_path.partition(b"?")
    names = ("host", "x-sdk-date")
    canonical = canonical_request(
        "GET", path, query, {name: wire.headers[name] for name in names}, b""
    )
    text = string_to_sign("20240102T030405Z", canonical)

    assert wire.headers["Authorization"].endswith(f"={signature(Secret(SECRET_KEY), text)}")
    assert query.decode() == canonical.split("\n")[2]
    assert sorted(pairs) == sorted(httpx.QueryParams(query.decode()).multi_items())


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        (b"/", "/"),
        (b"/a/", "/a/"),
        (b"/a$b~c", "/a%24b~c/"),
        (b"/a%24b%7Ec", "/a%24b~c/"),
        (b"/a%20b+c", "/a%20b%2Bc/"),
        (b"/a%2Fb", "/a/b/"),
        (b"/%2524", "/%2524/"),
        (b"/%ff", "/%FF/"),
    ],
)
def test_canonical_path(path: bytes, canonical: str) -> None:
    """A path is unquoted once, and each segment is quoted again."""
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        (b"", ""),
        (b"b=2&a=1&a=0", "a=0&a=1&b=2"),
        (b"a=x+y%2Bz&&b", "a=x%20y%2Bz&b="),
        (b"a=~:|/%2f", "a=~%3A%7C%2F%2F"),
        (b"a=b=c", "a=b%3Dc"),
    ],
)
def test_canonical_query(query: bytes, canonical: str) -> None:
    """A query is sorted, and quoted by RFC 3986."""
    assert canonical_query(query) == canonical


def test_body_is_signed() -> None:
    """The signed text ends with the hash of the body."""
    hashes = [canonical_request("POST", b"/", b"", {}, body)[-64:] for body in (b"", b"{}")]

    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("renewed", [True, False])
def test_streamed_body_is_signed(renewed: bool) -> None:
    """A streamed body is read before it is signed."""
    clock = SetClock()
    cloud = Cloud(clock)
    temporary = KeyCredential(
        Secret("ACCESS1"), Secret("made-up-secret-1"), Secret("made-up-token-1")
    )
    keys = SigningAuth(temporary, clock)
    at_once = sent(keys, httpx.Request("POST", API, content=b"{}"))
    in_pieces = httpx.Request("POST", API, content=iter([b"{", b"}"]))
    send(by_agency(clock) if renewed else keys, cloud, in_pieces)

    assert cloud.requests[-1].headers["Authorization"] == at_once.headers["Authorization"]


def test_request_can_be_signed_again() -> None:
    """A request that is sent again has a new date and signature, and the same URL."""
    clock = SetClock()
    auth = SigningAuth(KeyCredential(Secret("AK"), Secret(SECRET_KEY)), clock)
    request = httpx.Request("GET", API, params={"b": "x y", "a": "$"})
    first = dict(sent(auth, request).headers), request.url
    clock.advance(minutes=20)
    second = dict(sent(auth, request).headers), request.url

    assert first[0]["x-sdk-date"] == "20240102T030405Z"
    assert second[0]["x-sdk-date"] == "20240102T032405Z"
    assert first[0]["authorization"] != second[0]["authorization"]
    assert first[1] == second[1]


def test_date_is_utc() -> None:
    """A clock in another time zone dates requests in UTC."""
    clock = SetClock(datetime.fromisoformat("2024-01-02T11:04:05+08:00"))
    wire = sent(
        SigningAuth(KeyCredential(Secret("AK"), Secret(SECRET_KEY)), clock),
        httpx.Request("GET", API),
    )

    assert wire.headers["X-Sdk-Date"] == "20240102T030405Z"


@pytest.mark.parametrize("bad", ["", "made-up\udcff"])
def test_invalid_secret_key_is_refused(bad: str) -> None:
    """A secret key that is empty or not text is refused early."""
    clock = SetClock()
    with pytest.raises(ConfigError):
        SigningAuth(KeyCredential(Secret("AK"), Secret(bad)), clock)
    with pytest.raises(ConfigError):
        PasswordAuth(PasswordCredential(IAM, "robot", Secret(bad), "acme", "eu-de"), clock)
