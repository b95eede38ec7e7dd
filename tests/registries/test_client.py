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
    """Retries as often as ever, and without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def sentence_of(error: RegistryError) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1
    assert TOKEN not in text
    return text


def answers(*responses: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    """Answers in order, the last one for ever; and what it was asked."""
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


# What is tried again.


def test_what_passes_is_tried_again() -> None:
    """A 503 and then a 200 is an answer, and two requests."""
    handler, requests = answers(httpx.Response(503), httpx.Response(200, content=b"[]"))
    answer = get(client_of(handler))
    assert (answer.body, answer.requests, len(requests)) == (b"[]", 2, 2)


def test_a_broken_connection_is_tried_again() -> None:
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
def test_what_does_not_pass_is_not_tried_again(status: int) -> None:
    """The same request would be refused again, and count against a lock-out."""
    handler, requests = answers(httpx.Response(status))
    with pytest.raises(RegistryError):
        get(client_of(handler))
    assert len(requests) == 1


@pytest.mark.parametrize("status", [409, 500, 502, 503, 504])
def test_trying_ends(status: int) -> None:
    """After as many attempts as allowed the last failure is told."""
    handler, requests = answers(httpx.Response(status))
    with pytest.raises(Busy) as caught:
        get(client_of(handler))
    assert len(requests) == ATTEMPTS
    assert str(status) in sentence_of(caught.value)


def test_a_short_retry_after_is_followed() -> None:
    """A busy registry that names a time within reach is asked again."""
    handler, requests = answers(
        httpx.Response(503, headers={"Retry-After": "5"}), httpx.Response(200)
    )
    assert get(client_of(handler)).status == 200
    assert len(requests) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_retry_after_is_not_waited_for(status: int, time: Time) -> None:
    """Beyond ``retry_for`` the poll fails at once, and the next one may succeed."""
    handler, requests = answers(httpx.Response(status, headers={"Retry-After": "61"}))
    with pytest.raises(RegistryError) as caught:
        get(client_of(handler, limits=Limits(retry_for=60), time=time))
    assert caught.value.retry_after == 61.0
    assert len(requests) == 1
    assert time.slept == []


def test_a_throttled_request_waits_at_the_pacer(time: Time) -> None:
    """The request is sent again when the registry's rest is over."""
    throttled = httpx.Response(429, headers={"Retry-After": "7"})
    handler, _ = answers(throttled, httpx.Response(200))
    assert get(client_of(handler, time=time)).requests == 2
    assert time.slept == pytest.approx([7.0])


def test_a_rest_that_was_asked_for_outlives_the_request(time: Time) -> None:
    """While the registry rests, the next request is not even sent."""
    handler, requests = answers(httpx.Response(429, headers={"Retry-After": "100"}))
    with closing(client_of(handler, time=time)) as client:
        for _ in range(3):
            with pytest.raises(Throttled):
                client.get(PATH, {}, 10)
    assert len(requests) == 1


def test_one_throttled_request_pauses_all_threads() -> None:
    """What one thread is told, every other thread of the registry keeps to as well."""
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


def test_what_is_sent() -> None:
    """A request is a GET below the endpoint, with its query and its credentials."""
    handler, requests = answers(httpx.Response(200))
    with closing(client_of(handler, url="http://127.0.0.1/base/")) as client:
        answer = client.get("/a%2Fb/$", {"offset": 0, "limit": 5}, 10)
    request = requests[0]
    assert request.method == "GET"
    assert request.url.raw_path == b"/base/a%2Fb/$?offset=0&limit=5"
    assert request.headers["X-Auth-Token"] == TOKEN
    assert answer.url == "http://127.0.0.1/base/a%2Fb/$"


def test_redirects_are_not_followed() -> None:
    """A redirect is a refusal, and the host that it names never sees the credentials."""
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


# A server that fails.


def test_a_refused_connection() -> None:
    """A port that nobody listens on cannot be reached."""
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
def test_a_broken_answer(answer: bytes) -> None:
    """An answer that ends before its end is none."""
    error = failure(says(answer))
    assert type(error) is Unreachable
    assert "broke" in sentence_of(error)


def test_a_broken_chunk() -> None:
    """A chunked body without its last chunk is no body, whatever it looks like."""
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    assert type(failure(says(head + b"2\r\n[]\r\n"))) is Unreachable


def test_no_answer_in_time() -> None:
    """A server that takes the request and is silent is given up."""

    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    error = failure(silent, timeout=0.02)
    assert type(error) is Unreachable
    assert "within 0.02 s" in sentence_of(error)


def test_a_body_within_its_bound() -> None:
    """The bound itself is not too large, one byte more is."""
    handler, requests = answers(httpx.Response(200, content=b"x" * 100))
    assert len(get(client_of(handler), 100).body) == 100
    with pytest.raises(ResponseTooLarge):
        get(client_of(handler), 99)
    assert len(requests) == 2


def test_an_endless_body_is_not_read_on() -> None:
    """Reading stops at the bound, not at the end."""
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


def test_a_compressed_body() -> None:
    """Compression is the transport's affair: the body is what was meant."""
    with server(compressed(gzip.compress(b"[]"))) as host:
        assert get(client_of(None, url=f"http://{host}")).body == b"[]"


def test_a_small_body_that_inflates() -> None:
    """The bound is on what a body becomes, not on what is sent."""
    body = gzip.compress(b"0" * 10**7)
    assert len(body) < 20_000
    assert type(failure(compressed(body))) is ResponseTooLarge


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"[]" * 99)[:10] + b"\xff" * 20])
def test_a_body_that_cannot_be_inflated(body: bytes) -> None:
    """Broken compression is a malformed answer, and nothing to try again."""
    assert type(failure(compressed(body))) is MalformedResponse


def test_a_secret_in_a_transports_error_is_not_told() -> None:
    """What the transport says of a failure is searched for credentials too."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError(f"after {dict(request.headers)}")

    with pytest.raises(Unreachable, match=r"\*\*\*") as caught:
        get(client_of(handler))
    sentence_of(caught.value)


def test_refusals_are_the_callers() -> None:
    """What a status means is for the registry's own module to say."""
    handler, _ = answers(httpx.Response(401))
    with pytest.raises(Unauthorized) as caught:
        get(client_of(handler))
    assert caught.value.status == 401


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate", "gzip,identity"])
def test_a_body_in_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    """A bomb within a bomb, or of a denser kind, is not unpacked at all."""
    body = gzip.compress(gzip.compress(bytes(10**6)))

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Stream(body))

    with pytest.raises(MalformedResponse, match="not requested"):
        get(client_of(handler))


class Stream(httpx.SyncByteStream):
    """A body as it is on the wire."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self.body


class ThrottledSignIn(httpx.Auth):
    """A sign-in that is asked for too often."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        raise Throttled("the sign-in", retry_after=7.0)
        yield request


def test_a_throttled_sign_in_lets_the_registry_rest(time: Time) -> None:
    """When signing in is throttled, no request tries it again before the time."""
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


# What an OCI registry needs beyond.


def test_a_head_is_asked_as_a_get_is() -> None:
    """A HEAD is paced, tried again and refused like any request, with the types it accepts."""
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


def test_a_whole_url_of_the_same_host() -> None:
    """A URL that the registry named is asked as it stands, its query untouched."""
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
def test_a_whole_url_of_another_host(url: str) -> None:
    """A URL of another host, port or scheme is not asked, so that no credentials go there."""
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
def test_a_limit_that_is_spent_is_obeyed(
    headers: dict[str, str], slept: list[float], time: Time
) -> None:
    """Who allows no more requests until a named time is not asked before it."""
    handler, _ = answers(httpx.Response(200, headers=headers))
    with closing(client_of(handler, time=time)) as client:
        for _ in range(2):
            client.get(PATH, {}, 100)
    assert [seconds for seconds in time.slept if seconds > 0.01] == slept


def test_no_cookie_is_kept() -> None:
    """What a server sets, with an answer or a failure, is not sent with the next request."""
    cookie = {"Set-Cookie": "session=1; Path=/"}
    handler, requests = answers(
        httpx.Response(503, headers=cookie), httpx.Response(200, headers=cookie, content=b"[]")
    )
    client = client_of(handler)
    client.get(PATH, {}, 10)
    get(client)
    assert [request.headers.get("Cookie") for request in requests] == [None] * 3


def test_no_cookie_of_a_redirect_is_kept() -> None:
    """What comes with a redirect, which is not followed, is not sent with the next request."""
    elsewhere = {"Set-Cookie": "session=1; Path=/", "Location": PATH}
    handler, requests = answers(
        httpx.Response(302, headers=elsewhere), httpx.Response(200, content=b"[]")
    )
    client = client_of(handler)
    with pytest.raises(RegistryError):
        client.get(PATH, {}, 10)
    client.get(PATH, {}, 10)
    assert [request.headers.get("Cookie") for request in requests] == [None] * 2
