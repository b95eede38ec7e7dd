"""The list of zot: the query ``ImageList`` of its search extension, in GraphQL.

The list has a row for each tag but those of signatures, and comes in one answer. It is read from a
database beside the storage that answers HEAD. If another process changes the storage, this database
stays as it was until zot restarts. A repository that the login may not read, or that does not
exist, has an empty list.

Sources: pkg/api/routes.go and pkg/extensions/search of project-zot/zot.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self

import httpx
import msgspec

from tagsync.errors import BadRequest, EndpointNotFound, MalformedResponse, NotFound
from tagsync.escaping import truncate
from tagsync.registries.client import PROBE_BYTES, Client
from tagsync.registries.oci.lists.protocol import Access, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import decode_body

_DISCOVER: Final = "/v2/_oci/ext/discover"
_SEARCH: Final = "/v2/_zot/ext/search"
_INTERFACE: Final = "zot's API"


class _Extension(msgspec.Struct):
    endpoints: list[str] | None = None


class _Extensions(msgspec.Struct):
    extensions: list[_Extension] | None = None


class _Image(msgspec.Struct, rename="pascal"):
    repo_name: str
    tag: str
    digest: str | None = None
    media_type: str | None = None


class _Images(msgspec.Struct, rename="pascal"):
    results: list[_Image]


class _Data(msgspec.Struct, rename="pascal"):
    image_list: _Images


class _Answer(msgspec.Struct):
    data: _Data | None = None
    errors: Any = None


_decode_extensions = msgspec.json.Decoder(_Extensions).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class ZotList(TagList):
    """The list of zot."""

    name: ClassVar[str] = "zot"
    same_store: ClassVar[bool] = False
    sample_period: ClassVar[int] = 20

    def __init__(self, client: Client) -> None:
        """Prepare the list. No request is sent yet."""
        self._client = client

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the registry is a zot with the search extension."""
        if not _may_be_zot(access):
            return None
        try:
            answer = access.client.get(_DISCOVER, {}, PROBE_BYTES)
            found = decode_body(_decode_extensions, answer, _INTERFACE).extensions or []
        except (BadRequest, EndpointNotFound, MalformedResponse, NotFound):
            return None  # another registry
        has_search = any(_SEARCH in (extension.endpoints or ()) for extension in found)
        return cls(access.client) if has_search else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list."""
        query = "{ImageList(repo:%s){Results{RepoName Tag Digest MediaType}}}"
        text = query % msgspec.json.encode(repository).decode()
        answer = cost.add(self._client.get(_SEARCH, {"query": text}, cost.bytes_left))
        content = decode_body(_decode_answer, answer, _INTERFACE)
        if content.errors or content.data is None:
            raise MalformedResponse(f"{answer.url} sent a list together with an error, or none")
        images: Sequence[_Image] = content.data.image_list.results
        other = next((each.repo_name for each in images if each.repo_name != repository), None)
        if other is not None:
            raise MalformedResponse(
                f"{answer.url} sent the list of another repository, {truncate(other)!r}"
            )
        return Rows([Row(each.tag, each.digest, each.media_type) for each in images])


def _may_be_zot(access: Access) -> bool:
    """Return whether the answer to ``/v2/`` may be that of a zot.

    An open zot names a header of its own. One that challenges for a password names nothing, not
    even the version of the API, as most other registries do.
    """
    headers = access.base.headers
    if access.base.status == httpx.codes.OK:
        return "X-ZOT-API-CLIENT" in headers.get("Access-Control-Allow-Headers", "")
    has_version = "Docker-Distribution-Api-Version" in headers
    return access.challenges.keys() == {"basic"} and not has_version
