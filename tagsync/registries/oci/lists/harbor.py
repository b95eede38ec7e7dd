"""The list of Harbor: ``/api/v2.0/projects/<project>/repositories/<name>/artifacts``.

The list has a row for each image, with its tags. It is read from the database that also answers
HEAD, but not in one transaction, and it leaves out signatures and whatever else refers to another
image. Its pages are counted from the beginning, so they shift if an image is deleted in the
meantime. A project that is a proxy of another registry lists only the images that were pulled
through it, and is therefore not read.

The API takes the user and the password of ``docker login``. It treats a wrong password as an
anonymous request, and a repository that does not exist as an empty one.

Sources: api/v2.0/swagger.yaml and src/server of goharbor/harbor.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, Self
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from tagsync.errors import Forbidden, MalformedResponse, Unauthorized
from tagsync.registries.oci.lists.auth import BasicLogin
from tagsync.registries.oci.lists.pages import (
    PagedRows,
    read_again_if_inconsistent,
    stated_total,
)
from tagsync.registries.oci.lists.protocol import Access, NotOffered, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import Answer, decode_body
from tagsync.secrets import Secret

PAGE: Final = 100
"""Number of rows to ask for per page: the maximum."""

_API: Final = "/api/v2.0"
_INTERFACE: Final = "Harbor's API"

_LITERAL: Final = re.compile(r"[a-z0-9._/-]*")
"""The beginning of a glob that Harbor can search for."""


class _Version(msgspec.Struct):
    version: str


class _Login(msgspec.Struct):
    harbor_version: str | None = None


class _Project(msgspec.Struct):
    name: str
    registry_id: int = 0


class _Tag(msgspec.Struct):
    name: str


class _Artifact(msgspec.Struct):
    digest: str
    manifest_media_type: str | None = None
    tags: list[_Tag] | None = None

    @property
    def rows(self) -> list[Row]:
        """A row for each tag of the image."""
        return [Row(tag.name, self.digest, self.manifest_media_type) for tag in self.tags or ()]


class _Repository(msgspec.Struct):
    name: str

    @property
    def rows(self) -> list[Row]:
        """A row with the name of the repository."""
        return [Row(self.name, None)]


_Page = Sequence[_Artifact] | Sequence[_Repository]

_decode_version = msgspec.json.Decoder(_Version).decode
_decode_login = msgspec.json.Decoder(_Login).decode
_decode_projects = msgspec.json.Decoder(list[_Project]).decode
_decode_artifacts = msgspec.json.Decoder(list[_Artifact] | None).decode
_decode_repositories = msgspec.json.Decoder(list[_Repository] | None).decode


class HarborList(TagList):
    """The list of Harbor."""

    name: ClassVar[str] = "harbor"

    def __init__(self, access: Access) -> None:
        """Prepare the list. No request is sent yet."""
        self._auth = BasicLogin(lambda: access.login(""))
        self._client = access.client.sibling(
            access.client.endpoint, self._auth, lambda: self._auth.secrets
        )

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        """Return the list if the registry is a Harbor with this version of the API.

        The API is at the host of the token server, which gets the user and the password anyway.
        """
        realm = urlsplit(access.realm)
        service = access.challenges.get("bearer", {}).get("service")
        if (realm.hostname, realm.path) != (access.host, "/service/token"):
            return None
        if service != "harbor-registry":
            return None
        answer = access.client.probe("/api/version")
        return cls(access) if _api_version(answer) == "v2.0" else None

    def read(self, repository: str, cost: Cost) -> Rows:
        """Return all rows of a repository's list.

        Raises:
            NotOffered: If the project is a proxy of another registry.
            Forbidden: If the login may not see the project.
            RegistryError: As for `TagList.read`.
        """
        project, _, name = repository.partition("/")
        self._check_project(project, cost)
        # Harbor decodes the path twice.
        escaped = quote(quote(name, safe=""), safe="")
        path = f"{_API}/projects/{quote(project)}/repositories/{escaped}/artifacts"
        query = {"with_tag": "true", "q": "tags=*", "sort": "id"}
        read = partial(self._read, path, query, _decode_artifacts, cost)
        found = read_again_if_inconsistent(read)
        return Rows(found.rows, pages=found.pages)

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str]:
        """Return the repositories that the login may see, as far as a glob may match them.

        Raises:
            Unauthorized: If Harbor does not accept the login.
            RegistryError: As for `TagList.list_repositories`.
        """
        self._check_login(cost)
        begins = {_literal_beginning(glob) for glob in globs}
        found: set[str] = set()
        for begin in {""} if "" in begins else begins:
            query = {"sort": "repository_id"} | ({"q": f"name=~{begin}"} if begin else {})
            path = f"{_API}/repositories"
            read = partial(self._read, path, query, _decode_repositories, cost)
            found |= {row.name for row in read_again_if_inconsistent(read).rows}
        return found

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The password, and its encoded form."""
        return self._auth.secrets

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _check_project(self, project: str, cost: Cost) -> None:
        """Check that a project has images of its own.

        The search for projects needs no permission of its own, so that robot accounts may use it.
        """
        query = {"q": f"name={project}", "with_detail": "false", "page_size": str(PAGE)}
        answer = cost.add(self._client.get(f"{_API}/projects", query, cost.bytes_left))
        projects = decode_body(_decode_projects, answer, _INTERFACE)
        found = next((each for each in projects if each.name == project), None)
        if found is None:
            raise Forbidden(f"{answer.url} does not show the project {project!r} to the login")
        if found.registry_id:
            raise NotOffered(
                f"the project {project!r} is a proxy of another registry, and its list has only the"
                " images that were pulled through it"
            )

    def _check_login(self, cost: Cost) -> None:
        """Check that Harbor accepts the login, if there is one.

        With a wrong password the list would silently have the public repositories only.
        """
        if not self._auth.is_set:
            return
        answer = cost.add(self._client.get(f"{_API}/systeminfo", {}, cost.bytes_left))
        if decode_body(_decode_login, answer, _INTERFACE).harbor_version is None:
            raise Unauthorized(
                f"{answer.url} does not accept the user and the password",
                status=httpx.codes.UNAUTHORIZED,
            )

    def _read(
        self,
        path: str,
        query: Mapping[str, str],
        decode: Callable[[bytes], _Page | None],
        cost: Cost,
    ) -> PagedRows:
        found = PagedRows(path)
        while True:
            numbers = {"page": found.pages + 1, "page_size": PAGE}
            answer = cost.add(self._client.get(path, {**query, **numbers}, cost.bytes_left))
            page = decode_body(decode, answer, _INTERFACE) or []
            total = stated_total(answer, "X-Total-Count")
            found.add((row for item in page for row in item.rows), total)
            is_last = total is not None and found.pages * PAGE >= total
            if is_last or len(page) < PAGE:
                return found


def _api_version(answer: Answer) -> str | None:
    """Return the version of the API that Harbor names, or None if it names none."""
    if answer.status != httpx.codes.OK:
        return None
    try:
        return decode_body(_decode_version, answer, _INTERFACE).version
    except MalformedResponse:
        return None


def _literal_beginning(glob: str) -> str:
    """Return the characters before the first one that is not literal, as far as Harbor takes it."""
    match = _LITERAL.match(glob)
    return match[0] if match else ""
