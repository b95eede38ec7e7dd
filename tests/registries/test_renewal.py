"""Renewal of credentials, with an injected transport and an injected clock."""

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
from tagsync.registries.renewal import MAX_ANSWER_BYTES, REPEAT_REFUSAL_FOR, RenewedAuth
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


@RENEWED
def test_threads_share_one_sign_in(kind: Kind) -> None:
    """Eight threads that start at once share one sign-in."""
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
def test_expiring_credential_is_renewed(kind: Kind) -> None:
    """A credential is renewed some minutes before it expires."""
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
def test_wrong_clock_does_not_renew_each_time(kind: Kind) -> None:
    """With a clock that is a day ahead, not every request signs in."""
    clock = SetClock()
    cloud, auth = Cloud(clock, lifetime=-timedelta(days=1)), kind(clock)
    send(auth, cloud)
    send(auth, cloud)
    clock.advance(minutes=1)
    send(auth, cloud)

    assert cloud.used() == [1, 1, 2]


@RENEWED
def test_refused_credential_is_renewed_once(kind: Kind) -> None:
    """After a 401 the credential is renewed, and the request sent once more."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    send(auth, cloud)
    cloud.valid = {2}

    assert send(auth, cloud) == 200
    assert cloud.used() == [1, 1, 2]


@RENEWED
def test_second_401_is_returned(kind: Kind) -> None:
    """If the new credential is refused, too, the 401 is returned to the caller."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.valid = set()

    assert send(auth, cloud) == 401
    assert cloud.used() == [1, 2]


@RENEWED
def test_closed_repository_does_not_renew_each_time(kind: Kind) -> None:
    """If only one path is refused, its requests fetch a new credential once in a while."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    closed = "/v2/manage/namespaces/closed"
    cloud.override[closed] = lambda _: httpx.Response(401)

    def poll() -> list[int]:
        return [
            send(auth, cloud),
            send(auth, cloud, httpx.Request("GET", f"{API}/closed")),
            send(auth, cloud),
        ]

    assert [poll() for _ in range(5)] == [[200, 401, 200]] * 5
    assert cloud.sign_ins == 2
    clock.advance(minutes=2)
    assert poll() == [200, 401, 200]
    assert cloud.sign_ins == 3


@RENEWED
def test_credential_of_another_thread_is_used(kind: Kind) -> None:
    """After a 401, a credential that another thread has renewed is used."""
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
def test_broken_connection_releases_the_lock(kind: Kind) -> None:
    """A sign-in that finds no connection does not block the next one."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(httpx.ConnectError):
        send(auth, broken)

    assert send(auth, cloud) == 200


@RENEWED
@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (503, Busy), (0, Unreachable)])
def test_waiting_threads_share_a_failure(
    kind: Kind, status: int, error: type[RegistryError]
) -> None:
    """A thread that waits for a sign-in fails with it, without one of its own."""
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
def test_refusal_is_repeated(kind: Kind) -> None:
    """A refused login is not sent again at once, so that the account is not locked."""
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
def test_transient_errors_are_told_apart(kind: Kind) -> None:
    """Throttled and busy services are different errors, with their Retry-After."""
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
def test_malformed_answer_is_not_quoted(kind: Kind, body: bytes) -> None:
    """The error for a malformed answer does not quote it."""
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
    """A redirect of the sign-in is an error, and its target gets no request."""
    clock = SetClock()
    cloud, auth = Cloud(clock), kind(clock)
    cloud.override[GIVES[kind]] = lambda _: httpx.Response(
        307, headers={"Location": "https://evil.example.com/"}
    )
    with pytest.raises(MalformedResponse, match="redirect"):
        send(auth, cloud)

    assert "evil.example.com" not in {request.url.host for request in cloud.requests}


@RENEWED
def test_answer_size_is_bounded(kind: Kind) -> None:
    """An endless answer is closed soon after the limit."""
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
def test_compressed_answer_is_not_decompressed(kind: Kind) -> None:
    """A compressed answer, which was not requested, is not decompressed."""
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
def test_slow_answer_is_aborted(kind: Kind) -> None:
    """An answer that takes longer than the limit is aborted."""
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
def test_401_releases_its_connection(kind: Kind) -> None:
    """A 401 response is closed unread before the sign-in."""
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
    """Every form in which the vendor writes a time is read as the same time."""
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
def test_extreme_expiry(expiry: str) -> None:
    """The earliest and the latest possible times are accepted."""
    clock = SetClock()
    cloud, auth = Cloud(clock), by_password(clock)
    cloud.expiry = lambda: expiry  # type: ignore[method-assign]  # a test's own object

    assert send(auth, cloud) == 200
