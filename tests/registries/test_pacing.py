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

# The pacer.


def test_requests_are_spaced(pacer: Pacer, time: Time) -> None:
    """A request a second is one a second, but for what may be spent at once."""
    for _ in range(4):
        pacer.wait(60)
    assert time.slept == pytest.approx([0.9, 1.0, 1.0])


def test_time_that_passed_is_not_saved_up(pacer: Pacer, time: Time) -> None:
    """After an hour without requests there is no burst of thousands."""
    time.now += 3600
    for _ in range(3):
        pacer.wait(60)
    assert sum(time.slept) == pytest.approx(1.9)


def test_a_throttled_registry_rests(pacer: Pacer, time: Time) -> None:
    """Nobody asks before the time that the registry named."""
    pacer.throttled(7.0)
    pacer.wait(60)
    assert time.slept == [7.0]


def test_a_shorter_rest_does_not_end_a_longer_one(pacer: Pacer, time: Time) -> None:
    """Of two throttling answers the later end holds."""
    pacer.throttled(20.0)
    pacer.throttled(2.0)
    pacer.wait(60)
    assert time.slept == [20.0]


def test_without_a_named_time_each_rest_is_longer(pacer: Pacer, time: Time) -> None:
    """The rest doubles from one second up to a minute."""
    for _ in range(8):
        pacer.throttled(None)
        pacer.wait(120)
    assert time.slept == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


def test_an_answer_makes_rests_short_again(pacer: Pacer, time: Time) -> None:
    """Once the registry answers, the next rest is as short as the first."""
    for _ in range(4):
        pacer.throttled(None)
    time.now += 3600
    pacer.answered()
    pacer.throttled(None)
    pacer.wait(60)
    assert time.slept == [1.0]


def test_patience_ends(pacer: Pacer, time: Time) -> None:
    """Who cannot wait that long is told so at once, and how long it would have been."""
    pacer.throttled(61.0)
    with pytest.raises(Throttled, match="retry_for") as caught:
        pacer.wait(60)
    assert caught.value.retry_after == 61.0
    assert time.slept == []


def test_patience_counts_from_the_first_wait(time: Time) -> None:
    """A rest that is prolonged while one waits does not start the patience anew."""

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
    """The number is seconds."""
    assert answer_with(text).retry_after == seconds


def test_retry_after_as_a_date() -> None:
    """An HTTP-date is the time until then, and none if it is past."""
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
def test_nonsense_in_retry_after_says_nothing(text: str) -> None:
    """What is neither is as if it were not there."""
    headers = httpx.Headers([(b"Retry-After", text.encode())])
    assert Answer("", 429, headers, b"").retry_after is None


def test_a_thousand_rests_in_a_row(pacer: Pacer, time: Time) -> None:
    """However often a registry throttles, the rest has a bound."""
    for _ in range(1100):
        pacer.throttled(None)
        time.now += 3600
    pacer.throttled(None)
    with pytest.raises(Throttled) as caught:
        pacer.wait(0.0)
    assert caught.value.retry_after == pytest.approx(60.0)


def test_throttled_together_is_one_rest(pacer: Pacer) -> None:
    """Requests that were under way at once lengthen the rest once."""
    for _ in range(8):
        pacer.throttled(None)
    with pytest.raises(Throttled) as caught:
        pacer.wait(0.0)
    assert (caught.value.retry_after or 0) <= 2.0


def test_no_rest_is_longer_than_a_day() -> None:
    """A Retry-After of years, or beyond numbers, does not silence a registry for good."""
    assert answer_with("9" * 400).retry_after == 86400.0
    assert answer_with("Wed, 21 Oct 2400 07:28:00 GMT").retry_after == 86400.0


def test_the_rest_after_429_may_be_named_otherwise() -> None:
    """Without Retry-After the time at which the limit is reset is when to ask again."""
    assert retry_after(httpx.Headers({"RateLimit-Reset": "30"})) == 30.0
    both = httpx.Headers({"RateLimit-Reset": "30", "Retry-After": "5"})
    assert retry_after(both) == 5.0
    at = datetime(2026, 5, 3, tzinfo=UTC)
    soon = str(int((at + timedelta(seconds=7)).timestamp()))
    assert retry_after(httpx.Headers({"RateLimit-Reset": soon}), lambda: at) == 7.0


@pytest.mark.parametrize(("text", "left"), [("100;w=21600", 100), (" 7 ", 7), ("", None)])
def test_requests_left(text: str, left: int | None) -> None:
    """How much is left is read with Docker Hub's window and without."""
    assert requests_left(httpx.Headers({"RateLimit-Remaining": text})) == left
