"""The list of Docker Hub: ``/v2/namespaces/<namespace>/repositories/<name>/tags``.

The list has a row for each tag. Its API is at another host than the registry, which gets the login
only to exchange it for a token, and counts requests on its own. It is fed apart from the registry,
so a row may be behind. A digest is therefore believed only if it is the recorded one, and the
sample is twice as large as that of other registries.

Each read is complete, and must have as many names as the registry states. So the order of the rows,
which depends on the time of the last push, does not matter, and pages that shift are noticed.

The digest of a row is that of its tag. It is missing in old rows. The digests of ``images`` are
those of single platforms, and ``media_type`` may be that of a configuration: neither is used.
Without a login, the API shows only the first pages.

Sources: content/reference/api/hub/latest.yaml of docker/docs; lib/modules/datasource/docker of
renovatebot/renovate; src/pkg/reg/adapter/dockerhub of goharbor/harbor.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final, Self
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from tagsync.errors import (
    ConfigError,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    RegistryError,
)
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.hosts import is_docker_hub
from tagsync.registries.oci.lists.auth import HubLogin
from tagsync.registries.oci.lists.namespaces import namespaces_of
from tagsync.registries.oci.lists.pages import PagedRows, read_again_if_inconsistent
from tagsync.registries.oci.lists.protocol import (
    Access,
    NeedsLogin,
    NotOffered,
    Row,
    Rows,
    TagList,
)
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import Answer, decode_body
from tagsync.secrets import Secret

PAGE: Final = 100
"""Number of rows to ask for per page: the maximum."""

_API: Final = "Docker Hub's API"

_OFFICIAL: Final = "library"
"""The namespace of repositories whose name has one part."""

_PARTS: Final = 2
"""Number of parts of the name of each other repository."""


class _Item(msgspec.Struct):
    name: str
    digest: str | None = None


class _Page(msgspec.Struct):
    count: int
    next: str | None
    results: list[_Item]


_decode = msgspec.json.Decoder(_Page).decode


class DockerHubList(TagList):
    """The list of Docker Hub.

    Attributes:
        api: The URL of the API, the only one that gets the login.
    """

    name: ClassVar[str] = "dockerhub"
    same_store: ClassVar[bool] = False
    lag: ClassVar[timedelta] = timedelta(hours=1)
    sample_period: ClassVar[int] = 50
    api: ClassVar[str] = "https://hub.docker.com"

    def __init__(self, access: Access) -> None:
        """Prepare the list. No request is sent yet."""
        login = access.login("")
        has_user = login is not None and login.username is not None
        self._auth = (
            HubLogin(self.api, lambda: access.login(""), access.clock) if has_user else None
        )
        try:
            self._client: Client = access.client.sibling(self.api, self._auth, lambda: self.secrets)
        except ConfigError as error:
            raise RegistryError(str(error)) from error

    @classmethod
    def is_hub(cls, access: Access) -> bool:
        """Return whether a registry is Docker Hub's."""
        return is_docker_hub(access.host)

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the registry is Docker Hub's."""
        return cls(access) if cls.is_hub(access) else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list."""
        parts = repository.split("/")
        namespace, name = parts if len(parts) == _PARTS else (_OFFICIAL, repository)
        if "/" in name:
            raise NotOffered(f"{repository} is no name of Docker Hub, whose names have two parts")
        path = f"/v2/namespaces/{namespace}/repositories/{name}/tags"
        found = self._read_all(path, {"ordering": "last_updated"}, cost)
        return Rows(found.rows, pages=found.pages)

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return the repositories of the namespaces that the globs name.

        Returns:
            None if a glob names no namespace.
        """
        namespaces = namespaces_of(globs)
        if namespaces is None:
            return None
        found: set[str] = set()
        for namespace in namespaces:
            rows = self._read_all(f"/v2/namespaces/{namespace}/repositories", {}, cost).rows
            found |= {f"{namespace}/{row.name}" for row in rows}
        return found

    def _read_all(self, path: str, options: dict[str, str], cost: Cost) -> PagedRows:
        """Return a list, which is read once more if its pages contradict each other."""

        def read() -> PagedRows:
            return self._read(path, options, cost)

        return read_again_if_inconsistent(read)

    def _read(self, path: str, options: dict[str, str], cost: Cost) -> PagedRows:
        found = PagedRows(path)
        query: str | None = urlencode({"page": 1, "page_size": PAGE, **options})
        while query is not None:
            answer = cost.add(self._get(f"{path}?{query}", cost, is_first=not found.pages))
            page = decode_body(_decode, answer, _API)
            found.add((Row(item.name, item.digest) for item in page.results), page.count)
            query = _next_query(answer, page)
        names = {row.name for row in found.rows}
        if len(names) != page.count:
            raise InconsistentListing(
                f"{path} has {page.count} rows, and its pages have {len(names)} names"
            )
        return found

    def _get(self, target: str, cost: Cost, *, is_first: bool) -> Answer:
        try:
            return self._client.get(target, {}, cost.bytes_left)
        except Forbidden as error:
            if self._auth is not None or is_first:
                raise
            raise NeedsLogin(
                f"Docker Hub shows only the first pages without a login: {error}"
            ) from error

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The tokens of the API."""
        return self._auth.secrets if self._auth else ()

    def close(self) -> None:
        """Close the connections to the API."""
        self._client.close()


def _next_query(answer: Answer, page: _Page) -> str | None:
    """Return the query of the next page, or None after the last one.

    Raises:
        MalformedResponse: If the next page is at another host, or if this one is empty.
    """
    if page.next is None:
        return None
    try:
        here, target = urlsplit(answer.url), urlsplit(urljoin(answer.url, page.next))
    except ValueError:
        here, target = urlsplit(answer.url), urlsplit("")
    is_same = (target.scheme, target.netloc) == (here.scheme, here.netloc)
    if not is_same or not target.query or not page.results:
        raise MalformedResponse(
            f"{answer.url} names a next page that tagsync does not read, {truncate(page.next)!r}"
        )
    return target.query
