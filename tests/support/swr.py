"""Read one listing from an SWR registry that is a handler."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import httpx

from tagsync.models import Listing, Unchanged
from tagsync.registries import http, swr
from tagsync.secrets import Secret

REPOSITORY: Final = "team/api"
SECRET: Final = "secret-that-nobody-may-see"
BOUND: Final = 2**24

Row = dict[str, Any]
Handler = Callable[[httpx.Request], httpx.Response]


def client_of(
    url: str, max_bytes: int = BOUND, transport: httpx.BaseTransport | None = None
) -> http.Client:
    """Return a client of a URL, or of a transport."""
    return http.Client(
        url,
        None,
        lambda answer: swr.refusal_of(answer, (Secret(SECRET),)),
        http.Limits(max_listing_bytes=max_bytes),
        # An explicit transport makes httpx ignore the proxy settings of the environment.
        transport=transport or httpx.HTTPTransport(),
        pacer=http.Pacer(1e9),
    )


def ask(
    handler: Handler, known: str | None = None, *, repository: str = REPOSITORY, bound: int = BOUND
) -> Listing | Unchanged:
    """Return the listing of one repository from a handler."""
    client = client_of("http://127.0.0.1", bound, httpx.MockTransport(handler))
    with closing(swr.Swr(client, bound)) as registry:
        return registry.list_tags(repository, known)


def rows_of(names: Sequence[int]) -> list[Row]:
    """Return rows of a tag list, one for each number."""
    return [{"Tag": f"v{number}", "digest": f"sha256:{number:064}"} for number in names]
