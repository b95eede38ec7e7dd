"""The choice of a proxy, by the variables of the environment."""

import sys

import httpx
import pytest

from tagsync.errors import BadRequest, ConfigError, Unreachable
from tagsync.registries.client import Client, Limits
from tagsync.registries.credentials import NoCredential
from tagsync.registries.oci.api import REFUSALS
from tagsync.registries.oci.auth import auth_for
from tagsync.registries.proxies import ProxyTransport, proxy_for, proxy_settings
from tagsync.registries.responses import Answer

REGISTRY = "https://registry.example.com:8443/v2/"
PROXY = "http://127.0.0.1:9"


def chosen(url: str, **env: str) -> str | None:
    """Return the URL of the proxy for a request, or None."""
    proxy = proxy_for(httpx.URL(url), proxy_settings(env))
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        ({"https_proxy": "", "HTTPS_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": "127.0.0.1:9"}, PROXY),
        ({"HTTPS_PROXY": " https://proxy:9 "}, "https://proxy:9"),
        ({"ALL_PROXY": "socks5://proxy:9"}, "socks5://proxy:9"),
        ({"all_proxy": "socks5h://proxy:9"}, "socks5h://proxy:9"),
        ({"ALL_PROXY": "socks5://proxy:9", "HTTPS_PROXY": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTP_PROXY": "no proxy at all", "HTTPS_PROXY": PROXY}, PROXY),
        ({"HTTPS_PROXY": "no proxy at all", "NO_PROXY": "example.com"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "fc00::/7,[::1], *.svc ,,other.example.com"}, PROXY),
    ],
)
def test_variable_for_the_request_counts(env: dict[str, str], expected: str | None) -> None:
    """Only the variable for this request is read, and a variable in lower case first."""
    assert chosen(REGISTRY, **env) == expected


@pytest.mark.parametrize(
    ("url", "entry", "exempt"),
    [
        (REGISTRY, "*", True),
        (REGISTRY, "example.com", True),
        (REGISTRY, ".Example.com", True),
        (REGISTRY, "*.example.com", True),
        (REGISTRY, "ample.com", False),
        (REGISTRY, "registry.example.com:8443", True),
        (REGISTRY, "registry.example.com:443", False),
        (REGISTRY, "10.0.0.0/8", False),
        ("https://registry.example.com/", "registry.example.com:443", True),
        ("http://127.0.0.1:5000/", "127.0.0.0/8", True),
        ("http://127.0.0.1:5000/", "127.0.0.1/32", True),
        ("http://127.0.0.1:5000/", "127.0.0.1:5000", True),
        ("http://127.0.0.1:5000/", "localhost, 127.0.0.1", True),
        ("http://127.0.0.1:5000/", "localhost 127.0.0.1", True),
        ("http://127.0.0.1:5000/", "10.0.0.0/8", False),
        ("http://127.0.0.1:5000/", "::/0", False),
        ("http://[::1]:5000/", "::1", True),
        ("http://[::1]:5000/", "[::1]", True),
        ("http://[::1]:5000/", "[::1]:5000", True),
        ("http://[::1]:5000/", "[::1]:80", False),
        ("http://[fe80::1]/", "fe80::/10", True),
        ("http://[fe80::1]/", "[fe80::]/10", True),
        ("http://[fe80::1]/", "fc00::/7", False),
    ],
)
def test_exempt_hosts(url: str, entry: str, exempt: bool) -> None:
    """NO_PROXY takes names, addresses and networks of both versions of IP, and ports."""
    assert (chosen(url, ALL_PROXY=PROXY, NO_PROXY=entry) is None) == exempt


def test_metadata_service_needs_no_proxy() -> None:
    """The metadata service of a cloud host, which sends keys, is reached directly."""
    assert chosen("http://169.254.169.254/x", ALL_PROXY=PROXY) is None


def test_header_of_a_client_is_not_a_proxy() -> None:
    """In a CGI program, HTTP_PROXY is a header that a client sent."""
    assert chosen("http://127.0.0.1/", HTTP_PROXY=PROXY, REQUEST_METHOD="GET") is None


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://proxy:9", "http://proxy:port", "http://", "http://u:secret@", "://", "a b"),
        *("http://u:secret@xn--:9", "http://.:9", "http://a..b:9", "http://256.0.0.1:9"),
        *(f"http://{'a' * 64}:9", "http://proxy:0", "http://proxy:65536", "http://proxy:-1"),
    ],
)
def test_invalid_proxy_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid address is an error when the registry opens. The error does not quote it."""
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(ConfigError, match=r"\$HTTPS_PROXY") as caught:
        Client(REGISTRY, None, REFUSALS, Limits())
    assert "secret" not in str(caught.value)


def test_socks_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package for SOCKS, the error names it."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigError, match=r"tagsync\[socks\]"):
        chosen(REGISTRY, ALL_PROXY="socks5://proxy:9")
    assert chosen(REGISTRY, ALL_PROXY="socks5://proxy:9", NO_PROXY="example.com") is None


def test_proxy_for_another_host_fails_its_poll_only() -> None:
    """A bad proxy that only a token server needs fails the request, not the program."""
    settings = proxy_settings({"HTTPS_PROXY": "ftp://proxy"})
    challenge = 'Bearer realm="https://auth.example.org/token"'

    def registry(_: httpx.Proxy | None) -> httpx.BaseTransport:
        return httpx.MockTransport(
            lambda _: httpx.Response(401, headers={"WWW-Authenticate": challenge})
        )

    auth = auth_for(NoCredential(), "http://127.0.0.1")
    transport = ProxyTransport(registry, settings)
    limits = Limits(retry_for=0.001)
    client = Client("http://127.0.0.1", auth, REFUSALS, limits, transport=transport)
    with pytest.raises(Unreachable, match=r"\$HTTPS_PROXY"):
        client.get("/v2/a/tags/list", {}, 1000)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ConnectError("refused"), "could not be reached (through the proxy of $HTTPS_PROXY"),
        (httpx.ProxyError("403 Forbidden"), "broke: through the proxy of $HTTPS_PROXY: 403"),
    ],
)
def test_error_of_a_proxy_names_its_variable(error: httpx.TransportError, text: str) -> None:
    """If the proxy refuses or is not there, the error does not blame the registry alone."""

    def broken(_: httpx.Request) -> httpx.Response:
        raise error

    def open_transport(_: httpx.Proxy | None) -> httpx.BaseTransport:
        return httpx.MockTransport(broken)

    settings = proxy_settings({"HTTPS_PROXY": "http://u:secret@127.0.0.1:9"})
    transport = ProxyTransport(open_transport, settings)
    limits = Limits(retry_for=0.001)
    for url in ("https://registry.example.com", "http://127.0.0.1"):
        client = Client(url, None, REFUSALS, limits, transport=transport)
        with pytest.raises(Unreachable) as caught:
            client.get("/v2/a/tags/list", {}, 1000)
        assert (text in str(caught.value)) == url.startswith("https")


def test_proxy_that_requires_a_login_is_named() -> None:
    """A 407 says where to write the user and the password."""
    transport = httpx.MockTransport(lambda _: httpx.Response(407))
    client = Client(REGISTRY, None, REFUSALS, Limits(), transport=transport)
    with pytest.raises(BadRequest, match="the proxy requires a login"):
        client.get("/v2/a/tags/list", {}, 1000)


def test_each_proxy_has_its_connections() -> None:
    """Connections are opened once for each proxy, and closed with the client."""
    opened: list[httpx.Proxy | None] = []

    def open_transport(proxy: httpx.Proxy | None) -> httpx.BaseTransport:
        opened.append(proxy)
        return httpx.MockTransport(lambda _: httpx.Response(200))

    settings = proxy_settings({"HTTPS_PROXY": "http://u:p@127.0.0.1:9"})
    client = Client(
        "http://127.0.0.1",
        None,
        REFUSALS,
        Limits(),
        transport=ProxyTransport(open_transport, settings),
    )
    answers: list[Answer] = [client.get("/a", {}, 10) for _ in range(2)]
    client.close()
    assert [answer.status for answer in answers] == [200, 200]
    assert opened == [None]
