"""The list of Quay: ``/api/v1/repository/<name>/tag/``.

The list has a row for each time that a tag pointed to an image. tagsync asks for the rows that have
not ended. The list is read from the database that also answers HEAD, or from a replica of it. The
rows are sorted by their start, and the pages count rows, so pages shift while tags are pushed.

The API takes no robot account and no password, only the token of an OAuth application. Without one,
it lists public repositories. It must not get the token for images, which it would refuse even for a
public repository. It takes an OAuth token that is wrong or has expired for no token, without a sign
in the answer.

In an organization that is a proxy, the list has only the tags that were pulled through it, as they
were then. The API tells a member whether it is one, if the OAuth token has a permission that comes
with the membership, such as *Create Repositories*; one to view repositories is not enough.
Otherwise, a repository counts as one of a proxy if all of its tags have an end, because Quay lets
the tags of a proxy expire by default.

Sources: endpoints/api/tag.py, repository.py, organization.py and error.py, auth/oauth.py and
permissions.py, and data/registry_model/registry_proxy_model.py of quay/quay.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final, Self
from urllib.parse import urlsplit

import msgspec

from tagsync.clock import Clock
from tagsync.errors import (
    BadRequest,
    EndpointNotFound,
    Forbidden,
    MalformedResponse,
    NotFound,
    Unauthorized,
)
from tagsync.registries.client import Client
from tagsync.registries.oci.lists.namespaces import namespaces_of
from tagsync.registries.oci.lists.pages import PagedRows, read_again_if_inconsistent
from tagsync.registries.oci.lists.protocol import Access, NotOffered, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.renewal import BearerToken
from tagsync.registries.responses import decode_body

PAGE: Final = 100
"""Number of rows to ask for per page: the maximum."""

Query = dict[str, str | int]
"""The parameters of a request."""

_HOST: Final = "quay.io"
_API: Final = "Quay's API"

_AVAILABLE: Final = frozenset({200, 401})
"""Statuses of the description of an error if the registry has this API."""


class _Tag(msgspec.Struct):
    name: str
    manifest_digest: str | None = None
    end_ts: float | None = None


class _Page(msgspec.Struct):
    tags: list[_Tag]
    has_additional: bool


class _Repository(msgspec.Struct):
    namespace: str
    name: str


class _Repositories(msgspec.Struct):
    repositories: list[_Repository]
    next_page: str | None = None


class _ProxyCache(msgspec.Struct):
    upstream_registry: str | None = None


_decode = msgspec.json.Decoder(_Page).decode
_decode_repositories = msgspec.json.Decoder(_Repositories).decode
_decode_proxy = msgspec.json.Decoder(_ProxyCache).decode


class QuayList(TagList):
    """The list of Quay."""

    name: ClassVar[str] = "quay"
    lag: ClassVar[timedelta] = timedelta(minutes=10)

    def __init__(self, access: Access) -> None:
        """Prepare the list. No request is sent yet."""
        auth = BearerToken(access.list_token) if access.list_token else None
        self._client: Client = access.client.sibling(
            access.client.endpoint, auth, lambda: auth.secrets if auth else ()
        )
        self._clock: Clock = access.clock
        self._has_token = auth is not None
        self._sees_all = auth is not None or access.login("") is None
        self._proxies: dict[str, bool | None] = {}

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the registry is Quay's, and has the API.

        A registry with another name than Quay's own is known by its token server, and then asked
        for the description of an error, which needs no login.
        """
        realm = urlsplit(access.realm)
        if access.host == _HOST:
            return cls(access)
        if (realm.hostname, realm.path) != (access.host, "/v2/auth"):
            return None
        answer = access.client.probe("/api/v1/error/invalid_token")
        return cls(access) if answer.status in _AVAILABLE else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list that have not ended."""
        is_proxy = self._is_proxy(repository.partition("/")[0], cost)
        if is_proxy:
            raise _not_offered(repository)

        def read() -> PagedRows:
            return self._read(repository, cost, may_be_proxy=is_proxy is None)

        try:
            found = read_again_if_inconsistent(read)
        except Unauthorized as error:
            raise Unauthorized(
                f"{_API} refuses the list of {repository} (status 401): {self._missing}",
                status=error.status,
            ) from error
        return Rows(found.rows, pages=found.pages)

    @property
    def _missing(self) -> str:
        """The reason why the API asks for a token, in a phrase."""
        if self._has_token:
            return "list_token is wrong or has expired"
        return "without list_token, it shows only public repositories"

    def _read(self, repository: str, cost: Cost, *, may_be_proxy: bool) -> PagedRows:
        path = f"/api/v1/repository/{repository}/tag/"
        found = PagedRows(path)
        now = self._clock().timestamp()
        has_more, all_end = True, True
        while has_more:
            number = found.pages + 1
            query: Query = {"limit": PAGE, "page": number, "onlyActiveTags": "true"}
            answer = cost.add(self._client.get(path, query, cost.bytes_left))
            page = decode_body(_decode, answer, _API)
            # A row that ends in the future is of a tag that exists.
            live = [tag for tag in page.tags if tag.end_ts is None or tag.end_ts > now]
            found.add(Row(tag.name, tag.manifest_digest) for tag in live)
            all_end = all_end and all(tag.end_ts is not None for tag in live)
            has_more = page.has_additional
            if has_more and not page.tags:
                raise MalformedResponse(f"{answer.url} sent an empty page that is not the last one")
        if may_be_proxy and all_end and found.rows:
            raise _not_offered(repository)
        return found

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return the repositories of the organizations that the globs name.

        Returns:
            None if a glob names no organization, or if there is a login for images but no OAuth
            token, so that this API would not list the private repositories.
        """
        namespaces = namespaces_of(globs)
        if namespaces is None or not self._sees_all:
            return None
        found = {name for each in namespaces for name in self._repositories(each, cost)}
        if self._has_token:
            self._check_token(cost)  # last, so that it was valid for the lists, too
        return found

    def _repositories(self, namespace: str, cost: Cost) -> set[str]:
        path = "/api/v1/repository"
        found = PagedRows(path)
        query: Query | None = {"namespace": namespace, "public": "true"}
        while query is not None:
            answer = cost.add(self._client.get(path, query, cost.bytes_left))
            page = decode_body(_decode_repositories, answer, _API)
            if any(each.namespace != namespace for each in page.repositories):
                raise MalformedResponse(f"{answer.url} sent repositories of another organization")
            found.add(Row(f"{namespace}/{each.name}", None) for each in page.repositories)
            query = {**query, "next_page": page.next_page} if page.next_page else None
        return {row.name for row in found.rows}

    def _check_token(self, cost: Cost) -> None:
        """Raise an error if Quay takes the OAuth token for none.

        It would have listed only public repositories. Starred repositories are those of a user, so
        Quay refuses to list them without a token.

        Raises:
            Unauthorized: If the token is wrong or has expired.
        """
        query: Query = {"starred": "true"}
        try:
            cost.add(self._client.get("/api/v1/repository", query, cost.bytes_left))
        except (BadRequest, Unauthorized) as error:
            raise Unauthorized(
                f"{_API} refuses the list of repositories: {self._missing}", status=error.status
            ) from error

    def _is_proxy(self, organization: str, cost: Cost) -> bool | None:
        """Return whether an organization is a proxy, or None if the token may not ask."""
        if organization not in self._proxies:
            self._proxies[organization] = self._ask_if_proxy(organization, cost)
        return self._proxies[organization]

    def _ask_if_proxy(self, organization: str, cost: Cost) -> bool | None:
        if not self._has_token:
            return None
        path = f"/api/v1/organization/{organization}/proxycache"
        try:
            answer = cost.add(self._client.get(path, {}, cost.bytes_left))
        except (Forbidden, Unauthorized):
            return None
        except (EndpointNotFound, NotFound):
            return False  # this Quay has no proxies
        return bool(decode_body(_decode_proxy, answer, _API).upstream_registry)

    def close(self) -> None:
        """Close the connections to the API."""
        self._client.close()


def _not_offered(repository: str) -> NotOffered:
    return NotOffered(
        f"{repository} belongs to a proxy, or all of its tags expire as those of a proxy do, and"
        " Quay lists only the tags that were pulled through a proxy"
    )
