"""Names of hosts, and those that need special treatment: this machine, and Docker Hub."""

from ipaddress import ip_address
from typing import Final

import httpx

DOCKER_HUB: Final = "registry-1.docker.io"
"""The host of Docker Hub's registry."""

DOCKER_HUB_LOGIN: Final = "index.docker.io"
"""The host under which Docker stores the login for Docker Hub."""

DOCKER_HUB_SITES: Final = frozenset(
    {"docker.io", "www.docker.com", "hub.docker.com", DOCKER_HUB_LOGIN}
)
"""Hosts of Docker Hub that people mistake for its registry."""

_DOCKER_HUB_NAMES: Final = frozenset({"docker.io", DOCKER_HUB, DOCKER_HUB_LOGIN})


def is_host(host: str) -> bool:
    """Return whether a request can be sent to a host of this name."""
    try:
        # The resolver encodes a name so, and fails if one of its labels is empty or too long.
        host.encode("idna")
        return bool(httpx.URL(scheme="https", host=host).host)
    except (httpx.InvalidURL, UnicodeError):
        return False


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address means this machine itself.

    Args:
        host: A name or an address, without a port. ``localhost.`` with a final dot does not count,
            because not every resolver maps it to this machine.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_docker_hub(host: str) -> bool:
    """Return whether a registry's host is Docker Hub, by any of its names."""
    return host in _DOCKER_HUB_NAMES
