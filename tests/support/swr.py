"""Read one listing from an SWR registry that is a handler."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import httpx

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
