"""The socket on which the pages are served."""

import socket

from tagsync.web import _listen


def test_answers_are_not_delayed() -> None:
    """A connection sends each part of an answer at once, as asyncio does on its own sockets."""
    with _listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
