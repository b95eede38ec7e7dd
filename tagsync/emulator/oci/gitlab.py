"""GitLab's container registry: ``/gitlab/v1/repositories/<path>/tags/list/``.

With the fault ``shifted``, each later page begins with the last row of the page before it.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.gitlab_api import GitLabApi
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_LIST: Final = re.compile(r"/gitlab/v1/repositories/(.+)/tags/list/")
_CATALOG: Final = "/v2/_catalog"
_BASE: Final = "/gitlab/v1/"
_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 1000


class GitLab(Vendor):
    """GitLab's container registry."""

    realm_path: ClassVar[str] = "/jwt/auth"
    service: ClassVar[str] = "container_registry"

    def __init__(
        self,
        *,
        has_database: bool = True,
        max_page: int = _MAX_PAGE,
        api: GitLabApi | None = None,
    ) -> None:
        """Set the registry up.

        Args:
            has_database: Whether the registry has a metadata database. Without one it has no list.
            max_page: The maximum number of rows of a page.
            api: The API of GitLab, which is then at another host than the registry, whose catalogue
                is for administrators only. None for a registry alone, whose catalogue is open.
        """
        self._has_database = has_database
        self._max_page = max_page
        self._api = api

    def realm(self, host: str) -> str:
        """Return the URL of the token server, which is at the host of GitLab."""
        return super().realm(self._api.host(host) if self._api else host)

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository, or for a list of the API."""
        return _LIST.fullmatch(path) is not None or path.startswith("/api/")

    def needs_token(self, path: str) -> bool:
        """Return whether a request needs the token of the registry: the API does not take it."""
        return super().needs_token(path) and not path.startswith("/api/")

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request below the base path, to the API, or for the catalogue."""
        if request.path.startswith(_BASE):
            return self._list(request, contents)
        if self._api and request.path.startswith("/api/"):
            return self._api.respond(request, contents)
        if self._api and request.path == _CATALOG:
            return json_answer({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
        return None

    def _list(self, request: Request, contents: Contents) -> Answer:
        match = _LIST.fullmatch(request.path)
        if not self._has_database:
            return json_answer({"errors": [{"code": "NOT_FOUND"}]}, status=404)
        if match is None:
            return json_answer({}, status=200 if request.path == _BASE else 404)
        rows = contents.index(match[1])
        if rows is None:
            return json_answer({"errors": [{"code": "NAME_UNKNOWN"}]}, status=404)
        size = int(request.query.get("n", _DEFAULT_PAGE))
        if not 1 <= size <= _MAX_PAGE:
            code = "INVALID_QUERY_PARAMETER_VALUE"
            return json_answer({"errors": [{"code": code}]}, status=400)
        last = request.query.get("last", "")
        return self._page(request.path, rows, min(size, self._max_page), last, contents)

    def _page(
        self, path: str, rows: Sequence[IndexRow], size: int, last: str, contents: Contents
    ) -> Answer:
        start = sum(row.tag <= last for row in rows)
        page = rows[start : start + size]
        headers = {}
        if start + size < len(rows):
            headers["Link"] = f'<{path}?n={size}&last={page[-1].tag}>; rel="next"'
        if start and ListFault.SHIFTED in contents.faults:
            page = rows[start - 1 : start + size]
        return json_answer([_row(row) for row in page], headers)


def _row(row: IndexRow) -> dict[str, Any]:
    fields = {
        "name": row.tag,
        "digest": row.digest,
        "media_type": row.media_type,
        "size_bytes": row.size,
        "created_at": _time(row.created_at),
        "published_at": _time(row.updated_at),
    }
    if row.updated_at > row.created_at:
        fields["updated_at"] = _time(row.updated_at)
    return fields


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
