"""Bytes that a server sends after the end of a response.

Such bytes may be a second response, from a faulty server or proxy. httpcore would read them as the
beginning of the next response on the same connection. A repository could then get the tags of
another one. Therefore a connection with such bytes is not used again.
"""

from typing import Any

import httpcore
import httpx


def without_leftovers(client: httpx.Client) -> httpx.Client:
    """Make a client close each connection on which bytes are left over, and return the client.

    The client must have been prepared by `tagsync.registries.deadline.bounded`, whose connections
    are `Connection` objects.
    """
    client.event_hooks["response"].append(_watch_connection)
    return client


class Connection(httpcore.NetworkStream):
    """A connection that the pool does not use again if bytes are left over on it."""

    _h11: Any = None

    def watch(self, h11: Any) -> None:
        """Note the parser that holds the bytes of this connection which are not parsed yet."""
        self._h11 = h11

    @property
    def has_leftovers(self) -> bool:
        """Whether bytes arrived after the end of the last response."""
        return self._h11 is not None and bool(self._h11.trailing_data[0])


def _watch_connection(response: httpx.Response) -> None:
    """Let the connection of a response see the parser. httpx calls it before the body is read."""
    connection = response.extensions.get("network_stream")
    if isinstance(connection, Connection):
        # httpx and httpcore have no public way to reach the parser.
        stream: Any = response.stream
        connection.watch(stream._stream._httpcore_stream._stream._connection._h11_state)  # noqa: SLF001  see above
