"""The HTTP client: retries, requests, failing servers and size limits."""

import gzip
import socket
from collections.abc import Generator, Iterator
from contextlib import closing
from threading import Thread, current_thread

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


def test_redirect_is_not_followed() -> None:
    """A redirect is an error, and its target does not get the credentials."""
    seen: list[bytes] = []

    def elsewhere(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n[]")

    with server(elsewhere) as target:
        location = f"http://{target}/stolen"
        head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        error = failure(says(head.encode()))
    assert isinstance(error, BadRequest)
    assert location in sentence_of(error)
    assert seen == []


# Failing servers.


def test_refused_connection() -> None:
    """A port without a server is unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
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


def compressed(body: bytes) -> Talk:
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    return says(HEAD + head.encode() + body)


def test_compressed_body_is_decompressed() -> None:
    """A compressed body is decompressed."""
    with server(compressed(gzip.compress(b"[]"))) as host:
        assert get(client_of(None, url=f"http://{host}")).body == b"[]"


def test_decompressed_size_is_bounded() -> None:
    """The limit holds for the decompressed body."""
    body = gzip.compress(b"0" * 10**7)
    assert len(body) < 20_000
    assert type(failure(compressed(body))) is ResponseTooLarge


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"[]" * 99)[:10] + b"\xff" * 20])
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


def test_absolute_url_of_the_same_host() -> None:
    """An absolute URL from the registry is requested with its query unchanged."""
    handler, requests = answers(httpx.Response(200))
    with closing(client_of(handler)) as client:
        client.get("http://127.0.0.1:80/v2/x?last=a%2Fb&n=2", {}, 100)
    assert str(requests[0].url) == "http://127.0.0.1/v2/x?last=a%2Fb&n=2"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/v2/x",
        "https://127.0.0.1/v2/x",
        "http://127.0.0.1:81/v2/x",
        "http://127.0.0.1@elsewhere.example.com/v2/x",
        "ftp://127.0.0.1/v2/x",
        "http://user:password@127.0.0.1/v2/x",
    ],
)
def test_absolute_url_of_another_host_is_refused(url: str) -> None:
    """A URL of another host, port or scheme gets no request."""
    handler, requests = answers(httpx.Response(200))
    with closing(client_of(handler)) as client, pytest.raises(MalformedResponse):
        client.get(url, {}, 100)
    assert requests == []


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
    with pytest.raises(RegistryError):
        client.get(PATH, {}, 10)
    client.get(PATH, {}, 10)
    assert [request.headers.get("Cookie") for request in requests] == [None] * 2
