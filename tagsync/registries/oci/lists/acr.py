"""The list of Azure Container Registry: ``/acr/v1/<name>/_tags``.

The list has a row for each tag. Its pages are keyed by name, so that a tag which exists throughout
is on exactly one of them. The list is read from the metadata, which may follow a push after a
moment, and at a replica in another region after minutes.

Sources: containerregistry.json of Azure/azure-rest-api-specs; acr/client.go of Azure/acr-cli.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tagsync.errors import MalformedResponse
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.oci.links import next_query
from tagsync.registries.oci.lists.pages import PagedRows, read_again_if_inconsistent
from tagsync.registries.oci.lists.protocol import Access, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import Answer, decode_body

PAGE: Final = 1000
"""Number of rows to ask for per page: the maximum."""

_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.azurecr\.(?:io|cn|us)")


class _Tag(msgspec.Struct):
    name: str
    digest: str | None = None


class _Page(msgspec.Struct):
    imageName: str  # noqa: N815  the registry's own name
    tags: list[_Tag] | None = None


_decode = msgspec.json.Decoder(_Page).decode


class AcrList(TagList):
    """The list of Azure Container Registry."""

    name: ClassVar[str] = "acr"
    lag: ClassVar[timedelta] = timedelta(minutes=10)

    def __init__(self, client: Client) -> None:
        """Prepare the list. No request is sent yet."""
        self._client = client

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the host is Azure's, or answers as Azure's registries do.

        A registry at a name of its owner has its token server at the same name.
        """
        realm = urlsplit(access.realm)
        is_acr = _HOST.fullmatch(access.host) is not None or (
            (realm.hostname, realm.path) == (access.host, "/oauth2/token")
            and "X-Ms-Correlation-Request-Id" in access.base.headers
        )
        return cls(access.client) if is_acr else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list."""

        def read() -> PagedRows:
            return self._read(repository, cost)

        found = read_again_if_inconsistent(read)
        return Rows(found.rows, pages=found.pages)

    def _read(self, repository: str, cost: Cost) -> PagedRows:
        path = f"/acr/v1/{quote(repository, safe='')}/_tags"
        found = PagedRows(path)
        query: str | None = urlencode({"n": PAGE})
        while query is not None:
            answer = cost.add(self._client.get(f"{path}?{query}", {}, cost.bytes_left))
            page = _tags(answer, repository)
            found.add(Row(tag.name, tag.digest) for tag in page)
            query = next_query(answer, f"/acr/v1/{repository}/_tags") if page else None
            if query is None and len(page) == PAGE:
                # A proxy may have removed Link, so a full page is not believed to be the last one.
                query = urlencode({"n": PAGE, "last": page[-1].name})
        return found


def _tags(answer: Answer, repository: str) -> Sequence[_Tag]:
    """Return the rows of a page. The registry leaves them out after the last one."""
    page = decode_body(_decode, answer, "Azure's registry API")
    if page.imageName != repository:
        raise MalformedResponse(
            f"{answer.url} sent the list of another repository, {truncate(page.imageName)!r}"
        )
    return page.tags or []
