"""The rate of requests, and the pauses that a registry asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from tagsync.errors import (
    Throttled,
)
from tagsync.registries.pacing import Pacer, requests_left, retry_after
from tagsync.registries.responses import Answer
from tests.support.http_client import Time


def test_requests_are_spaced(pacer: Pacer, time: Time) -> None:
    """At one request a second, requests are a second apart, except for the burst."""
    for _ in range(4):
        pacer.wait(60)
    assert time.slept == pytest.approx([0.9, 1.0, 1.0])


def test_idle_time_does_not_accumulate(pacer: Pacer, time: Time) -> None:
    """An idle hour does not allow a burst of thousands of requests."""
    time.now += 3600
    for _ in range(3):
        pacer.wait(60)
    assert sum(time.slept) == pytest.approx(1.9)


def test_pause_is_waited_for(pacer: Pacer, time: Time) -> None:
    """No request is sent before the time that the registry named."""
    pacer.throttled(7.0)
    pacer.wait(60)
    assert time.slept == [7.0]


def test_pause_of_some_requests_stops_only_them(pacer: Pacer, time: Time) -> None:
    """Requests apart have pauses of their own, and wait for the others' pauses and rate, too."""
    apart = pacer.apart()
    apart.throttled(600.0)
    pacer.wait(60)
    assert time.slept == []
    with pytest.raises(Throttled):
        apart.wait(60)
    time.now += 600
    pacer.throttled(7.0)
    apart.wait(60)
    assert time.slept == [7.0]
    pacer.throttled(50.0)
    with pytest.raises(Throttled):
        apart.wait(40)


def test_requests_apart_count_for_the_rate(pacer: Pacer, time: Time) -> None:
    """Both kinds of requests together keep to the rate."""
    for each in (pacer, pacer.apart(), pacer, pacer.apart()):
        each.wait(60)
    assert time.slept == pytest.approx([0.9, 1.0, 1.0])


def test_longer_pause_wins(pacer: Pacer, time: Time) -> None:
    """Of two pauses, the one that ends later counts."""
    pacer.throttled(20.0)
    pacer.throttled(2.0)
    pacer.wait(60)
    assert time.slept == [20.0]


def test_pause_doubles(pacer: Pacer, time: Time) -> None:
    """Without a named time, the pause doubles from a second up to a minute."""
    for _ in range(8):
        pacer.throttled(None)
        pacer.wait(120)
    assert time.slept == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_answer_resets_the_pause(pacer: Pacer, time: Time) -> None:
    """After an answer, the next pause is as short as the first."""
    for _ in range(4):
        pacer.throttled(None)
    time.now += 3600
    pacer.answered()
    pacer.throttled(None)
    pacer.wait(60)
    assert time.slept == [1.0]


def test_too_long_pause_is_an_error(pacer: Pacer, time: Time) -> None:
    """A pause that exceeds the patience is an error at once, which has its length."""
    pacer.throttled(61.0)
    with pytest.raises(Throttled, match="retry_for") as caught:
        pacer.wait(60)
    assert caught.value.retry_after == 61.0
    assert time.slept == []


def test_patience_includes_all_pauses(time: Time) -> None:
    """A pause that is prolonged while a thread waits does not renew the patience."""

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        prolonged.throttled(40.0)

    prolonged = Pacer(1.0, monotonic=time.monotonic, sleep=sleep)
    prolonged.throttled(40.0)
    with pytest.raises(Throttled):
        prolonged.wait(60)
    assert time.slept == [40.0]


# Retry-After.


def answer_with(retry_after: str) -> Answer:
    return Answer("", 429, httpx.Headers({"Retry-After": retry_after}), b"")


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("120", 120.0), (" 3 ", 3.0)])
def test_retry_after_in_seconds(text: str, seconds: float) -> None:
    """A number is seconds."""
    assert answer_with(text).retry_after == seconds


@pytest.mark.parametrize(("offset", "seconds"), [(6, 6.0), (-60, 0.0), (10**7, 86400.0)])
def test_retry_after_as_a_unix_time(offset: int, seconds: float) -> None:
    """A number that would be decades is a Unix time, of seconds or milliseconds.

    A past one means no pause.
    """
    at = datetime(2026, 5, 3, tzinfo=UTC)
    for unit in (1, 1000):
        text = str((int(at.timestamp()) + offset) * unit)
        assert retry_after(httpx.Headers({"Retry-After": text}), lambda: at) == seconds


def test_retry_after_as_a_date() -> None:
    """A date is the time until then, and zero if it is past."""
    later = datetime.now(UTC) + timedelta(seconds=100)
    assert answer_with(format_datetime(later, usegmt=True)).retry_after == pytest.approx(99, abs=2)
    assert answer_with("Wed, 21 Oct 2015 07:28:00 GMT").retry_after == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "1e3",
        "²",
        "Wed, 99 Foo 2015",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999",
    ],
)
def test_invalid_retry_after_is_ignored(text: str) -> None:
    """Any other value is ignored."""
    headers = httpx.Headers([(b"Retry-After", text.encode())])
    assert Answer("", 429, headers, b"").retry_after is None


def test_pause_is_bounded(pacer: Pacer, time: Time) -> None:
    """However often a registry throttles, the pause has an upper limit."""
    for _ in range(1100):
        pacer.throttled(None)
        time.now += 3600
    pacer.throttled(None)
    with pytest.raises(Throttled) as caught:
        pacer.wait(0.0)
    assert caught.value.retry_after == pytest.approx(60.0)


def test_concurrent_throttling_is_one_pause(pacer: Pacer) -> None:
    """Requests that are throttled at once lengthen the pause once."""
    for _ in range(8):
        pacer.throttled(None)
    with pytest.raises(Throttled) as caught:
        pacer.wait(0.0)
    assert (caught.value.retry_after or 0) <= 2.0


def test_retry_after_is_at_most_a_day() -> None:
    """A Retry-After of years does not stop the polls of a registry for ever."""
    assert answer_with("9" * 400).retry_after == 86400.0
    assert answer_with("Wed, 21 Oct 2400 07:28:00 GMT").retry_after == 86400.0


def test_reset_replaces_a_missing_retry_after() -> None:
    """Without Retry-After, the time of RateLimit-Reset is used."""
    assert retry_after(httpx.Headers({"RateLimit-Reset": "30"})) == 30.0
    both = httpx.Headers({"RateLimit-Reset": "30", "Retry-After": "5"})
    assert retry_after(both) == 5.0
    at = datetime(2026, 5, 3, tzinfo=UTC)
    soon = str(int((at + timedelta(seconds=7)).timestamp()))
    assert retry_after(httpx.Headers({"RateLimit-Reset": soon}), lambda: at) == 7.0


def test_headers_of_docker_hubs_api() -> None:
    """Docker Hub's API writes an X before these headers, and times as Unix times."""
    at = datetime(2026, 5, 3, tzinfo=UTC)
    soon = str(int((at + timedelta(seconds=9)).timestamp()))
    for name in ("X-Retry-After", "Retry-After", "X-RateLimit-Reset"):
        assert retry_after(httpx.Headers({name: soon}), lambda: at) == 9.0
    assert requests_left(httpx.Headers({"X-RateLimit-Remaining": "7"})) == 7
    both = httpx.Headers({"X-Retry-After": soon, "Retry-After": "5"})
    assert retry_after(both, lambda: at) == 5.0


@pytest.mark.parametrize(("text", "left"), [("100;w=21600", 100), (" 7 ", 7), ("", None)])
def test_requests_left(text: str, left: int | None) -> None:
    """The remaining requests are read with Docker Hub's window and without."""
    assert requests_left(httpx.Headers({"RateLimit-Remaining": text})) == left
