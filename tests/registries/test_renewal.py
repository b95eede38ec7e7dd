"""The credentials of SWR, through an injected transport and an injected clock."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from tagsync.errors import (
    Busy,
    MalformedResponse,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
    Unreachable,
)
from tagsync.registries.renewal import (
    MAX_ANSWER_BYTES,
    REPEAT_REFUSAL_FOR,
    RenewedAuth,
)
from tests.support.cloud import (
    API,
    PASSWORD,
    AnnouncingClock,
    Body,
    Cloud,
    SetClock,
    by_agency,
    by_password,
    send,
    shows,
)

Kind = Callable[[SetClock], RenewedAuth]

RENEWED = pytest.mark.parametrize("kind", [by_password, by_agency])

GIVES: dict[Kind, str] = {
    by_password: "/v3/auth/tokens",
    by_agency: "/openstack/latest/securitykey",
}


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
