"""Read one listing from an SWR registry that is a handler."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import httpx

from tagsync.emulator import Emulator
from tagsync.errors import RegistryError
from tagsync.models import Listing, Unchanged
from tagsync.registries.client import Client, Limits
from tagsync.registries.pacing import Pacer
from tagsync.registries.swr.api import REFUSALS, Swr
from tagsync.secrets import Secret

REPOSITORY: Final = "team/api"
SECRET: Final = "secret-that-nobody-may-see"
BOUND: Final = 2**24

Row = dict[str, Any]
Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    url: str, max_bytes: int = BOUND, transport: httpx.BaseTransport | None = None
) -> Client:
    """Return a client of a URL, or of a transport."""
    return Client(
        url,
        None,
        REFUSALS,
        Limits(max_listing_bytes=max_bytes),
        secrets=lambda: (Secret(SECRET),),
        # An explicit transport makes httpx ignore the proxy settings of the environment.
        transport=transport or httpx.HTTPTransport(),
        pacer=Pacer(1e9),
    )


def ask(
    handler: Handler, known: str | None = None, *, repository: str = REPOSITORY, bound: int = BOUND
) -> Listing | Unchanged:
    """Return the listing of one repository from a handler."""
    client = client_of("http://127.0.0.1", bound, httpx.MockTransport(handler))
    with closing(Swr(client, bound)) as registry:
        return registry.list_tags(repository, known)


def rows_of(names: Sequence[int]) -> list[Row]:
    """Return rows of a tag list, one for each number."""
    return [{"Tag": f"v{number}", "digest": f"sha256:{number:064}"} for number in names]


def ask_emulator(
    emulator: Emulator, known: str | None = None, repository: str = REPOSITORY
) -> Listing | Unchanged:
    """Return the listing of one repository from an emulator."""
    with closing(Swr(client_of(emulator.url), BOUND)) as registry:
        return registry.list_tags(repository, known)


def listing(answer: Listing | Unchanged) -> Listing:
    """Return an answer, which must be a listing."""
    assert isinstance(answer, Listing)
    return answer


def response(rows: object, total: int | None = None) -> httpx.Response:
    """Return a page with these rows, and the total if there is one."""
    headers = {} if total is None else {"Content-Range": f"0-0/{total}"}
    return httpx.Response(200, json=rows, headers=headers)


def sends(body: bytes | str, status: int = 200) -> Handler:
    """Return a handler that always sends this body."""
    return lambda _: httpx.Response(status, content=body)


def in_order(*responses: httpx.Response) -> tuple[Handler, list[httpx.Request]]:
    """Return a handler that sends each response once, and its requests."""
    requests: list[httpx.Request] = []
    left = list(responses)

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return left.pop(0)

    return handler, requests


def sentence_of(error: RegistryError) -> str:
    """Return the text of an error, which is one sentence without the secret."""
    text = str(error)
    assert text
    assert len(text.splitlines()) == 1
    assert SECRET not in text
    return text


def copies(responses: Sequence[httpx.Response]) -> list[httpx.Response]:
    """Return copies, because a response can be sent only once."""
    return [
        httpx.Response(each.status_code, headers=each.headers, content=each.content)
        for each in responses
    ]
