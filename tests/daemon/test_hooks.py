"""The endpoint for push hints, over real HTTP on loopback."""

import base64
import hmac
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

import pytest

from tagsync.daemon.endpoint import Endpoint
from tagsync.daemon.hooks import BURST, MAX_BODY, RATE, Hooks
from tagsync.daemon.metrics import HintResult, Metrics
from tagsync.secrets import Secret
from tests.support.push_samples import SAMPLES, VALIDATION, distribution

pytestmark = pytest.mark.processes

WITHIN: Final = 10.0
SECRET: Final = "made-up/hook secret"
PATH: Final = "/hooks/reg/made-up%2Fhook%20secret"
PUSH: Final = distribution("push", repository="team/api", tag="v1")

Log = list[dict[str, Any]]


class Answer(NamedTuple):
    """An answer of the endpoint."""

    status: int
    headers: http.client.HTTPMessage
    text: str


class Receiver:
    """An endpoint for hints, what it passed on, and a clock that the test sets."""

    def __init__(self, timeout: float = WITHIN) -> None:
        self.hints: list[tuple[str, tuple[str, ...]]] = []
        self.now = 0.0
        self.metrics = Metrics("test")
        self.hooks = Hooks(self._hint, self.metrics, monotonic=lambda: self.now)
        self.hooks.configure(Secret(SECRET), ["reg", "other"])
        application = self.hooks.application()
        self.endpoint = Endpoint(("127.0.0.1", 0), application, "hooks.listen", timeout=timeout)

    def _hint(self, registry: str, names: Sequence[str]) -> Mapping[HintResult, int]:
        self.hints.append((registry, tuple(names)))
        return {"accepted": len(names)}

    def post(
        self,
        path: str = PATH,
        body: object = PUSH,
        *,
        method: str = "POST",
        content_type: str | None = "application/json",
        **headers: str,
    ) -> Answer:
        """Send a request; its body is JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            fields["Content-Type"] = content_type
        address = ("127.0.0.1", self.endpoint.port)
        with closing(http.client.HTTPConnection(*address, timeout=WITHIN)) as connection:
            connection.request(method, path, data, fields)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())

    def send(self, request: bytes) -> socket.socket:
        """Send raw bytes, and return the connection."""
        connection = socket.create_connection(("127.0.0.1", self.endpoint.port), timeout=WITHIN)
        connection.sendall(request)
        return connection

    def counted(self) -> dict[tuple[str, str], int]:
        """Return the counts that are not zero, by registry and result."""
        body = b"".join(
            self.metrics.exposition()(
                {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}, lambda *_: None
            )
        )
        lines = [each for each in body.decode().splitlines() if each.startswith("tagsync_hints_")]
        found = {}
        for line in lines:
            labels, _, count = line.rpartition(" ")
            registry, result = (part.split('"')[1] for part in labels.split(","))
            if float(count):
                found[registry, result] = int(float(count))
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.endpoint.close()


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.sender)
def test_each_sample_is_accepted(receiver: Receiver, sample: Any) -> None:
    """Each sender's sample names its repositories, and is accepted also if it names none."""
    headers = {} if sample.event_type is None else {"Ce_Type": sample.event_type}
    answer = receiver.post(body=sample.body, **headers)
    assert answer.status == 202
    assert receiver.hints == ([("reg", sample.repositories)] if sample.repositories else [])
    expected = "accepted" if sample.repositories else "ignored"
    assert receiver.counted() == {("reg", expected): 1}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.events.v1+json",
        "application/cloudevents+json; charset=UTF-8",
        "Application/JSON",
    ],
)
def test_media_types_of_json_are_read(receiver: Receiver, media_type: str) -> None:
    """Senders have media types of their own for JSON."""
    assert receiver.post(content_type=media_type).status == 202


def signature(body: object, secret: str = SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), json.dumps(body).encode(), 'sha256').hexdigest()}"


def basic(secret: str) -> str:
    return f"Basic {base64.b64encode(f'tagsync:{secret}'.encode()).decode()}"


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Hub_Signature_256": signature(PUSH)},
        {"Authorization": SECRET},
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"bearer  {SECRET}"},
        {"Authorization": basic(SECRET)},
    ],
)
def test_the_secret_may_be_in_a_header(receiver: Receiver, headers: dict[str, str]) -> None:
    """A sender may prove that it knows the secret without a path that contains it."""
    for path in ("/hooks/reg", "/hooks/reg/"):
        assert receiver.post(path, **headers).status == 202
    assert receiver.hints == [("reg", ("team/api",))] * 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/hooks/reg", {}),
        ("/hooks/reg/", {}),
        ("/hooks/reg/wrong", {}),
        (PATH + "x", {}),
        (PATH[:-1], {}),
        (PATH.replace("reg", "unknown"), {}),
        (PATH.replace("reg", "REG"), {}),
        (PATH.removeprefix("/hooks"), {}),
        ("/hooks/", {"Authorization": SECRET}),
        ("/", {"Authorization": SECRET}),
        ("/metrics", {"Authorization": SECRET}),
        ("/hooks/reg", {"Authorization": basic("wrong")}),
        ("/hooks/reg", {"Authorization": "Basic !"}),
        ("/hooks/reg", {"Authorization": "Bearer "}),
        ("/hooks/reg", {"Authorization": "\xff\xfe"}),
        ("/hooks/reg", {"X_Hub_Signature_256": signature(PUSH, "another")}),
        ("/hooks/reg", {"X_Hub_Signature_256": signature({"events": []})}),
        ("/hooks/reg", {"X_Hub_Signature_256": signature(PUSH).removeprefix("sha256=")}),
        ("/hooks/%2e%2e/reg", {}),
        ("/hooks/%1b[2J", {}),
    ],
)
def test_whatever_lacks_the_secret_is_not_found(
    receiver: Receiver, path: str, headers: dict[str, str]
) -> None:
    """An unknown registry and a wrong secret have the same answer, and no registry's count."""
    answer = receiver.post(path, **headers)
    assert (answer.status, answer.text) == (404, "POST /hooks/REGISTRY/SECRET\n")
    assert receiver.hints == []
    assert receiver.counted() == {("", "unauthorized"): 1}


def test_a_path_without_its_beginning_is_not_found(receiver: Receiver) -> None:
    """A request whose path is only the name of a registry is not one for this endpoint."""
    head = f"POST reg HTTP/1.1\r\nAuthorization: {SECRET}\r\nContent-Length: 2\r\n\r\n{{}}"
    with closing(receiver.send(head.encode())) as connection:
        assert connection.recv(100).split()[1] == b"404"


def test_nothing_is_accepted_before_there_is_a_secret() -> None:
    """An endpoint without a secret refuses also an empty one."""
    hooks = Hooks(lambda *_: {}, Metrics("test"))
    environ = {
        "PATH_INFO": "/hooks/",
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "0",
        "wsgi.input": io.BytesIO(),
    }
    statuses: list[str] = []
    hooks.application()(environ, lambda status, _: statuses.append(status))
    assert statuses == ["404 Not Found"]


def test_a_reload_replaces_secret_and_registries(receiver: Receiver) -> None:
    """After a reload only the new secret and the new names are known."""
    receiver.hooks.configure(Secret("another made-up secret"), ["new"])
    assert receiver.post().status == 404
    assert receiver.post("/hooks/new", Authorization="another made-up secret").status == 202


def test_event_grid_is_answered(receiver: Receiver) -> None:
    """Azure's Event Grid gets its code back, as JSON, before it sends events."""
    answer = receiver.post(body=VALIDATION)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.text) == {
        "validationResponse": VALIDATION[0]["data"]["validationCode"]
    }
    assert receiver.hints == []


# --- what is refused ------------------------------------------------------------------------------


def test_an_unknown_body_is_counted_and_logged_once_in_a_while(
    receiver: Receiver, logged: Log
) -> None:
    """It polls nothing. The log has its keys, escaped and bounded, at most once a minute."""
    body = {"zen\x1b[2J": "secret value", SECRET: 1, **{f"key{n}": n for n in range(1000)}}
    for _ in range(3):
        answer = receiver.post(body=body)
        assert (answer.status, answer.text) == (202, "unknown: 1\n")
    receiver.now += 60
    receiver.post(body=[1])
    assert receiver.hints == []
    assert receiver.counted() == {("reg", "unknown"): 4}
    first, second = [line for line in logged if line["event"] == "hook.unknown"]
    assert first["keys"].startswith("zen\ufffd[2J, ***, key0, ")
    assert len(first["keys"]) < 200
    assert (first["suppressed"], second["suppressed"], second["keys"]) == (0, 2, "")


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"events": "\\ud800"}', "application/json", 400),
        (b"payload=%7B%7D", "application/x-www-form-urlencoded", 415),
        (b"{}", None, 415),
        (b"{}", "text/json", 415),
        (b" " * (MAX_BODY + 1), "application/json", 413),
        (b" " * (3 * MAX_BODY), "application/json", 413),
    ],
)
def test_a_malformed_body_is_refused(
    receiver: Receiver, body: bytes, content_type: str | None, status: int
) -> None:
    """A body that is too large or not JSON has an answer that says so, and polls nothing."""
    answer = receiver.post(body=body, content_type=content_type)
    assert answer.status == status
    assert receiver.hints == []
    assert sum(receiver.counted().values()) == 1


def test_the_largest_body_is_read(receiver: Receiver) -> None:
    """A body of exactly the limit is accepted."""
    body = json.dumps(PUSH).encode()
    assert receiver.post(body=body + b" " * (MAX_BODY - len(body))).status == 202


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET %s HTTP/1.1\r\n\r\n", 405),
        (b"PUT %s HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"POST %s HTTP/1.1\r\n\r\n", 411),
        (b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST %s HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST %s HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 411),
        (b"POST %s HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 411),
        (b"POST %s HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}", 400),
        (b"POST %s HTTP/1.1\r\nContent-Length: 9" + b"9" * 50 + b"\r\n\r\n{}", 413),
    ],
)
def test_a_malformed_request_is_refused(receiver: Receiver, head: bytes, status: int) -> None:
    """A wrong method, and a length that is missing or wrong, have an answer."""
    with closing(receiver.send(head % PATH.encode())) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
    assert answer.split()[1] == str(status).encode()
    assert receiver.hints == []


def test_requests_are_limited(receiver: Receiver) -> None:
    """After a burst requests are refused, until time has passed; unknown senders do not count."""
    for _ in range(5):
        assert receiver.post("/hooks/reg/wrong").status == 404
    assert {receiver.post().status for _ in range(BURST)} == {202}
    answer = receiver.post()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    receiver.now += 1
    assert [receiver.post().status for _ in range(int(RATE) + 1)] == [202] * int(RATE) + [429]
    assert receiver.counted()["reg", "throttled"] == 2


def test_slow_senders_are_disconnected(capfd: pytest.CaptureFixture[str], logged: Log) -> None:
    """A sender that never ends its request is disconnected in time, however it goes on."""
    receiver = Receiver(timeout=1.0)
    head = b"POST %s HTTP/1.1\r\nContent-Length: 100000\r\n" % PATH.encode()
    for start, rest in ((head, b"X: y\r\n"), (head + b"\r\n", b" ")):
        began = time.monotonic()
        with closing(receiver.send(start)) as connection:
            connection.settimeout(0.01)
            with suppress(ConnectionError):
                while time.monotonic() - began < WITHIN:
                    connection.sendall(rest)
                    with suppress(TimeoutError):
                        if not connection.recv(1000):
                            break
        assert time.monotonic() - began < WITHIN
    receiver.endpoint.close()
    assert [line["status"] for line in logged] == ["408 Request Timeout"]
    assert capfd.readouterr().err == ""


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_logged_or_answered(
    receiver: Receiver, logged: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a right nor a wrong secret is in the log, an answer, a metric or on the terminal."""
    answers = [
        receiver.post(),
        receiver.post(PATH + "x"),
        receiver.post(body={SECRET: SECRET}),
        receiver.post("/hooks/reg", b"{", Authorization=SECRET),
        receiver.post("/hooks/reg/made-up-wrong-secret"),
    ]
    with closing(receiver.send(b"POST %s\xff HTTP/9.9 x\r\n\r\n" % PATH.encode())):
        pass
    shown = f"{logged} {answers} {receiver.counted()} {capfd.readouterr()}"
    for secret in (SECRET, "made-up", "hook%20secret"):
        assert secret not in shown


def test_refusals_are_logged_once_in_a_while(receiver: Receiver, logged: Log) -> None:
    """The log says where wrong requests come from, at most once a minute."""
    for _ in range(3):
        receiver.post("/hooks/reg/wrong")
    receiver.now += 60
    receiver.post(body=b"{")
    lines = [line for line in logged if line["event"] == "hook.refused"]
    assert [(line["reason"], line["registry"], line["suppressed"]) for line in lines] == [
        ("unauthorized", None, 0),
        ("malformed", "reg", 2),
    ]
    assert {line["address"] for line in lines} == {"127.0.0.1"}
