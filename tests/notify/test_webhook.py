"""Webhooks: CloudEvents, signed, to one URL only, whose secret parts nobody sees."""

import base64
import hashlib
import hmac
import socket
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from threading import Event
from time import monotonic

import pytest

from tagsync.errors import ConfigError, NotDelivered
from tagsync.notify.messages import CLOUD_EVENT, CLOUD_EVENT_BATCH, message_of
from tagsync.notify.senders import check_rule, send_test
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.notify.webhook import WebhookSender
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.events import event
from tests.support.http_server import says, server
from tests.support.receiver import Answer, Receiver, receiving

KEY = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def rule_for(url: str, key: str | None = KEY) -> Rule:
    return Rule("ops", WebhookTarget(Secret(url), Secret(key) if key else None))


def send(url: str, count: int = 1, seconds: float = 5, key: str | None = KEY) -> str:
    rule = rule_for(url, key)
    assert isinstance(rule.target, WebhookTarget)
    sender = WebhookSender(rule, rule.target, clock=FakeClock())
    try:
        events = [event(number=number) for number in range(1, count + 1)]
        return sender.send(message_of(rule, "db", 41, events), seconds)
    finally:
        sender.close()


def refusal(url: str, seconds: float = 5) -> NotDelivered:
    with pytest.raises(NotDelivered) as raised:
        send(url, seconds=seconds)
    return raised.value


def test_one_event_is_a_structured_cloud_event(receiver: Receiver) -> None:
    """One event is sent as CloudEvents 1.0 in structured mode."""
    assert send(receiver.url) == "status 200"
    (request,) = receiver.received
    assert request.headers["content-type"] == CLOUD_EVENT
    (sent,) = request.events
    assert (sent["specversion"], sent["id"], sent["source"]) == ("1.0", "1", "tagsync/db")
    assert sent["type"] == "tagsync.tag.moved"
    assert sent["subject"] == "swr/team/app:prod"
    assert sent["sequence"] == "00000000000000000041"


def test_several_events_are_a_batch(receiver: Receiver) -> None:
    """Several events are sent in batched mode, with consecutive numbers that sort as text."""
    send(receiver.url, count=3)
    (request,) = receiver.received
    assert request.headers["content-type"] == CLOUD_EVENT_BATCH
    assert request.ids == ["1", "2", "3"]
    assert [int(each["sequence"]) for each in request.events] == [41, 42, 43]


def test_messages_are_signed(receiver: Receiver) -> None:
    """The signature is that of Standard Webhooks, over id, time and body."""
    send(receiver.url)
    (request,) = receiver.received
    number, moment = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    content = f"{number}.{moment}.".encode() + request.body
    expected = base64.b64encode(hmac.digest(b"k" * 32, content, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert moment == str(int(FakeClock().now.timestamp()))
    assert "." not in number


def test_a_retry_has_the_same_id(receiver: Receiver) -> None:
    """The same events make the same message id, and other events another one."""
    send(receiver.url, count=2)
    send(receiver.url, count=2)
    send(receiver.url, count=3)
    first, second, third = (request.headers["webhook-id"] for request in receiver.received)
    assert first == second != third


def test_without_a_key_there_is_no_signature(receiver: Receiver) -> None:
    """A destination without signing_key gets the id and the time, but no signature."""
    send(receiver.url, key=None)
    (request,) = receiver.received
    assert "webhook-signature" not in request.headers
    assert "webhook-id" in request.headers


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_other_statuses_are_failures(status: int) -> None:
    """Only a status of 2xx is an acceptance."""
    with receiving(Answer(status, body="no")) as receiver:
        assert f"status {status}: no" in str(refusal(receiver.url))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, receiver: Receiver) -> None:
    """A redirect is a failure that says so, and no request goes to its target."""
    with receiving(Answer(status, {"Location": receiver.url})) as redirecting:
        assert "does not follow" in str(refusal(redirecting.url))
    assert not receiver.received


def test_a_receiver_that_is_gone_is_named() -> None:
    """410 Gone is a failure with the advice to remove the destination."""
    with receiving(Answer(410)) as receiver:
        assert "remove the destination" in str(refusal(receiver.url))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_understood(status: int) -> None:
    """Retry-After counts with 429 and 503, in seconds and as a date."""
    with receiving(Answer(status, {"Retry-After": "120"})) as receiver:
        assert refusal(receiver.url).retry_after == 120
    date = format_datetime(FakeClock().now + timedelta(seconds=90), usegmt=True)
    with receiving(Answer(status, {"Retry-After": date})) as receiver:
        assert refusal(receiver.url).retry_after == 90


def test_a_server_stores_no_cookie() -> None:
    """A cookie of an answer is not sent with the next request."""
    with receiving(Answer(200, {"Set-Cookie": "a=b"})) as receiver:
        rule = rule_for(receiver.url)
        assert isinstance(rule.target, WebhookTarget)
        sender = WebhookSender(rule, rule.target)
        for _ in range(2):
            sender.send(message_of(rule, "db", 1, [event()]), 5)
        sender.close()
        assert "cookie" not in receiver.received[1].headers


@pytest.mark.parametrize("part", ["T0KEN-PART", "QUERY-PART", "T0KEN-PART?key=QUERY-PART"])
def test_an_answer_shows_no_part_of_the_url(part: str) -> None:
    """What a receiver repeats of the URL is not shown, nor is it in the error of a lost server."""
    body = f"no hook \x1b[31m /hooks/{part} {{path}}"
    for status in (200, 500):
        with receiving(Answer(status, body=body)) as receiver:
            shown = send(receiver.url) if status == 200 else str(refusal(receiver.url))
            assert "T0KEN-PART" not in shown
            assert "QUERY-PART" not in shown
            assert shown.isprintable()
    assert "PART" not in str(refusal(receiver.url))


def test_an_answer_that_is_cut_off_is_an_acceptance() -> None:
    """The status is the acceptance: a body that breaks off does not make the event be repeated."""
    with server(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok")) as address:
        assert send(f"http://{address}/") == "status 200: ok"


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200", b"\0" * 100])
def test_garbage_is_no_acceptance(answer: bytes) -> None:
    """An answer without a status of 2xx is a failure."""
    with server(says(answer)) as address:
        refusal(f"http://{address}/")


def test_a_large_answer_is_not_read_to_its_end() -> None:
    """Of a long answer only the beginning is read."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    began = monotonic()
    with server(talk) as address:
        assert len(send(f"http://{address}/", seconds=8)) < 400
    assert monotonic() - began < 4


def test_a_silent_receiver_is_given_up() -> None:
    """A receiver that does not answer in time is a failure."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with server(talk) as address:
        assert "did not answer within 0.2 s" in str(refusal(f"http://{address}/", seconds=0.2))


def test_a_receiver_that_drips_is_given_up() -> None:
    """A receiver that sends a byte now and then has no more time than a silent one."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            Event().wait(0.02)

    began = monotonic()
    with server(talk) as address:
        assert "did not answer" in str(refusal(f"http://{address}/", seconds=0.2))
    assert monotonic() - began < 2


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("ftp://example.com/SECRET", "https://HOST/PATH"),
        ("SECRET", "https://HOST/PATH"),
        ("http://[SECRET", "https://HOST/PATH"),
        ("https://user:SECRET@example.com/", "password"),
        ("http://example.com/SECRET", "in the clear"),
    ],
)
def test_wrong_urls_are_refused(url: str, part: str) -> None:
    """A URL that tagsync does not use is refused without quoting it."""
    with pytest.raises(ConfigError, match=part) as raised:
        check_rule(rule_for(url))
    assert str(raised.value).startswith("notify 'ops': ")
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("key", ["SECRET", "whsec_", "whsec_c2hvcnQ=", f"whsec_{'A' * 90}"])
def test_wrong_keys_are_refused(key: str) -> None:
    """A signing key that is not 24 to 64 bytes in base64 is refused without quoting it."""
    with pytest.raises(ConfigError, match="signing_key") as raised:
        check_rule(rule_for("https://example.com/", key))
    assert "SECRET" not in str(raised.value)


def test_a_test_message_is_recognizable(receiver: Receiver) -> None:
    """The message of `notify test` says that it is a test, in its type and in its text."""
    receipt = send_test(rule_for(receiver.url), "db", FakeClock().now)
    assert receipt == (True, "status 200")
    (sent,) = receiver.received[0].events
    assert sent["type"] == "tagsync.test"
    assert sent["data"]["subject"].startswith("Test: ")
    assert "nothing has moved" in sent["data"]["text"]


def test_a_refused_test_says_why() -> None:
    """`notify test` shows the answer of a receiver that refuses."""
    with receiving(Answer(404, body="no such hook")) as receiver:
        receipt = send_test(rule_for(receiver.url), "db", FakeClock().now)
    assert not receipt.accepted
    assert receipt.answer.endswith("answered with status 404: no such hook")
