"""Hosts that need special treatment: this machine, and Docker Hub under its several names."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address means this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
