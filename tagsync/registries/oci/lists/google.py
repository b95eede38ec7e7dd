"""The list of Google Artifact Registry: the map ``manifest`` in ``tags/list`` itself.

Beside the names of all tags, the answer has an entry for each manifest with the tags that point to
it. Names and digests come from one answer, so no tag can move in between. The registry does not
page: from 10,000 tags or manifests on, it cuts the answer without a sign.

Sources: pkg/v1/google/list.go of google/go-containerregistry; "Quotas and limits" of Artifact
Registry.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar, Final, Self
from urllib.parse import urlsplit

import msgspec

from tagsync.errors import MalformedResponse
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.oci.lists.protocol import Access, ListCut, NotOffered, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import Answer, ListPage, decode_body

LIMIT: Final = 10_000
"""Number of tags, and of manifests, from which on the answer may be cut."""

_HOST: Final = re.compile(r"(?:(?:eu|us|asia)\.)?gcr\.io|[a-z0-9-]+-docker\.pkg\.dev")


class _Manifest(msgspec.Struct):
    tag: list[str] | None = None
    mediaType: str | None = None  # noqa: N815  the registry's own name


class _Tags(ListPage):
    name: str | None = None
    tags: list[str] | None = None
    manifest: Mapping[str, _Manifest] | None = None


_decode = msgspec.json.Decoder(_Tags).decode


class GoogleList(TagList):
    """The list of Google Artifact Registry, and of the hosts ``gcr.io``."""

    name: ClassVar[str] = "google"

    def __init__(self, client: Client) -> None:
        """Prepare the list. No request is sent yet."""
        self._client = client

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:
        """Return the list if the host is Google's, or if the first answer has the map.

        A registry at another name, such as a proxy, is only asked if its token server has the path
        of Google's.
        """
        found = cls(access.client)
        if _HOST.fullmatch(access.host):
            return found
        realm = urlsplit(access.realm)
        if realm.hostname != access.host or realm.path != "/v2/token":
            return None
        if not repository:
            return found  # `read` notices if the map is missing
        page = found._page(repository, 1, Cost(2**20))[0]
        return None if page.manifest is None else found

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return the names of all tags, and the digests that the map has for them.

        Raises:
            NotOffered: If the answer has no map.
            ListCut: If the answer may lack tags.
            RegistryError: As for `TagList.read`.
        """
        page, answer = self._page(repository, LIMIT, cost)
        names, digests = page.tags or [], page.manifest
        if digests is None or "Link" in answer.headers:
            raise NotOffered(f"{answer.url} has no map of manifests, or not all of them")
        if len(names) >= LIMIT or len(digests) >= LIMIT:
            raise ListCut(
                f"{answer.url} has {len(names)} tags and {len(digests)} manifests, and the registry"
                f" cuts its answers at {LIMIT} of them, so tags may be missing: delete old images"
            )
        rows: dict[str, list[Row]] = defaultdict(list)
        for digest, manifest in digests.items():
            for name in manifest.tag or ():
                rows[name].append(Row(name, digest, manifest.mediaType))
        return Rows([row for name in names for row in rows.get(name, [Row(name, None)])], names)

    def _page(self, repository: str, size: int, cost: Cost) -> tuple[_Tags, Answer]:
        path = f"/v2/{repository}/tags/list"
        answer = cost.add(self._client.get(path, {"n": size}, cost.bytes_left))
        page = decode_body(_decode, answer, "the registry's API")
        page.check_whole(answer)
        if (page.name or repository) != repository:
            raise MalformedResponse(
                f"{answer.url} sent the list of another repository, {truncate(page.name or '')!r}"
            )
        return page, answer
