"""Choose the proxy for each request, by the proxy variables of the environment.

httpx reads the same variables, but it checks all of them when a client is created, so that a proxy
that no request would use stops the program. It also knows no networks (``10.0.0.0/8``) in
``NO_PROXY``. Therefore tagsync chooses the proxy itself.
"""

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from threading import Lock
from typing import Final, NamedTuple

import httpx

from tagsync.errors import ConfigError
from tagsync.registries.hosts import is_host
from tagsync.secrets import Secret

_METADATA_HOST: Final = "169.254.169.254"
"""A cloud host's metadata service sends keys, which a proxy must not see."""

_SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})
"""The kinds of proxies that httpx can use."""


class ProxySettings(NamedTuple):
    """The proxy variables of the environment.

    Attributes:
        addresses: The name and the value of the variable that counts, by the scheme of the
            requests that use it. The key ``all`` means every scheme.
        exempt: The entries of ``NO_PROXY``: hosts and networks that are reached without a proxy.
    """

    addresses: Mapping[str, tuple[str, str]]
    exempt: tuple[str, ...]


def proxy_settings(env: Mapping[str, str]) -> ProxySettings:
    """Return the proxy variables of an environment.

    A variable in lower case takes precedence over the same one in upper case. An empty variable in
    lower case turns the other one off, as in curl.
    """
    addresses: dict[str, tuple[str, str]] = {}
    for scheme in ("http", "https", "all"):
        lower, upper = f"{scheme}_proxy", f"{scheme.upper()}_PROXY"
        # A web server sets HTTP_PROXY from a client's header "Proxy:" when it starts a CGI program.
        upper = "" if scheme == "http" and "REQUEST_METHOD" in env else upper
        name = lower if lower in env else upper
        if env.get(name, "").strip():
            addresses[scheme] = name, env[name].strip()
    exempt = env["no_proxy"] if "no_proxy" in env else env.get("NO_PROXY", "")
    return ProxySettings(addresses, tuple(re.split(r"[\s,]+", exempt.strip())))


def proxy_for(url: httpx.URL, settings: ProxySettings) -> httpx.Proxy | None:
    """Return the proxy for a request, or None if the request goes to its host directly.

    Raises:
        ConfigError: If the variable for this request does not hold the address of a proxy. The
            error does not quote it, because it may contain a password.
    """
    address = _address_for(url, settings)
    if address is None or url.host == _METADATA_HOST:
        return None
    if any(_is_exempt(url, entry) for entry in settings.exempt):
        return None
    return _parse(*address)


def _address_for(url: httpx.URL, settings: ProxySettings) -> tuple[str, str] | None:
    return settings.addresses.get(url.scheme) or settings.addresses.get("all")


def _parse(variable: str, text: str) -> httpx.Proxy:
    url = _parse_url(text if "://" in text else f"http://{text}")
    if url is None:
        raise ConfigError(
            f"${variable} is not the address of a proxy: write http://HOST:PORT, or add the"
            " registry's host to $NO_PROXY"
        )
    if url.scheme.startswith("socks"):
        _check_socks(variable)
    return httpx.Proxy(url)


def _parse_url(text: str) -> httpx.URL | None:
    """Return the URL of a proxy, or None if no proxy can have this address."""
    try:
        url = httpx.URL(text)
        is_named = re.fullmatch(r"[\w.:-]+", url.host) is not None and is_host(url.host)
    except (httpx.InvalidURL, UnicodeError):
        return None
    has_port = url.port is None or 0 < url.port < 2**16
    return url if url.scheme in _SCHEMES and is_named and has_port else None


def _check_socks(variable: str) -> None:
    try:
        import socksio  # noqa: F401, PLC0415  httpx imports it, too, but only when it connects
    except ImportError:
        raise ConfigError(
            f"${variable} names a SOCKS proxy, for which tagsync needs the package socksio: install"
            " tagsync[socks], use an http:// proxy, or add the registry's host to $NO_PROXY"
        ) from None


def _is_exempt(url: httpx.URL, entry: str) -> bool:
    """Return whether an entry of ``NO_PROXY`` matches the host of a URL.

    An entry is ``*``, an IP address, a network, or a domain, which includes its subdomains. Each of
    them but a network may be followed by a port. A name is not resolved to its addresses.
    """
    if entry in {"", "*"}:
        return entry == "*"
    host = url.host.rstrip(".")
    name, port = _split_port(entry)
    if port is not None and port != (url.port or {"http": 80, "https": 443}[url.scheme]):
        return False
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        domain = name.removeprefix("*").strip(".").lower()
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split an entry of ``NO_PROXY`` into its host and its port, which is None if there is none."""
    match = re.fullmatch(r"\[([^\]]*)\]((?:/\d+)?)(?::(\d{1,5}))?", entry)
    if match:
        return match[1] + match[2], int(match[3]) if match[3] else None
    match = re.fullmatch(r"([^:]*):(\d{1,5})", entry)
    return (match[1], int(match[2])) if match else (entry, None)


class ProxyTransport(httpx.BaseTransport):
    """The connections of a client: direct ones, and those through each proxy in use."""

    def __init__(
        self,
        open_transport: Callable[[httpx.Proxy | None], httpx.BaseTransport],
        settings: ProxySettings | None = None,
    ) -> None:
        """Prepare the connections. None is opened yet.

        Args:
            open_transport: Returns the connections through a proxy, or direct ones for None.
            settings: The proxy variables. By default, they are read from the environment.
        """
        self._settings = proxy_settings(os.environ) if settings is None else settings
        self._open = open_transport
        self._lock = Lock()
        self._transports: dict[httpx.URL | None, httpx.BaseTransport] = {}
        # These objects keep the passwords of proxies out of error messages.
        self._passwords: list[Secret] = []

    def check(self, url: httpx.URL) -> None:
        """Check the proxy for requests to a URL. No connection is opened.

        Raises:
            ConfigError: As for `proxy_for`.
        """
        proxy_for(url, self._settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, through the proxy for its URL if there is one.

        An error of the connection names the variable of the proxy.
        """
        try:
            proxy = proxy_for(request.url, self._settings)
        except ConfigError as error:
            # The registry's own proxy is checked at the start. This request is for another host,
            # such as a token server, so only the poll that needs it fails.
            raise httpx.ConnectError(str(error), request=request) from error
        try:
            return self._transport(proxy).handle_request(request)
        except (httpx.ConnectError, httpx.ProxyError) as error:
            address = _address_for(request.url, self._settings)
            if proxy is None or address is None:
                raise
            text = f"through the proxy of ${address[0]}: {error}"
            raise type(error)(text, request=request) from error

    def _transport(self, proxy: httpx.Proxy | None) -> httpx.BaseTransport:
        key = None if proxy is None else proxy.url
        with self._lock:
            if key not in self._transports:
                self._transports[key] = self._open(proxy)
                if proxy is not None and proxy.raw_auth is not None:
                    self._passwords.append(Secret(proxy.raw_auth[1].decode("utf-8", "replace")))
            return self._transports[key]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for transport in self._transports.values():
                transport.close()
