"""The client of the daemon's own HTTP endpoint."""

from http.client import HTTPConnection, HTTPException
from typing import Final, Literal

from tagsync.errors import NoAnswer

_TIMEOUT: Final = 5.0
"""Seconds to wait for the daemon. Probes usually allow ten or more."""

_MAX_SIZE: Final = 2**16
"""Maximum size of an answer in bytes."""


def ask(address: tuple[str, int], page: Literal["livez", "healthz"]) -> list[str]:
    """Return the problems that the daemon reports, one sentence each. Empty if all is well.

    Args:
        address: The host and port on which the daemon listens. Linux takes the address of every
            interface, such as 0.0.0.0, for loopback.
        page: The page of the endpoint to ask.

    Raises:
        NoAnswer: If no daemon answers there.
    """
    host, port = address
    connection = HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"/{page}")
        response = connection.getresponse()
        lines = response.read(_MAX_SIZE).decode(errors="replace").splitlines()
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAnswer(
            f"the daemon does not answer on {host}, port {port} ({reason}): start tagsync run, or"
            " correct metrics.listen"
        ) from error
    finally:
        connection.close()
    if response.status == 200:  # noqa: PLR2004  HTTP's OK
        return []
    return lines or [f"the daemon answered {response.status} without a reason"]
