"""A server on loopback that answers with bytes that the test chooses."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final

HEAD: Final = b"HTTP/1.1 200 OK\r\n"

Talk = Callable[[socket.socket], None]


@contextmanager
def server(talk: Talk) -> Iterator[str]:
    """Serve connections on loopback with `talk`, and yield the host and port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # shutdown() wakes accept(); close() alone does not.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def says(answer: bytes) -> Talk:
    """Return a `Talk` that reads one request and sends these bytes."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return talk
