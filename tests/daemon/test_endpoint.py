"""The daemon's HTTP server, on a real port."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from tagsync.daemon.endpoint import Endpoint, make_application
from tagsync.daemon.metrics import Metrics
from tagsync.errors import AddressUnavailable, ConfigError

WITHIN = 10.0


@pytest.fixture
def wrong() -> list[str]:
    """The problems that the daemon's health reports."""
    return []


@pytest.fixture
def endpoint(wrong: list[str]) -> Iterator[Endpoint]:
    served = Endpoint(
        ("127.0.0.1", 0), make_application(Metrics("test"), lambda: wrong, lambda: wrong[1:])
    )
    yield served
    served.close()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, http.client.HTTPMessage, str]:
    with closing(http.client.HTTPConnection(host, port, timeout=WITHIN)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def test_metrics_are_served(endpoint: Endpoint) -> None:
    """``/metrics`` answers in Prometheus's format."""
    status, headers, text = get(endpoint.port, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert 'tagsync_build_info{version="test"} 1.0' in text


def test_good_health_is_ok(endpoint: Endpoint) -> None:
    """``/healthz`` answers 200 and ok, as plain text that is not stored."""
    status, headers, text = get(endpoint.port, "/healthz")
    assert (status, text) == (200, "ok\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_a_bug_is_a_500_and_logged(logged: list[dict[str, Any]]) -> None:
    """An unexpected error while the health is examined is not taken for bad health."""

    def fail() -> list[str]:
        raise KeyError("a bug")

    application = make_application(Metrics("test"), fail, fail)
    with closing(Endpoint(("127.0.0.1", 0), application)) as served:
        assert get(served.port, "/healthz")[0] == 500
    (line,) = logged
    assert (line["event"], line["log_level"]) == ("daemon.failed", "error")
    assert line["exc_info"]


def test_a_client_that_leaves_is_not_logged(
    endpoint: Endpoint, logged: list[dict[str, Any]]
) -> None:
    """A client that disconnects is no error, but anything else that happens meanwhile is one."""
    for error in (ConnectionResetError(), BrokenPipeError(), TimeoutError(), KeyError("a bug")):
        try:
            raise error
        except (OSError, KeyError):
            endpoint._server.handle_error(None, None)  # noqa: SLF001  socketserver calls it
    assert [line["exc_info"] for line in logged] == [error]


def test_bad_health_is_a_503_with_every_reason(endpoint: Endpoint, wrong: list[str]) -> None:
    """Each problem is a line, in which control characters are escaped."""
    wrong += ["a/team/bad: not\x1b[2Jyours", "b/team/bad: gone"]
    status, _, text = get(endpoint.port, "/healthz")
    assert status == 503
    assert text == "a/team/bad: not\\x1b[2Jyours\nb/team/bad: gone\n"


def test_liveness_has_a_page_of_its_own(endpoint: Endpoint, wrong: list[str]) -> None:
    """``/livez`` is 200 whatever else is wrong, and 503 if the daemon has to be restarted."""
    wrong.append("a/team/bad is stale")
    assert get(endpoint.port, "/livez")[::2] == (200, "ok\n")
    wrong.append("the database is gone")
    assert get(endpoint.port, "/livez")[::2] == (503, "the database is gone\n")


def test_other_paths_are_not_found(endpoint: Endpoint) -> None:
    """A path that does not exist is a 404 that names those that do."""
    status, _, text = get(endpoint.port, "/elsewhere")
    assert (status, text) == (404, "/metrics, /healthz or /livez\n")


def test_a_silent_client_delays_no_other(endpoint: Endpoint) -> None:
    """A client that connects and sends nothing does not keep others waiting."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=WITHIN):
        assert get(endpoint.port, "/healthz")[0] == 200


def test_the_number_of_connections_is_bounded(endpoint: Endpoint) -> None:
    """While too many clients say nothing, another one is disconnected at once."""
    address = ("127.0.0.1", endpoint.port)
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(socket.create_connection(address, timeout=WITHIN))
        with pytest.raises(ConnectionError):
            get(endpoint.port, "/livez")
    began = time.monotonic()
    while time.monotonic() - began < WITHIN:
        with suppress(ConnectionError):
            assert get(endpoint.port, "/livez")[0] == 200
            return
    pytest.fail("the connections that ended still count")


def test_clients_that_disconnect_early_are_not_logged(
    endpoint: Endpoint, wrong: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither requests nor broken connections write to standard error."""
    wrong += ["x" * 1000] * 1000
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=WITHIN) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert get(endpoint.port, "/healthz")[0] == 503
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("address", "kind"), [("192.0.2.1", AddressUnavailable), ("fe80::1", ConfigError)]
)
def test_only_an_address_that_the_host_lacks_is_transient(
    address: str, kind: type[Exception]
) -> None:
    """The host may get an address later; one that no host can listen on is a mistake."""
    with pytest.raises(ConfigError) as raised:
        Endpoint((address, 0), make_application(Metrics("test"), list, list))
    assert type(raised.value) is kind


def test_a_port_that_is_taken_is_transient(endpoint: Endpoint) -> None:
    """The error names the key, the address, the reason, and what to do."""
    with pytest.raises(AddressUnavailable) as raised:
        Endpoint(("127.0.0.1", endpoint.port), make_application(Metrics("test"), list, list))
    assert str(raised.value) == (
        f"metrics.listen: the daemon cannot listen on 127.0.0.1, port {endpoint.port}"
        " (Address already in use): choose another address or port"
    )
    with pytest.raises(AddressUnavailable, match=r"^hooks\.listen: "):
        Endpoint(
            ("127.0.0.1", endpoint.port),
            make_application(Metrics("test"), list, list),
            "hooks.listen",
        )


def test_a_closed_endpoint_frees_its_port() -> None:
    """After it was closed another one can listen on the same port."""
    application = make_application(Metrics("test"), list, list)
    first = Endpoint(("127.0.0.1", 0), application)
    port = first.port
    first.close()
    with closing(Endpoint(("127.0.0.1", port), application)) as second:
        assert get(second.port, "/healthz")[0] == 200


def test_an_ipv6_address_is_served() -> None:
    """An address with colons is one of IPv6."""
    try:
        served = Endpoint(("::1", 0), make_application(Metrics("test"), list, list))
    except ConfigError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with closing(served):
        assert get(served.port, "/healthz", "::1")[0] == 200
