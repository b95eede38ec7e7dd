"""A registry client whose clock, limits and transport the test chooses."""

from collections.abc import Callable
from contextlib import closing
from typing import Final

import httpx

from tagsync.registries.client import Client, Limits
from tagsync.registries.pacing import Pacer
from tagsync.registries.responses import Answer
from tagsync.registries.swr.api import REFUSALS
from tagsync.registries.swr.iam import TokenAuth
from tagsync.secrets import Secret

PATH: Final = "/v2/list"
TOKEN: Final = "token-that-nobody-may-see"

Handler = Callable[[httpx.Request], httpx.Response]


class Time:
    """A monotonic clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client_of(
    handler: Handler | None,
    *,
    url: str = "http://127.0.0.1",
    limits: Limits | None = None,
    time: Time | None = None,
) -> Client:
    """Return a client of a handler or, without one, of a real server."""
    time = time or Time()
    return Client(
        url,
        TokenAuth(Secret(TOKEN)),
        REFUSALS,
        limits or Limits(),
        secrets=lambda: (Secret(TOKEN),),
        # An explicit transport makes httpx ignore the proxy settings of the environment.
        transport=httpx.MockTransport(handler) if handler else httpx.HTTPTransport(),
        pacer=Pacer(1e6, monotonic=time.monotonic, sleep=time.sleep),
    )


def get(client: Client, max_bytes: int = 10**6) -> Answer:
    """Send one GET and close the client."""
    with closing(client):
        return client.get(PATH, {}, max_bytes)
