"""Harbor: ``/api/v2.0/projects/<project>/repositories/<name>/artifacts``.

The API takes a user and a password, not a token, and treats a wrong password as an anonymous
request. A slash in a repository's name must be escaped twice. A repository that does not exist has
an empty list. Tags of signatures (``sha256-….sig``) are never listed. The catalogue is closed, as
it is for users who are not administrators. With the fault ``shifted``, each later page begins with
the last row of the page before it. An image whose digest is missing by ``null_digest`` is listed
without tags, as after an error of the database.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_API: Final = "/api/v2.0"
_LIST: Final = re.compile(r"/api/v2\.0/projects/([^/]+)/repositories/([^/]+)/artifacts")
_SIGNATURE: Final = re.compile(r"sha256-[0-9a-f]{64}\.sig")
_DEFAULT_PAGE: Final = 10
_MAX_PAGE: Final = 100
_NEVER: Final = "0001-01-01T00:00:00.000Z"


class Harbor(Vendor):
    """Harbor."""

    realm_path: ClassVar[str] = "/service/token"
    service: ClassVar[str] = "harbor-registry"

    def __init__(
        self, *, proxies: Sequence[str] = (), has_api: bool = True, may_list: bool = True
    ) -> None:
        """Set the registry up.

        Args:
            proxies: The projects that are proxies of another registry.
            has_api: Whether the registry has this API. Registries that imitate Harbor have not.
            may_list: Whether logins have the permission *List Artifact*. Without it, they still
                find projects and repositories.
        """
        self._proxies = frozenset(proxies)
        self._has_api = has_api
        self._may_list = may_list

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository."""
        return _LIST.fullmatch(path) is not None

    def needs_token(self, path: str) -> bool:
        """Return whether a request with this path needs the token of the registry."""
        return path.startswith("/v2/")

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request to the API, or for the catalogue."""
        path = request.path
        if path == "/v2/_catalog":
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="harbor"'})
        if not path.startswith("/api/"):
            return None
        if not self._has_api:
            return _error(404, "NOT_FOUND")
        if path == "/api/version":
            return json_answer({"version": "v2.0"})
        return self._read(request, contents)

    def _read(self, request: Request, contents: Contents) -> Answer:
        """Answer a request whose answer depends on the login."""
        path = request.path
        admitted = contents.admits(request.headers.get("Authorization", ""))
        if path == f"{_API}/systeminfo":
            version = {"harbor_version": "v2.16.0-0123456789"} if admitted else {}
            return json_answer({"auth_mode": "db_auth"} | version)
        if path == f"{_API}/projects":
            return self._projects(request, contents if admitted else None)
        if path == f"{_API}/repositories":
            return _repositories(request, contents if admitted else None)
        match = _LIST.fullmatch(path)
        if match is None or "/" in unquote(match[2]):  # escaped only once
            return _error(404, "NOT_FOUND")
        if not admitted or not self._may_list:
            return _error(403, "FORBIDDEN") if admitted else _error(401, "UNAUTHORIZED")
        return _artifacts(request, f"{match[1]}/{unquote(unquote(match[2]))}", contents)

    def _projects(self, request: Request, contents: Contents | None) -> Answer:
        """Answer a search for projects. Nothing is public, so that others find nothing."""
        names = {name.partition("/")[0] for name in (contents.repositories() if contents else ())}
        asked = request.query.get("q", "").removeprefix("name=")
        found: list[dict[str, Any]] = [{"name": name} for name in sorted(names) if name == asked]
        for project in found:
            if project["name"] in self._proxies:
                project["registry_id"] = 1
        return _page(request, found)


def _repositories(request: Request, contents: Contents | None) -> Answer:
    names = contents.repositories() if contents else ()
    part = request.query.get("q", "").removeprefix("name=~")
    return _page(request, [{"name": name, "pull_count": 0} for name in names if part in name])


def _artifacts(request: Request, repository: str, contents: Contents) -> Answer:
    images: dict[str | None, list[IndexRow]] = {}
    listed = (row for row in contents.index(repository) or () if not _SIGNATURE.fullmatch(row.tag))
    for row in sorted(listed, key=lambda row: row.created_at):
        images.setdefault(row.digest or f"sha256:{'0' * 64}", []).append(row)
    artifacts = [
        _artifact(number, digest, rows) for number, (digest, rows) in enumerate(images.items(), 1)
    ]
    return _page(request, artifacts, shifts=ListFault.SHIFTED in contents.faults)


def _artifact(number: int, digest: str | None, rows: Sequence[IndexRow]) -> dict[str, Any]:
    tags = [
        {"id": number, "name": row.tag, "push_time": _time(row.updated_at), "pull_time": _NEVER}
        for row in rows
        if row.digest is not None
    ]
    return {
        "id": number,
        "digest": digest,
        "manifest_media_type": rows[0].media_type,
        "size": rows[0].size,
        "push_time": _time(rows[0].created_at),
        "pull_time": _NEVER,
        "tags": tags or None,
    }


def _page(request: Request, items: Sequence[dict[str, Any]], *, shifts: bool = False) -> Answer:
    number = int(request.query.get("page", 1))
    size = int(request.query.get("page_size", _DEFAULT_PAGE))
    if not 1 <= size <= _MAX_PAGE:
        return _error(422, "UNPROCESSABLE_ENTITY")
    start = (number - 1) * size
    page = items[start - 1 if start and shifts else start : start + size]
    headers = {"X-Total-Count": str(len(items))}
    if start + size < len(items):
        headers["Link"] = f'<{request.path}?page={number + 1}&page_size={size}>; rel="next"'
    return json_answer(page, headers)


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    return json_answer({"errors": [{"code": code, "message": code.lower()}]}, headers, status)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
