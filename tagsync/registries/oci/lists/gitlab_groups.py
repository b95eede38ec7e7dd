"""GitLab's lists of repositories: ``/api/v4/groups/<path>/registry/repositories``.

A list has the repositories of a group and its subgroups, or with ``projects`` instead of ``groups``
those of a project. The API is that of GitLab itself, at the host of the token server, and counts
requests on its own. It takes no ``docker login``, but an access token with the scope ``read_api``,
whose owner has at least the role Reporter in the group. Without one, it lists public projects only.

A path may be a group, a project, an image of a project, or the namespace of a user. GitLab answers
404 for a path of another kind, as for one that it does not show. So tagsync asks for the group,
then for the project, and then for the parent.

The pages count rows, which are sorted by their age, so a deletion shifts them. The total shows
that. Lists of more than 10,000 rows have no total.

Sources: lib/api/group_container_repositories.rb, project_container_repositories.rb and helpers.rb,
app/policies/group_policy.rb and lib/gitlab/pagination of gitlab-org/gitlab;
src/pkg/reg/adapter/gitlab of goharbor/harbor.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, Self
from urllib.parse import quote, unquote, urlencode

import httpx
import msgspec

from tagsync.errors import (
    ConfigError,
    EndpointNotFound,
    Forbidden,
    InconsistentListing,
    MalformedResponse,
    NotFound,
    RegistryError,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.registries.client import Client
from tagsync.registries.oci.challenges import token_challenge
from tagsync.registries.oci.links import next_query
from tagsync.registries.oci.lists.auth import PrivateToken
from tagsync.registries.oci.lists.namespaces import directories_of
from tagsync.registries.oci.lists.pages import (
    PagedRows,
    read_again_if_inconsistent,
    stated_total,
)
from tagsync.registries.oci.lists.protocol import Access, Row
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import decode_body

PAGE: Final = 100
"""Number of rows to ask for per page: the maximum."""

REALM_PATH: Final = "/jwt/auth"
"""The end of the path of GitLab's token server."""


class _Repository(msgspec.Struct):
    path: str


_decode = msgspec.json.Decoder(list[_Repository]).decode


class GitLabGroups:
    """The lists of repositories of a GitLab's groups and projects.

    Attributes:
        url: The URL of GitLab, the only one that gets ``list_token``.
    """

    def __init__(self, access: Access, api: str) -> None:
        """Prepare the lists. No request is sent yet.

        Args:
            access: The registry.
            api: The URL of GitLab.

        Raises:
            RegistryError: If the environment names a proxy for GitLab that is not a valid address.
        """
        auth = PrivateToken(access.list_token) if access.list_token else None
        self._has_token = auth is not None
        try:
            self._client: Client = access.client.sibling(
                api, auth, lambda: auth.secrets if auth else ()
            )
        except ConfigError as error:
            raise RegistryError(str(error)) from error
        self.url: Final = self._client.endpoint
        self._host = httpx.URL(api).host

    @classmethod
    def of(cls, access: Access) -> Self | None:
        """Return the lists of the GitLab that issues the registry's tokens.

        Returns:
            None if the registry names no token server of GitLab, or one without TLS.
        """
        endpoint = httpx.URL(access.client.endpoint)
        try:
            realm = token_challenge(access.challenges.get("bearer", {}), endpoint, "").realm
        except MalformedResponse:
            return None
        if not realm.path.endswith(REALM_PATH):
            return None
        root = realm.path.removesuffix(REALM_PATH) + "/"
        return cls(access, str(realm.copy_with(path=root, query=None, fragment=None)))

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return the repositories of the groups and projects that the globs name.

        Returns:
            None if a glob names neither.

        Raises:
            NotFound: If GitLab shows neither a group nor a project.
            RegistryError: As for `TagList.list_repositories`.
        """
        directories = directories_of(globs)
        if directories is None:
            return None
        return {name for path in directories for name in self._below(path, cost)}

    def close(self) -> None:
        """Close the connections to GitLab."""
        self._client.close()

    def _below(self, directory: str, cost: Cost) -> set[str]:
        """Return at least the repositories below a path."""
        for kind, path in _owners(directory):
            names = self._names(kind, path, cost)
            if names is not None:
                return names
        if self._has_token:
            raise NotFound(
                f"{self._host} shows neither a group nor a project {directory!r} to the owner of"
                " list_token: check the path and the owner's role, and if it is the namespace of a"
                " user, name the projects in it"
            )
        raise NotFound(self._without_token(directory))

    def _names(self, kind: str, path: str, cost: Cost) -> set[str] | None:
        """Return the repositories of a group or project. None if GitLab does not show it."""
        url = f"/api/v4/{kind}/{quote(path, safe='')}/registry/repositories"
        try:
            found = read_again_if_inconsistent(partial(self._read, url, path, cost))
        except (EndpointNotFound, NotFound):
            return None
        except (Forbidden, Unauthorized) as error:
            sentence = self._refused(path, error) if self._has_token else self._without_token(path)
            raise type(error)(sentence, status=error.status) from error
        return {row.name for row in found.rows}

    def _read(self, url: str, owner: str, cost: Cost) -> PagedRows:
        found = PagedRows(url)
        total: int | None = None
        query: str | None = urlencode({"per_page": PAGE})
        while query is not None:
            answer = cost.add(self._client.get(f"{url}?{query}", {}, cost.bytes_left))
            page: Sequence[_Repository] = decode_body(_decode, answer, "GitLab's API")
            for each in page:
                if not f"{each.path}/".startswith(f"{owner}/"):
                    raise MalformedResponse(
                        f"{answer.url} sent a repository that is not below {owner!r},"
                        f" {truncate(each.path)!r}"
                    )
            total = stated_total(answer, "X-Total")
            found.add((Row(each.path, None) for each in page), total)
            query = next_query(answer, unquote(url))
            if query is not None and not page:
                raise MalformedResponse(f"{answer.url} sent an empty page that is not the last one")
            if query is None and len(page) == PAGE and total != len(found.rows):
                # A proxy may have removed Link, so a full page is not believed to be the last one.
                query = urlencode({"per_page": PAGE, "page": found.pages + 1})
        names = {row.name for row in found.rows}
        if total not in {None, len(names)}:
            raise InconsistentListing(
                f"{url} has {total} rows, and its pages have {len(names)} names"
            )
        return found

    def _refused(self, path: str, error: RegistryError) -> str:
        if isinstance(error, Unauthorized):
            return (
                f"{self._host} does not accept list_token (status {error.status}): check that it is"
                " an access token of GitLab that has not expired"
            )
        return (
            f"list_token may not list the repositories of {path!r} at {self._host} (status"
            f" {error.status}): it needs the scope read_api, and its owner at least the role"
            " Reporter"
        )

    def _without_token(self, path: str) -> str:
        return (
            f"{self._host} does not list the repositories of {path!r} without a token: set"
            " list_token in [registries.auth] to an access token of GitLab with the scope read_api,"
            " whose owner has at least the role Reporter"
        )


def _owners(directory: str) -> Iterator[tuple[str, str]]:
    """Yield the groups and projects that may have the repositories below a path, and their kinds.

    A project is always in a group or in the namespace of a user. GitLab takes a number for the id
    of another group.
    """
    path = directory
    while path:
        if not path.isdecimal():
            yield "groups", path
        if "/" in path:
            yield "projects", path
        path = path.rpartition("/")[0]
