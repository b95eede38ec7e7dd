"""The list of GitLab's container registry: ``/gitlab/v1/repositories/<path>/tags/list/``.

The list has a row for each tag, read from the metadata database that also answers HEAD. It is
therefore the list of names as well. Its pages are keyed by name, so that a tag which exists
throughout is on exactly one of them. Registries without a metadata database answer 404.
The repositories come from the API of GitLab itself, see `gitlab_groups`.

Source: doc/spec/gitlab/api.md of gitlab-org/container-registry, "List Repository Tags".
"""

from collections.abc import Sequence
from typing import ClassVar, Final, Self
from urllib.parse import urlencode, urlsplit

import msgspec

from tagsync.registries.client import Client
from tagsync.registries.oci.links import next_query
from tagsync.registries.oci.lists.gitlab_groups import REALM_PATH, GitLabGroups
from tagsync.registries.oci.lists.pages import PagedRows, read_again_if_inconsistent
from tagsync.registries.oci.lists.protocol import Access, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import decode_body, transient_error

PAGE: Final = 1000
"""Number of rows to ask for per page: the maximum."""

_AVAILABLE: Final = frozenset({200, 401})
"""Statuses of the base path if the registry has this API."""


class _Tag(msgspec.Struct):
    name: str
    digest: str | None = None
    media_type: str | None = None


_decode = msgspec.json.Decoder(list[_Tag]).decode


class GitLabList(TagList):
    """The list of GitLab's container registry."""

    name: ClassVar[str] = "gitlab"

    def __init__(self, client: Client, groups: GitLabGroups | None, *, has_tags: bool) -> None:
        """Prepare the list. No request is sent yet.

        Args:
            client: The registry's client.
            groups: The lists of repositories. None if the registry does not name its GitLab.
            has_tags: Whether the registry has a metadata database, and so the list of tags.
        """
        self._client = client
        self._groups = groups
        self.has_tags = has_tags

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the registry is GitLab's and has a list of tags or repositories.

        Raises:
            RegistryError: If the registry cannot say at the moment whether it has a list of tags.
        """
        is_gitlab = urlsplit(access.realm).path.endswith(REALM_PATH) or any(
            name.startswith("gitlab-container-registry") for name in access.base.headers
        )
        if not is_gitlab:
            return None
        answer = access.client.probe("/gitlab/v1/")
        if error := transient_error(answer.status):
            raise error(f"{answer.url} answered {answer.status}", status=answer.status)
        has_tags = answer.status in _AVAILABLE
        groups = GitLabGroups.of(access)
        return cls(access.client, groups, has_tags=has_tags) if has_tags or groups else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list, which are all of its tags."""

        def read() -> PagedRows:
            return self._read(f"/gitlab/v1/repositories/{repository}/tags/list/", cost)

        found = read_again_if_inconsistent(read)
        return Rows(found.rows, [row.name for row in found.rows], found.pages)

    def _read(self, path: str, cost: Cost) -> PagedRows:
        found = PagedRows(path)
        query: str | None = urlencode({"n": PAGE})
        while query is not None:
            answer = cost.add(self._client.get(f"{path}?{query}", {}, cost.bytes_left))
            page: Sequence[_Tag] = decode_body(_decode, answer, "GitLab's registry API")
            found.add(Row(tag.name, tag.digest, tag.media_type) for tag in page)
            query = next_query(answer, path)
            if query is None and len(page) == PAGE:
                # A proxy may have removed Link, so a full page is not believed to be the last one.
                query = urlencode({"n": PAGE, "last": page[-1].name})
        return found

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        """Return the repositories of the groups and projects that the globs name.

        Returns:
            None if a glob names neither, or if the registry does not name its GitLab.
        """
        return self._groups.list_repositories(globs, cost) if self._groups else None

    def close(self) -> None:
        """Close the connections to GitLab."""
        if self._groups:
            self._groups.close()
