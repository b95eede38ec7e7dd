"""The HTTP client: retries, requests, failing servers and size limits."""

import gzip
import socket
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Thread, current_thread
from time import sleep
from typing import Any

import httpx
import pytest
import stamina

from tagsync.errors import (
    BadRequest,
    Busy,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from tagsync.registries.client import ATTEMPTS, Client, Limits
from tagsync.registries.pacing import Pacer
from tagsync.registries.swr.api import REFUSALS
from tests.support.http_client import PATH, TOKEN, Handler, Time, client_of, get
from tests.support.http_server import HEAD, Talk, says, server

# Without a time, so that every process that collects the tests gives them the same names.
PACKED = gzip.compress(b"[]", mtime=0)
LONGER = gzip.compress(b"[]" * 99, mtime=0)


@pytest.fixture(autouse=True)
def no_backoff() -> Iterator[None]:
    """Retry as often as in production, without delays."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def sentence_of(error: RegistryError) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1
    assert TOKEN not in text
    return text


def answers(*responses: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    """Return a handler that sends these responses, and its requests."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        response = responses[min(len(requests), len(responses)) - 1]
        return httpx.Response(
            response.status_code, headers=response.headers, content=response.read()
        )

    return handler, requests


def failure(talk: Talk, *, max_bytes: int = 10**6, timeout: float = 5.0) -> RegistryError:
    with server(talk) as host, pytest.raises(RegistryError) as caught:
        get(client_of(None, url=f"http://{host}", limits=Limits(timeout)), max_bytes)
    return caught.value


# Retries.


def test_transient_error_is_retried() -> None:
    """A 503 and then a 200 is an answer after two requests."""
    handler, requests = answers(httpx.Response(503), httpx.Response(200, content=b"[]"))
    answer = get(client_of(handler))
    assert (answer.body, answer.requests, len(requests)) == (b"[]", 2, 2)


def test_broken_connection_is_retried() -> None:
    """A connection that fails once does not fail the poll."""
    sent = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        if sent == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    assert get(client_of(handler)).requests == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_lasting_error_is_not_retried(status: int) -> None:
    """An error that is not transient is not retried: it could lock the account."""
    handler, requests = answers(httpx.Response(status))
    with pytest.raises(RegistryError):
        get(client_of(handler))
    assert len(requests) == 1


@pytest.mark.parametrize("status", [409, 500, 502, 503, 504])
def test_retries_are_bounded(status: int) -> None:
    """After the allowed number of attempts, the last error is raised."""
    handler, requests = answers(httpx.Response(status))
    with pytest.raises(Busy) as caught:
        get(client_of(handler))
    assert len(requests) == ATTEMPTS
    assert str(status) in sentence_of(caught.value)


def test_no_retries() -> None:
    """With ``retry_for = 0`` a request is sent once."""
    handler, requests = answers(httpx.Response(503))
    with pytest.raises(Busy):
        get(client_of(handler, limits=Limits(retry_for=0)))
    assert len(requests) == 1


def test_short_retry_after_is_respected() -> None:
    """A busy registry gets the request again after a short Retry-After."""
    handler, requests = answers(
        httpx.Response(503, headers={"Retry-After": "5"}), httpx.Response(200)
    )
    assert get(client_of(handler)).status == 200
    assert len(requests) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_long_retry_after_fails_at_once(status: int, time: Time) -> None:
    """If Retry-After exceeds ``retry_for``, the poll fails at once."""
    handler, requests = answers(httpx.Response(status, headers={"Retry-After": "61"}))
    with pytest.raises(RegistryError) as caught:
        get(client_of(handler, limits=Limits(retry_for=60), time=time))
    assert caught.value.retry_after == 61.0
    assert len(requests) == 1
    assert time.slept == []


def test_throttled_request_waits_and_is_retried(time: Time) -> None:
    """A throttled request is retried after the pause."""
    throttled = httpx.Response(429, headers={"Retry-After": "7"})
    handler, _ = answers(throttled, httpx.Response(200))
    assert get(client_of(handler, time=time)).requests == 2
    assert time.slept == pytest.approx([7.0])


def test_pause_outlives_the_request(time: Time) -> None:
    """During a pause, later requests are not sent at all."""
    handler, requests = answers(httpx.Response(429, headers={"Retry-After": "100"}))
    with closing(client_of(handler, time=time)) as client:
        for _ in range(3):
            with pytest.raises(Throttled):
                client.get(PATH, {}, 10)
    assert len(requests) == 1


def test_pause_holds_for_all_threads() -> None:
    """A pause holds for all threads of the registry."""
    time = Time()
    slept: list[tuple[str, float]] = []
    handler, requests = answers(
        httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(200)
    )

    def sleep(seconds: float) -> None:
        slept.append((current_thread().name, seconds))
        if current_thread() is other:
            time.now += seconds
        else:
            other.start()
            other.join()

    client = Client(
        "http://127.0.0.1",
        None,
        REFUSALS,
        Limits(),
        transport=httpx.MockTransport(handler),
        pacer=Pacer(1e6, monotonic=time.monotonic, sleep=sleep),
    )
    other = Thread(target=client.get, args=(PATH, {}, 10), name="other")
    get(client)
    assert slept == [(current_thread().name, 7.0), ("other", 7.0)]
    assert len(requests) == 3


# Requests.


def test_request_has_query_and_credentials() -> None:
    """A request is a GET below the endpoint, with its query and credentials."""
    handler, requests = answers(httpx.Response(200))
    with closing(client_of(handler, url="http://127.0.0.1/base/")) as client:
        answer = client.get("/a%2Fb/$", {"offset": 0, "limit": 5}, 10)
    request = requests[0]
    assert request.method == "GET"
    assert request.url.raw_path == b"/base/a%2Fb/$?offset=0&limit=5"
    assert request.headers["X-Auth-Token"] == TOKEN
    assert answer.url == "http://127.0.0.1/base/a%2Fb/$"


def redirects(*targets: str, status: int = 307) -> tuple[Handler, list[httpx.Request]]:
    """Return a handler that redirects to each of these targets, and its requests."""
    locations = [httpx.Response(status, headers={"Location": target}) for target in targets]
    return answers(*locations, httpx.Response(200))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_redirect_is_followed(status: int, method: str) -> None:
    """A redirect within the host is followed by the same method, with the credentials."""
    handler, requests = redirects("/other?x=1#y", "http://127.0.0.1:80/third", status=status)
    with closing(client_of(handler)) as client:
        answer = (
            client.get(PATH, {"n": 1}, 100) if method == "GET" else client.head(PATH, accept="")
        )
    assert [str(request.url) for request in requests] == [
        f"http://127.0.0.1{PATH}" + ("?n=1" if method == "GET" else ""),
        "http://127.0.0.1/other?x=1",
        "http://127.0.0.1/third",
    ]
    assert {request.method for request in requests} == {method}
    assert {request.headers["X-Auth-Token"] for request in requests} == {TOKEN}
    assert (answer.requests, answer.redirected, answer.url) == (3, True, "http://127.0.0.1/third")


@pytest.mark.parametrize(
    "target",
    [
        "https://other.example.com/x",
        "https://registry.example.com:8443/x",
        "//other.example.com/x",
        "https://10.0.0.1/x",
    ],
)
def test_redirect_elsewhere_gets_no_credentials(target: str) -> None:
    """Another host or port gets no credentials, and neither do the targets after it."""
    handler, requests = redirects(target, "https://registry.example.com/x")
    get(client_of(handler, url="https://registry.example.com"))
    assert [TOKEN in request.headers.values() for request in requests] == [True, False, False]


def test_redirect_to_tls_gets_no_credentials() -> None:
    """Another scheme gets no credentials."""
    handler, requests = redirects("https://127.0.0.1/x")
    get(client_of(handler))
    assert [TOKEN in request.headers.values() for request in requests] == [True, False]


@pytest.mark.parametrize(
    "target",
    [
        "http://registry.example.com/x",
        "http://other.example.com/x",
        "ftp://registry.example.com/x",
        "file:///etc/passwd",
        "https://user:password@registry.example.com/x",
        "https://user@other.example.com/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://0.0.0.0/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://a.localhost/x",
        "https://[::1]/x",
        "https://[::]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/x",
        "https://[::ffff:169.254.169.254]/x",
    ],
)
def test_dangerous_redirect_gets_no_request(target: str) -> None:
    """A redirect to plain HTTP, to this machine or to the local link is not followed."""
    handler, requests = redirects(target)
    with pytest.raises(BadRequest, match="follows no redirect") as caught:
        get(client_of(handler, url="https://registry.example.com"))
    assert "password" not in sentence_of(caught.value)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "target", "is_followed"),
    [
        ("http://127.0.0.1", "http://localhost:5000/x", True),
        ("http://localhost", "http://[::1]/x", True),
        ("http://127.0.0.1", "http://169.254.169.254/x", False),
        ("http://169.254.1.1", "http://169.254.1.2/x", True),
        ("http://169.254.1.1", "http://127.0.0.1/x", False),
    ],
)
def test_redirect_stays_as_local_as_the_endpoint(
    endpoint: str, target: str, is_followed: bool
) -> None:
    """An endpoint on this machine may redirect to this machine, and to nothing else local."""
    handler, requests = redirects(target)
    with closing(client_of(handler, url=endpoint)) as client:
        if is_followed:
            client.get(PATH, {}, 10)
        else:
            with pytest.raises(BadRequest):
                client.get(PATH, {}, 10)
    assert len(requests) == 1 + is_followed


def test_name_that_resolves_to_this_machine_gets_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that resolves to this machine is refused before the request is sent."""
    resolve = socket.getaddrinfo
    local = {"registry.example.com": "127.0.0.1", "evil.example.com": "127.0.0.1"}

    def resolved(host: str, *args: Any, **options: Any) -> Any:
        return resolve(local.get(host, host), *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(
            f"HTTP/1.1 307 x\r\nLocation: http://evil.example.com:{port}/\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )

    with server(talk) as host:
        port = host.partition(":")[2]
        client = client_of(None, url=f"http://registry.example.com:{port}")
        with pytest.raises(BadRequest, match="to a loopback address"):
            get(client)
    assert [request for request in seen if request] == seen[:1]


def test_redirects_are_bounded() -> None:
    """A request follows five redirects, and not one more."""
    handler, requests = redirects(*(f"/{number}" for number in range(5)))
    assert get(client_of(handler)).requests == 6
    handler, requests = redirects(*(f"/{number}" for number in range(6)))
    with pytest.raises(BadRequest, match="led through 5 redirects"):
        get(client_of(handler))
    assert len(requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        None,
        "http://[::1",
        "http://127.0.0.1:x/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "mailto:a@b",
        "http://xn--/",
    ],
)
def test_redirect_without_target_is_an_error(location: str | None) -> None:
    """A redirect without a valid target is an error."""
    headers = {} if location is None else {"Location": location}
    with pytest.raises(RegistryError):
        get(client_of(lambda _: httpx.Response(307, headers=headers)))


def test_redirects_count_towards_the_size() -> None:
    """The bodies of redirects count towards the maximum size."""
    redirect = httpx.Response(307, headers={"Location": "/x"}, content=b"x" * 60)
    handler, requests = answers(redirect, httpx.Response(200, content=b"x" * 60))
    with pytest.raises(ResponseTooLarge):
        get(client_of(handler), 100)
    assert len(requests) == 2


def test_redirects_count_towards_the_time() -> None:
    """All hops of a request together have the time of one request."""

    def slow(connection: socket.socket) -> None:
        connection.recv(65536)
        sleep(0.15)
        # The server closes the connection, so the next hop must not use it.
        connection.sendall(
            b"HTTP/1.1 307 x\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )

    assert type(failure(slow, timeout=0.4)) is TimedOut


def test_error_of_a_redirect_contains_no_secret() -> None:
    """A secret in the target of a redirect is not part of an error."""
    handler, _ = redirects(f"http://169.254.169.254/{TOKEN}")
    with pytest.raises(BadRequest) as caught:
        get(client_of(handler))
    sentence_of(caught.value)
    for answer in (
        httpx.Response(403),
        httpx.Response(200, content=b"x" * 200),
        httpx.Response(200, headers={"Content-Encoding": "br"}),
    ):
        handler, _ = answers(httpx.Response(307, headers={"Location": f"/{TOKEN}"}), answer)
        with pytest.raises(RegistryError) as refused:
            get(client_of(handler), 100)
        sentence_of(refused.value)

    def broken(request: httpx.Request) -> httpx.Response:
        if request.url.path == PATH:
            return httpx.Response(307, headers={"Location": f"/{TOKEN}"})
        raise httpx.ReadError("broken", request=request)

    with pytest.raises(RegistryError) as unread:
        get(client_of(broken))
    sentence_of(unread.value)


# Bytes after a response.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bytes_left_over_belong_to_no_later_request(method: str) -> None:
    """A second response on a connection is not the answer to the next request."""
    connections = 0

    def talk(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        while connection.recv(65536):
            body = b"" if method == "HEAD" else b"[1]"
            forged = HEAD + b"X-Forged: yes\r\nContent-Length: 3\r\n\r\n[2]"
            connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n" + body + forged)

    with server(talk) as host, closing(client_of(None, url=f"http://{host}")) as client:
        for _ in range(5):
            if method == "GET":
                assert client.get(PATH, {}, 100).body == b"[1]"
            else:
                assert "X-Forged" not in client.head(PATH, accept="a/b").headers
    assert connections == 5


def test_connection_without_leftovers_is_reused() -> None:
    """A connection on which nothing is left over serves the next request."""
    connections = 0

    def talk(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        while connection.recv(65536):
            connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n[1]")

    with server(talk) as host, closing(client_of(None, url=f"http://{host}")) as client:
        for _ in range(5):
            client.get(PATH, {}, 100)
    assert connections == 1


# Failing servers.


def test_refused_connection() -> None:
    """A port without a server is unreachable."""
    # Without listening, it keeps the port from the servers of other tests.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(Unreachable, match="could not be reached") as caught:
            get(client_of(None, url=url))
    assert url in sentence_of(caught.value)


@pytest.mark.parametrize(
    "answer",
    [b"", HEAD, b"no HTTP\r\n\r\n", HEAD + b"Content-Length: 10\r\n\r\n[1]"],
    ids=["nothing", "half a head", "no HTTP", "half a body"],
)
def test_broken_answer(answer: bytes) -> None:
    """An answer that ends too early is an error."""
    error = failure(says(answer))
    assert type(error) is Unreachable
    assert "broke" in sentence_of(error)


def test_missing_last_chunk() -> None:
    """A chunked body without its last chunk is an error."""
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    assert type(failure(says(head + b"2\r\n[]\r\n"))) is Unreachable


def test_silent_server_times_out() -> None:
    """A server that sends nothing is given up after the timeout."""

    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    error = failure(silent, timeout=0.02)
    assert type(error) is TimedOut
    assert "within 0.02 s" in sentence_of(error)


def test_body_size_is_bounded() -> None:
    """A body may be as large as the limit, and not one byte larger."""
    handler, requests = answers(httpx.Response(200, content=b"x" * 100))
    assert len(get(client_of(handler), 100).body) == 100
    with pytest.raises(ResponseTooLarge):
        get(client_of(handler), 99)
    assert len(requests) == 2


def test_endless_body_is_aborted() -> None:
    """Reading stops at the limit, not at the end."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 10

    with pytest.raises(ResponseTooLarge, match="max_listing_size"):
        get(client_of(lambda _: httpx.Response(200, content=endless())), 100)
    assert sent == 11


def compressed(body: bytes, encoding: str = "gzip") -> Talk:
    head = f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return says(HEAD + head.encode() + body)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_compressed_body_is_decompressed(encoding: str) -> None:
    """A compressed body is decompressed, by each name of the encoding."""
    with server(compressed(gzip.compress(b"[]"), encoding)) as host:
        assert get(client_of(None, url=f"http://{host}")).body == b"[]"


def test_all_members_are_decompressed() -> None:
    """A body of several gzip members is decompressed to its end."""
    members = gzip.compress(b"[1") + gzip.compress(b"") + gzip.compress(b",2]" * 50_000)
    with server(compressed(members)) as host:
        body = get(client_of(None, url=f"http://{host}")).body
    assert body == b"[1" + b",2]" * 50_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PACKED + b"garbage", id="garbage follows"),
        pytest.param(PACKED + LONGER[:-1], id="second member is cut off"),
        pytest.param(PACKED[:-1], id="trailer is cut off"),
        pytest.param(PACKED[:5], id="header is cut off"),
    ],
)
def test_incomplete_compression_is_malformed(body: bytes) -> None:
    """A compressed body that is cut off, or followed by other bytes, is malformed."""
    assert type(failure(compressed(body))) is MalformedResponse


def test_decompressed_size_is_bounded() -> None:
    """The limit holds for the decompressed body."""
    body = gzip.compress(b"0" * 10**7)
    assert len(body) < 20_000
    assert type(failure(compressed(body))) is ResponseTooLarge


@pytest.mark.parametrize("body", [b"no gzip", LONGER[:10] + b"\xff" * 20])
def test_broken_compression_is_malformed(body: bytes) -> None:
    """A body that cannot be decompressed is malformed, and not retried."""
    assert type(failure(compressed(body))) is MalformedResponse


def test_transport_error_contains_no_secret() -> None:
    """Credentials are removed from the message of a transport error."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError(f"after {dict(request.headers)}")

    with pytest.raises(Unreachable, match=r"\*\*\*") as caught:
        get(client_of(handler))
    sentence_of(caught.value)


def test_refusal_is_raised() -> None:
    """An answer with an error status raises the error of the registry's table."""
    handler, _ = answers(httpx.Response(401))
    with pytest.raises(Unauthorized) as caught:
        get(client_of(handler))
    assert caught.value.status == 401


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "gzip,identity"])
def test_unrequested_encoding_is_refused(encoding: str) -> None:
    """Nested or denser compression is refused before it is decompressed."""
    body = gzip.compress(gzip.compress(bytes(10**6)))

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Stream(body))

    with pytest.raises(MalformedResponse, match="not requested"):
        get(client_of(handler))


class Stream(httpx.SyncByteStream):
    """A body as it is transferred."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self.body


class ThrottledSignIn(httpx.Auth):
    """A sign-in that is throttled."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        raise Throttled("the sign-in", retry_after=7.0)
        yield request


def test_throttled_sign_in_pauses_the_registry(time: Time) -> None:
    """If the sign-in is throttled, no request retries it before the pause is over."""
    pacer = Pacer(1000.0, monotonic=time.monotonic, sleep=time.sleep)
    handler, requests = answers()
    client = Client(
        "http://127.0.0.1",
        ThrottledSignIn(),
        REFUSALS,
        Limits(retry_for=60.0),
        transport=httpx.MockTransport(handler),
        pacer=pacer,
    )
    with pytest.raises(Throttled):
        client.get("/", {}, 1000)
    assert requests == []
    assert sum(time.slept) >= 7.0 * (ATTEMPTS - 1)


# Requests of OCI registries.


def test_head_is_retried_like_get() -> None:
    """A HEAD is paced, retried and refused like a GET, with its own types."""
    handler, requests = answers(
        httpx.Response(503), httpx.Response(200, headers={"Docker-Content-Digest": "sha256:1"})
    )
    with closing(client_of(handler)) as client:
        answer = client.head("/v2/x", accept="a/b, c/d")
    assert (answer.requests, answer.body) == (2, b"")
    assert answer.headers["Docker-Content-Digest"] == "sha256:1"
    assert {(request.method, request.headers["Accept"]) for request in requests} == {
        ("HEAD", "a/b, c/d")
    }


@pytest.mark.parametrize(
    ("headers", "slept"),
    [
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, [9.0]),
        ({"RateLimit-Remaining": "1", "RateLimit-Reset": "9"}, []),
        ({"RateLimit-Remaining": "0;w=21600"}, []),
        ({"RateLimit-Remaining": "x", "RateLimit-Reset": "9"}, []),
        ({"RateLimit-Remaining": "9" * 5000, "RateLimit-Reset": "9"}, []),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "1000000001"}, []),
    ],
)
def test_exhausted_rate_limit_pauses_requests(
    headers: dict[str, str], slept: list[float], time: Time
) -> None:
    """If no requests are left, the client pauses until the time that is named."""
    handler, _ = answers(httpx.Response(200, headers=headers))
    with closing(client_of(handler, time=time)) as client:
        for _ in range(2):
            client.get(PATH, {}, 100)
    assert [seconds for seconds in time.slept if seconds > 0.01] == slept


def test_cookies_are_ignored() -> None:
    """A cookie of an answer or an error is not sent with the next request."""
    cookie = {"Set-Cookie": "session=1; Path=/"}
    handler, requests = answers(
        httpx.Response(503, headers=cookie), httpx.Response(200, headers=cookie, content=b"[]")
    )
    client = client_of(handler)
    client.get(PATH, {}, 10)
    get(client)
    assert [request.headers.get("Cookie") for request in requests] == [None] * 3


def test_cookies_of_a_redirect_are_ignored() -> None:
    """A cookie of a redirect is not sent with the next request."""
    elsewhere = {"Set-Cookie": "session=1; Path=/", "Location": PATH}
    handler, requests = answers(
        httpx.Response(302, headers=elsewhere), httpx.Response(200, content=b"[]")
    )
    client = client_of(handler)
    client.get(PATH, {}, 10)
    assert [request.headers.get("Cookie") for request in requests] == [None] * 2
