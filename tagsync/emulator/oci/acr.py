"""Azure Container Registry: ``/acr/v1/<name>/_tags``.

The scope ``metadata_read`` permits lists of tags, and ``pull`` permits manifests. A full page has a
link to the next one even if it is the last one; the next one then has no ``tags``. With the fault
``shifted``, each later page begins with the last row of the page before it. With ``other_name``,
the list has the name of another repository.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote, urlencode

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_LIST: Final = re.compile(r"/acr/v1/(.+)/_tags")
_MANIFEST: Final = re.compile(r"/v2/(.+)/manifests/[^/]+")
_TAGS: Final = re.compile(r"/v2/(.+)/tags/list")
_DEFAULT_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_EDITABLE: Final = {
    "deleteEnabled": True,
    "writeEnabled": True,
    "readEnabled": True,
    "listEnabled": True,
}


class Acr(Vendor):
    """Azure Container Registry."""

    realm_path: ClassVar[str] = "/oauth2/token"
    service: ClassVar[str] = "registry.example.com"

    def __init__(self, *, max_page: int = _MAX_PAGE) -> None:
        """Set the registry up.

        Args:
            max_page: The maximum number of rows of a page. The registry cuts larger numbers.
        """
        self._max_page = max_page

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of each answer below ``/v2/``."""
        return {"X-Ms-Correlation-Request-Id": "00000000-0000-0000-0000-000000000000"}

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository."""
        return _LIST.fullmatch(path) is not None

    def scope(self, path: str) -> str | None:
        """Return the scope that a challenge to a request with this path names, or None."""
        if match := _LIST.fullmatch(path) or _TAGS.fullmatch(path):
            return f"repository:{match[1]}:metadata_read"
        match = _MANIFEST.fullmatch(path)
        return f"repository:{match[1]}:pull" if match else None

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request for a list."""
        match = _LIST.fullmatch(request.path)
        if match is None:
            return None
        name = unquote(match[1])
        rows = contents.index(name)
        if rows is None or "/" in match[1]:  # a slash in a name must be escaped
            return json_answer({"errors": [{"code": "NAME_UNKNOWN"}]}, status=404)
        size = min(int(request.query.get("n", _DEFAULT_PAGE)), self._max_page)
        return _page(name, rows, size, request.query.get("last", ""), contents)


def _page(name: str, rows: Sequence[IndexRow], size: int, last: str, contents: Contents) -> Answer:
    start = sum(row.tag <= last for row in rows)
    page = rows[start : start + size]
    headers = {}
    if len(page) == size:
        query = urlencode({"last": page[-1].tag, "n": size, "orderby": ""})
        headers["Link"] = f'</acr/v1/{quote(name, safe="")}/_tags?{query}>; rel="next"'
    if start and ListFault.SHIFTED in contents.faults:
        page = rows[start - 1 : start + size]
    shown = "team/another" if ListFault.OTHER_NAME in contents.faults else name
    body: dict[str, Any] = {"registry": Acr.service, "imageName": shown}
    if page:
        body["tags"] = [_row(row) for row in page]
    return json_answer(body, headers)


def _row(row: IndexRow) -> dict[str, Any]:
    fields = {
        "name": row.tag,
        "createdTime": _time(row.created_at),
        "lastUpdateTime": _time(row.updated_at),
        "signed": False,
        "changeableAttributes": _EDITABLE,
    }
    return fields if row.digest is None else {**fields, "digest": row.digest}


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"
