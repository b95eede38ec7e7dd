"""Which hosts are this machine, and which are Docker Hub."""

import pytest

from tagsync.registries.hosts import is_docker_hub, is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.3.2.1", "::1"])
def test_loopback(host: str) -> None:
    """The name localhost and every loopback address mean this machine."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "localhost.", "localhost.example.com", "127.0.0.1.example.com", "registry.example"),
        *("0.0.0.0", "::", "192.0.2.1", "2130706433", "[::1]", "127.0.0.1:5000"),  # noqa: S104  not listened on
    ],
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    """Other names, unspecified addresses and hosts with a port are not loopback."""
    assert not is_loopback(host)


def test_docker_hub_has_several_names() -> None:
    """Docker Hub is known by each host that people configure, and no other host is."""
    names = ("docker.io", "registry-1.docker.io", "index.docker.io")
    assert all(is_docker_hub(name) for name in names)
    assert not is_docker_hub("docker.io.example.com")
