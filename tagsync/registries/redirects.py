"""Redirects: which of them a client may follow, and what it sends to the target.

httpx follows no redirect itself, because it would send headers such as ``X-Auth-Token`` to any
host. The rules here are narrower:

* a target is not requested over plain HTTP if the request was sent over TLS;
* a target with another scheme, host or port gets no credential, and neither do the targets after
  it;
* a target on another host must not be on this machine or on the local link, unless the endpoint is
  there, too. Otherwise a registry could choose requests to services that only this machine reaches,
  such as a cloud's metadata service.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

import httpcore
import httpx

from tagsync.errors import BadRequest, MalformedResponse
from tagsync.escaping import truncate

MAX_REDIRECTS: Final = 5
"""Maximum number of redirects that a request may follow."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_Place = Literal["loopback", "link-local"]

_guarded_host: Final[ContextVar[str | None]] = ContextVar("host to guard", default=None)


class LocalAddress(Exception):
    """The target of a redirect resolves to an address on this machine or on the local link."""


def is_redirect(response: httpx.Response) -> bool:
    """Return whether a response asks to repeat the request at its ``Location``."""
    return response.status_code in _REDIRECTS and bool(response.headers.get("Location"))


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return the scheme, the host and the port of a URL."""
    default = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port or default


def next_hop(response: httpx.Response, endpoint: httpx.URL) -> httpx.URL:
    """Return the URL to which a redirect leads.

    Args:
        response: A redirect.
        endpoint: The configured endpoint of the registry.

    Raises:
        BadRequest: If tagsync does not follow redirects to this target.
        MalformedResponse: If the target is not a URL.
    """
    url = response.request.url
    here = url.copy_with(query=None)
    try:
        target = url.join(response.headers["Location"]).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise MalformedResponse(f"{here} redirects to something that is not a URL") from error
    reason = _refusal(url, target, endpoint)
    if reason is not None:
        raise BadRequest(
            f"{here} redirects to {describe(target)}, but tagsync follows no redirect {reason}",
            status=response.status_code,
        )
    return target


def describe(url: httpx.URL) -> str:
    """Return a URL for an error message, without user and query: a signed URL contains a key."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port else ""
    return truncate(f"{url.scheme}://{host}{port}{url.path}")


@contextmanager
def guarding(target: httpx.URL, endpoint: httpx.URL) -> Iterator[None]:
    """Refuse connections to the target if its name resolves to a local address.

    Only a transport whose connections pass `check_address` respects this. A connection through a
    proxy is not checked, because the proxy resolves the name.

    Raises:
        BadRequest: If the name resolves to an address that the redirect must not lead to.
    """
    # The network backend gets the host as it is sent, so not in Unicode.
    host = None if _is_same_place(target, endpoint) else target.raw_host.decode()
    token = _guarded_host.set(host)
    try:
        yield
    except LocalAddress as error:
        raise BadRequest(
            f"a redirect leads to {describe(target)}, but tagsync follows no redirect to {error}"
        ) from error
    finally:
        _guarded_host.reset(token)


def check_address(host: str, stream: httpcore.NetworkStream) -> None:
    """Check the address of a new connection before anything is sent on it; see `guarding`.

    Args:
        host: The host as the request names it.
        stream: The connection.

    Raises:
        LocalAddress: If the address is one that the redirect must not lead to.
    """
    if host == _guarded_host.get():
        place = _place_of(str(stream.get_extra_info("server_addr")[0]))
        if place is not None:
            raise LocalAddress(f"a {place} address")


def _refusal(url: httpx.URL, target: httpx.URL, endpoint: httpx.URL) -> str | None:
    """Return the kind of redirect that is not followed, as the end of a sentence, or None."""
    if target.scheme not in {"http", "https"} or not target.host:
        return "to anything but HTTP"
    if target.userinfo:
        return "whose target names a user"
    if url.scheme == "https" and target.scheme == "http":
        return "from https to http"
    place = _place_of(target.host)
    if place is not None and not _is_same_place(target, endpoint):
        return f"to a {place} address"
    return None


def _is_same_place(target: httpx.URL, endpoint: httpx.URL) -> bool:
    """Return whether the target is the endpoint's host, or as local as the endpoint."""
    if target.host == endpoint.host:
        return True
    place = _place_of(endpoint.host)
    return place is not None and place == _place_of(target.host)


def _place_of(host: str) -> _Place | None:
    """Return whether a name or an address is this machine or on the local link, or None."""
    name = host.rstrip(".").lower().partition("%")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    address = _address(name)
    if address is None:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # The unspecified address, 0.0.0.0, also connects to this machine.
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return "link-local" if address.is_link_local else None


def _address(name: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        return ip_address(name)
    with suppress(OSError):
        # Resolvers also accept other forms of an IPv4 address, such as 127.1 and 0x7f000001.
        return IPv4Address(socket.inet_aton(name))
    return None
