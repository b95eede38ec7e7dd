"""The credentials of SWR, through an injected transport and an injected clock."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.errors import (
    Busy,
    ConfigError,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
    Unreachable,
)
from tagsync.registries.credentials import (
    AgencyCredential,
    Credential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.registries.renewal import (
    MAX_ANSWER_BYTES,
    REPEAT_REFUSAL_FOR,
    RegistryAuth,
    RenewedAuth,
)
from tagsync.registries.swr.auth import auth_for
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth, TokenAuth
from tagsync.registries.swr.signing import (
    SigningAuth,
    canonical_path,
    canonical_query,
    canonical_request,
    signature,
    string_to_sign,
)
from tagsync.secrets import Secret, redact
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "signing-vectors.json").read_text())["vectors"]
START = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
API = "https://swr-api.example.com/v2/manage/namespaces"
IAM = "https://iam.example.com"
PASSWORD = "made-up-Passw0rd"
SECRET_KEY = "MadeUpSecretKey0000000000000000000000001"

Handler = Callable[[httpx.Request], httpx.Response]


class SetClock:
    """A clock that stands where a test puts it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class AnnouncingClock(SetClock):
    """Knows how many threads have asked for the time, which each does before it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.askers: set[int] = set()
        self.asked = threading.Condition()

    def __call__(self) -> datetime:
        with self.asked:
            self.askers.add(threading.get_ident())
            self.asked.notify_all()
        return super().__call__()

    def wait_for(self, threads: int) -> bool:
        with self.asked:
            return self.asked.wait_for(lambda: len(self.askers) >= threads, timeout=10)


class Body(httpx.SyncByteStream):
    """A body that is sent piece by piece, and knows what was taken and whether it was closed."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.taken = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.taken += len(piece)
            yield piece

    def close(self) -> None:
        self.closed = True


def snapshot(request: httpx.Request) -> httpx.Request:
    """The request as it is now: the same object may be marked and sent again."""
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.read(),
        extensions=request.extensions,
    )


class Cloud:
    """An API, an identity service and a metadata service that hand out numbered credentials.

    Attributes:
        valid: the numbers of the credentials that the API accepts; null accepts all.
        sign_ins: how many credentials were asked for.
        override: answers in place of the path that it is kept under.
    """

    def __init__(self, clock: SetClock, *, lifetime: timedelta = timedelta(hours=24)) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.valid: set[int] | None = None
        self.sign_ins = 0
        self.requests: list[httpx.Request] = []
        self.override: dict[str, Handler] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(snapshot(request))
        path = request.url.path
        if path in self.override:
            return self.override[path](request)
        known: dict[str, Handler] = {
            "/v3/auth/tokens": self.sign_in,
            "/meta-data/latest/api/token": lambda _: httpx.Response(200, text="metadata-token\n"),
            "/openstack/latest/securitykey": self.keys,
        }
        return known.get(path, self.api)(request)

    def sign_in(self, _: httpx.Request) -> httpx.Response:
        self.sign_ins += 1
        body = {"token": {"expires_at": self.expiry(), "methods": ["password"]}}
        headers = {"X-Subject-Token": f"made-up-token-{self.sign_ins}"}
        return httpx.Response(201, json=body, headers=headers)

    def keys(self, _: httpx.Request) -> httpx.Response:
        self.sign_ins += 1
        return httpx.Response(200, json={"credential": self.credential()})

    def credential(self) -> dict[str, str]:
        return {
            "access": f"ACCESS{self.sign_ins}",
            "secret": f"made-up-secret-{self.sign_ins}",
            "securitytoken": f"made-up-token-{self.sign_ins}",
            "expires_at": self.expiry(),
        }

    def expiry(self) -> str:
        return (self.clock.now + self.lifetime).isoformat(timespec="microseconds")

    def api(self, request: httpx.Request) -> httpx.Response:
        number = self.number(request)
        accepted = self.valid is None or number in self.valid
        return httpx.Response(200 if accepted else 401, json={})

    @staticmethod
    def number(request: httpx.Request) -> int:
        headers = request.headers
        token = headers.get("X-Auth-Token") or headers["X-Security-Token"]
        return int(token.removeprefix("made-up-token-"))

    def used(self) -> list[int]:
        """The number of the credential of each request to the API."""
        return [self.number(r) for r in self.requests if r.url.host == "swr-api.example.com"]

    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


def send(auth: httpx.Auth, handler: Handler, request: httpx.Request | None = None) -> int:
    with httpx.Client(transport=httpx.MockTransport(handler)) as client:
        request = request or client.build_request("GET", API)
        response = client.send(request, auth=auth, stream=True)
        response.close()
        return response.status_code


def sent(auth: httpx.Auth, request: httpx.Request) -> httpx.Request:
    """The request as it reaches the transport."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(snapshot(request))
        return httpx.Response(200)

    send(auth, handler, request)
    return seen[0]


def by_password(clock: SetClock) -> PasswordAuth:
    return PasswordAuth(PasswordCredential(IAM, "robot", Secret(PASSWORD), "acme", "eu-de"), clock)


def by_agency(clock: SetClock) -> AgencyAuth:
    return AgencyAuth(AgencyCredential(), clock)


Kind = Callable[[SetClock], RenewedAuth]
RENEWED = pytest.mark.parametrize("kind", [by_password, by_agency])
GIVES: dict[Kind, str] = {
    by_password: "/v3/auth/tokens",
    by_agency: "/openstack/latest/securitykey",
}


# The vendor's vectors


def vector_headers(vector: Mapping[str, Any]) -> dict[str, str]:
    given = vector["input"]
    headers = {"content-type": given["headers"]["Content-Type"], "host": given["host"]}
    if given["project_id"]:
        headers["x-project-id"] = given["project_id"]
    if given["security_token"]:
        headers["x-security-token"] = given["security_token"]
    return headers | {"x-sdk-date": given["headers"]["X-Sdk-Date"]}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_as_functions(vector: dict[str, Any]) -> None:
    """Canonical request, string to sign and signature are the SDK's, byte for byte."""
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
def test_vectors_as_sent(vector: dict[str, Any]) -> None:
    """What reaches the wire is the URI and the headers that the SDK sends."""
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
def test_sent_is_signed(segments: list[str], pairs: list[tuple[str, str]], in_url: bool) -> None:
    """Whatever the path and the query, the signature is that of the target that httpx sends."""
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
    """A path is unquoted once, and quoted again part by part."""
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
    """A query is sorted, and each of its parts quoted by RFC 3986."""
    assert canonical_query(query) == canonical


def test_body_is_signed() -> None:
    """The hash of the body is the last line of what is signed."""
    hashes = [canonical_request("POST", b"/", b"", {}, body)[-64:] for body in (b"", b"{}")]

    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("renewed", [True, False])
def test_streamed_body_is_signed(renewed: bool) -> None:
    """A body that is given piece by piece is read before it is signed."""
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


def test_same_request_signed_again() -> None:
    """A request that is sent once more is dated and signed anew, and its URL stays as it was."""
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
    """A clock in another zone dates requests in UTC."""
    clock = SetClock(datetime.fromisoformat("2024-01-02T11:04:05+08:00"))
    wire = sent(
        SigningAuth(KeyCredential(Secret("AK"), Secret(SECRET_KEY)), clock),
        httpx.Request("GET", API),
    )

    assert wire.headers["X-Sdk-Date"] == "20240102T030405Z"


def test_token() -> None:
    """A token is sent as it is."""
    assert (
        sent(TokenAuth(Secret("abc")), httpx.Request("GET", API)).headers["X-Auth-Token"] == "abc"
    )


# What is renewed


@RENEWED
def test_one_sign_in_for_all_threads(kind: Kind) -> None:
    """Eight threads that start at once share the one sign-in that any of them sends."""
    clock = AnnouncingClock()
    cloud, auth, barrier = Cloud(clock), kind(clock), threading.Barrier(8)

    def patient(request: httpx.Request) -> httpx.Response:
        assert clock.wait_for(8)
        return cloud(request)

    def ask(_: int) -> int:
        barrier.wait(10)
        return send(auth, patient)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [200] * 8
    assert cloud.sign_ins == 1
    assert cloud.used() == [1] * 8


@RENEWED
def test_renewed_before_it_expires(kind: Kind) -> None:
    """A credential serves until some minutes before its expiry, and then a new one does."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    send(auth, cloud)
    clock.advance(hours=23, minutes=49)
    send(auth, cloud)
    clock.advance(minutes=2)
    send(auth, cloud)
    send(auth, cloud)

    assert cloud.used() == [1, 1, 2, 2]


@RENEWED
def test_kept_although_it_seems_expired(kind: Kind) -> None:
    """A clock that runs a day ahead does not turn every request into a sign-in."""
    clock = SetClock()
    cloud, auth = Cloud(clock, lifetime=-timedelta(days=1)), kind(clock)
    send(auth, cloud)
    send(auth, cloud)
    clock.advance(minutes=1)
    send(auth, cloud)

    assert cloud.used() == [1, 1, 2]


@RENEWED
def test_renewed_once_on_401(kind: Kind) -> None:
    """A credential that died early is replaced, and the request sent once more."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    send(auth, cloud)
    cloud.valid = {2}

    assert send(auth, cloud) == 200
    assert cloud.used() == [1, 1, 2]


@RENEWED
def test_second_401_is_the_callers(kind: Kind) -> None:
    """A registry that refuses the new credential as well is not asked a third time."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.valid = set()

    assert send(auth, cloud) == 401
    assert cloud.used() == [1, 2]


@RENEWED
def test_newer_one_of_another_thread(kind: Kind) -> None:
    """On a 401, what another thread has fetched meanwhile is used instead of one more."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    send(auth, cloud)
    slow = auth.sync_auth_flow(httpx.Request("GET", API))
    assert cloud.number(next(slow)) == 1
    cloud.valid = {2}
    send(auth, cloud)
    again = slow.send(httpx.Response(401))

    assert (str(again.url), cloud.number(again), cloud.sign_ins) == (API, 2, 2)


@RENEWED
def test_closed_early(kind: Kind) -> None:
    """A sign-in that finds no connection leaves the way free for the next."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(httpx.ConnectError):
        send(auth, broken)

    assert send(auth, cloud) == 200


@RENEWED
@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (503, Busy), (0, Unreachable)])
def test_failure_is_shared(kind: Kind, status: int, error: type[RegistryError]) -> None:
    """Who waits for another thread's sign-in fails with it, without a sign-in of its own."""
    clock = AnnouncingClock()
    cloud, auth = Cloud(clock), kind(clock)
    holder = auth.sync_auth_flow(httpx.Request("GET", API))
    request = next(holder)
    while request.url.path != GIVES[kind]:
        request = holder.send(cloud(request))

    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(send, auth, cloud)
        assert clock.wait_for(2)
        if status:
            with pytest.raises(error):
                holder.send(httpx.Response(status))
        else:
            holder.close()
        with pytest.raises(error):
            waiter.result(10)
    assert cloud.sign_ins == 0


@RENEWED
def test_refusal_stands(kind: Kind) -> None:
    """A refused credential is not tried again at once, lest the account be locked."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(403)
    for _ in range(3):
        with pytest.raises(Unauthorized, match=r"status 403") as caught:
            send(auth, cloud)
        assert caught.value.status == 403
    tried = cloud.paths().count(cloud.paths()[-1])
    cloud.override.clear()
    clock.now += REPEAT_REFUSAL_FOR

    assert tried == 1
    assert send(auth, cloud) == 200


@RENEWED
def test_passing_failures(kind: Kind) -> None:
    """Throttling and a busy service are told apart, with the time that they ask for."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    later = "Tue, 02 Jan 2024 03:05:05 GMT"
    for status, after, error, seconds in (
        (429, "7", Throttled, 7.0),
        (429, None, Throttled, None),
        (429, "soon", Throttled, None),
        (503, later, Busy, 60.0),
        (409, None, Busy, None),
    ):
        headers = {"Retry-After": after} if after else {}
        answer = httpx.Response(status, headers=headers)
        cloud.override[GIVES[kind]] = lambda _, answer=answer: answer  # type: ignore[misc]  # mypy cannot infer a lambda's default
        with pytest.raises(error) as caught:
            send(auth, cloud)
        assert caught.value.retry_after == seconds
    cloud.override.clear()
    assert send(auth, cloud) == 200


TOKEN = "made-up-token-in-a-bad-place"


@RENEWED
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"\xff",
        b'{"token":{"expires_at":"%s"}}' % TOKEN.encode(),
        b'{"token":{"expires_at":"2024-01-03T00:00:00"}}',
        b'{"credential":{"access":"\xff"},"token":{"expires_at":"\xff"}}',
        b'{"nested":' + b"[" * 60_000,
        b'{"token":{}}',
        b'{"credential":{"access":"A","secret":"%s","expires_at":1}}' % TOKEN.encode(),
        b'{"credential":{"access":"A\\n","secret":"s","securitytoken":"%s","expires_at":'
        b'"2024-01-03T00:00:00Z"}}' % TOKEN.encode(),
        b'{"credential":{"access":"A","secret":"s","securitytoken":"%s\\n","expires_at":'
        b'"2024-01-03T00:00:00Z"}}' % TOKEN.encode(),
    ],
)
def test_malformed(kind: Kind, body: bytes) -> None:
    """An answer that is not what it promises is named as such, and never quoted."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        201, content=body, headers={"X-Subject-Token": TOKEN}
    )
    with pytest.raises(MalformedResponse) as caught:
        send(auth, cloud)

    assert not shows(caught.value, TOKEN, PASSWORD)


@RENEWED
def test_redirect_is_not_followed(kind: Kind) -> None:
    """A redirect of the sign-in ends in an error, with no request to where it leads."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        307, headers={"Location": "https://evil.example.com/"}
    )
    with pytest.raises(MalformedResponse, match="redirect"):
        send(auth, cloud)

    assert "evil.example.com" not in {request.url.host for request in cloud.requests}


@RENEWED
def test_too_large(kind: Kind) -> None:
    """An endless answer is given up soon after the bound, and closed."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    body = Body(b" " * 4096 for _ in range(10_000))
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        201, stream=body, headers={"X-Subject-Token": TOKEN}
    )
    with pytest.raises(ResponseTooLarge):
        send(auth, cloud)

    assert body.taken <= MAX_ANSWER_BYTES + 4096
    assert body.closed


@RENEWED
def test_compressed_is_not_unpacked(kind: Kind) -> None:
    """A compressed answer, which was not asked for, cannot grow beyond the bound."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    packed = gzip.compress(json.dumps({"token": {"expires_at": cloud.expiry()}}).encode())
    headers = {"X-Subject-Token": TOKEN, "Content-Encoding": "gzip"}
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        201, stream=Body(iter([packed])), headers=headers
    )
    with pytest.raises(MalformedResponse):
        send(auth, cloud)


@RENEWED
def test_too_slow(kind: Kind) -> None:
    """An answer that drips in for longer than the bound is given up."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)

    def drip() -> Iterator[bytes]:
        while True:
            clock.advance(seconds=7)
            yield b" "

    body = Body(drip())
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        201, stream=body, headers={"X-Subject-Token": TOKEN}
    )
    with pytest.raises(Unreachable):
        send(auth, cloud)
    assert body.closed


@RENEWED
def test_401_frees_its_connection(kind: Kind) -> None:
    """The answer that leads to a new sign-in is closed before it, and not read."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    body = Body(b"x" * 4096 for _ in range(10_000))
    closed: list[bool] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if cloud.used() == [] and request.url == API:
            cloud(request)
            return httpx.Response(401, stream=body)
        if cloud.used():
            closed.append(body.closed)
        return cloud(request)

    assert send(auth, handler) == 200
    assert closed
    assert all(closed)
    assert body.taken == 0


@RENEWED
def test_every_request_has_a_timeout(kind: Kind) -> None:
    """No request can hold the lock for ever."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    send(auth, cloud)

    assert len(cloud.requests) >= 2
    for request in cloud.requests:
        assert all(0 < seconds <= 30 for seconds in request.extensions["timeout"].values())


@pytest.mark.parametrize(
    "expiry",
    [
        "2024-01-03T03:04:05Z",
        "2024-01-03T03:04:05.123456Z",
        "2024-01-03T03:04:05.123456789Z",
        "2024-01-03T11:04:05+08:00",
    ],
)
def test_forms_of_expiry(expiry: str) -> None:
    """Every form in which the vendor writes a moment is read as the same one."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    cloud.expiry = lambda: expiry  # type: ignore[method-assign]  # a test's own object
    send(auth, cloud)
    clock.advance(hours=23, minutes=49)
    send(auth, cloud)
    clock.advance(minutes=2)
    send(auth, cloud)

    assert cloud.used() == [1, 1, 2]


@pytest.mark.parametrize("expiry", ["0001-01-01T00:00:00+08:00", "9999-12-31T23:59:59-08:00"])
def test_extremes_of_expiry(expiry: str) -> None:
    """The first and the last moment that can be written break nothing."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    cloud.expiry = lambda: expiry  # type: ignore[method-assign]  # a test's own object

    assert send(auth, cloud) == 200


# A user's password


def test_sign_in_as_documented() -> None:
    """The sign-in is the vendor's: project-scoped, without the catalogue."""
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


def test_refused_sign_in() -> None:
    """A refused sign-in names who and where, and keeps the password to itself."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    cloud.override["/v3/auth/tokens"] = lambda request: httpx.Response(401, text=str(request))
    with pytest.raises(Unauthorized) as caught:
        send(auth, cloud)

    for word in ("iam.example.com", "'robot'", "'acme'", "'eu-de'"):
        assert word in str(caught.value)
    assert not shows(caught.value, PASSWORD)


@pytest.mark.parametrize("token", [None, "", "two\tparts", "caf\xe9"])
def test_no_usable_token(token: str | None) -> None:
    """A sign-in without a token that can be sent is malformed."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    headers = {} if token is None else {b"X-Subject-Token": token.encode("latin-1")}
    cloud.override["/v3/auth/tokens"] = lambda _: httpx.Response(
        201, headers=headers, json={"token": {"expires_at": cloud.expiry()}}
    )
    with pytest.raises(MalformedResponse, match="X-Subject-Token"):
        send(auth, cloud)


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


# Secrets


def shows(value: object, *secrets: str) -> bool:
    """Whether a value, its attributes, or its causes show any of the secrets."""
    texts = [repr(value), str(value), repr(getattr(value, "__dict__", ""))]
    if isinstance(value, BaseException):
        causes = [value.__cause__, None if value.__suppress_context__ else value.__context__]
        if any(shows(cause, *secrets) for cause in causes if cause is not None):
            return True
    return any(secret in text for secret in secrets for text in texts)


def test_nothing_shows_a_secret() -> None:
    """No object's text, nor that of its attributes, holds a secret."""
    clock = SetClock()
    password, agency = by_password(clock), by_agency(clock)
    for auth in (password, agency):
        send(auth, Cloud(clock))
    keys = KeyCredential(Secret("AK"), Secret(SECRET_KEY), Secret("made-up-token-9"))
    signing = SigningAuth(keys, clock)

    for shown in (password, agency, signing, TokenAuth(Secret("made-up-token-9"))):
        assert not shows(shown, PASSWORD, SECRET_KEY, "made-up")


def test_known_secrets() -> None:
    """Each credential knows its secrets, those that it fetched and replaced among them."""
    clock = SetClock()
    password, agency = by_password(clock), by_agency(clock)
    assert redact(f"{PASSWORD} made-up-token-1", password.secrets) == "*** made-up-token-1"
    assert agency.secrets == ()
    for auth in (password, agency):
        cloud = Cloud(clock)
        send(auth, cloud)
        cloud.valid = {2}
        send(auth, cloud)

    text = f"{PASSWORD} made-up-token-2 made-up-token-1"
    assert redact(text, password.secrets) == "*** *** ***"
    text = "made-up-secret-2 made-up-token-2 made-up-secret-1 made-up-token-1"
    assert redact(text, agency.secrets) == "*** *** *** ***"
    token = Secret("made-up-token-9")
    assert TokenAuth(token).secrets == (token,)
    assert SigningAuth(KeyCredential(Secret("AK"), token), clock).secrets[1:] == (token,)
    temporary = SigningAuth(KeyCredential(Secret("AK"), token, token), clock)
    assert temporary.secrets[0].reveal() == "AK"
    assert temporary.secrets[1:] == (token, token)


@pytest.mark.parametrize("bad", ["", "made-up\n", " made-up", "made-up\xe9", "made-up\r\nX: y"])
def test_unfit_for_a_header(bad: str) -> None:
    """What no header can carry is refused before h11 would quote it in an error."""
    good, clock = Secret(SECRET_KEY), SetClock()
    for make in (
        lambda: TokenAuth(Secret(bad)),
        lambda: SigningAuth(KeyCredential(Secret(bad), good), clock),
        lambda: SigningAuth(KeyCredential(Secret("AK"), good, Secret(bad)), clock),
        lambda: SigningAuth(KeyCredential(good, good, None, bad), clock),
        lambda: AgencyAuth(AgencyCredential(), clock, project_id=bad),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert not shows(caught.value, "made-up")


@pytest.mark.parametrize("bad", ["", "made-up\udcff"])
def test_unfit_to_sign_with(bad: str) -> None:
    """A secret that is empty, or was read from bytes that are no text, is refused at the start."""
    clock = SetClock()
    with pytest.raises(ConfigError):
        SigningAuth(KeyCredential(Secret("AK"), Secret(bad)), clock)
    with pytest.raises(ConfigError):
        PasswordAuth(PasswordCredential(IAM, "robot", Secret(bad), "acme", "eu-de"), clock)


@pytest.mark.parametrize("bad", ["", "iam.example.com", "ftp://iam", "https://", "https://a:b"])
def test_unfit_endpoint(bad: str) -> None:
    """An endpoint that is no URL is a fault of the configuration."""
    clock = SetClock()
    with pytest.raises(ConfigError, match="iam_endpoint"):
        PasswordAuth(PasswordCredential(bad, "robot", Secret(PASSWORD), "acme", "eu-de"), clock)
    with pytest.raises(ConfigError, match="metadata_endpoint"):
        AgencyAuth(AgencyCredential(bad), clock)


@pytest.mark.parametrize(
    ("credential", "kind", "secrets"),
    [
        (TokenCredential(Secret("made-up-1")), TokenAuth, {"made-up-1"}),
        (
            KeyCredential(Secret("MADEUP"), Secret("made-up-2"), Secret("made-up-3"), "project"),
            SigningAuth,
            {"MADEUP", "made-up-2", "made-up-3"},
        ),
        (
            PasswordCredential("https://iam.example", "robot", Secret("made-up-4"), "d", "p"),
            PasswordAuth,
            {"made-up-4"},
        ),
        (AgencyCredential("http://169.254.169.254"), AgencyAuth, set()),
    ],
    ids=["token", "aksk", "password", "ecs"],
)
def test_of_configured_credentials(
    credential: Credential, kind: type[object], secrets: set[str]
) -> None:
    """Each configured credential has its signer, which tells the secrets that it uses."""
    signer = auth_for(credential)

    assert isinstance(signer, kind)
    assert isinstance(signer, RegistryAuth)
    assert {secret.reveal() for secret in signer.secrets} == secrets


def test_nobody_is_asked_without_a_credential() -> None:
    """The kind none signs nothing."""
    assert auth_for(NoCredential()) is None
