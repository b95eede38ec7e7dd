"""Docker Hub: the API at its second host, here ``localhost`` instead of ``127.0.0.1``.

The registry and the API refuse each other's tokens. With the fault ``shifted``, each later page
begins with the last row of the page before it; with ``skipped``, it lacks its first row; with
``unordered``, the times of the rows do not descend.
"""

import re
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, ClassVar, Final

import msgspec

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_TAGS: Final = re.compile(r"/v2/namespaces/([^/]+)/repositories/([^/]+)/tags")
_LOGIN: Final = "/v2/auth/token"
_API_HOST: Final = "localhost"
_DEFAULT_PAGE: Final = 10
_MAX_PAGE: Final = 100
_ANONYMOUS_ROWS: Final = 1000


class DockerHub(Vendor):
    """Docker Hub.

    Attributes:
        logins: Number of logins that were exchanged for a token, or refused.
    """

    service: ClassVar[str] = "registry.docker.io"

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        max_page: int = _MAX_PAGE,
        anonymous_rows: int = _ANONYMOUS_ROWS,
    ) -> None:
        """Set the registry up.

        Args:
            users: The passwords of the users that the API gives a token, by name.
            max_page: The maximum number of rows of a page.
            anonymous_rows: The number of rows that the API shows without a token.
        """
        self.logins = 0
        self._users = users or {}
        self._max_page = max_page
        self._anonymous_rows = anonymous_rows
        self._tokens: set[str] = set()

    def expire_tokens(self) -> None:
        """Let all tokens of the API expire."""
        self._tokens.clear()

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository."""
        return _TAGS.fullmatch(path) is not None

    def needs_token(self, path: str) -> bool:
        """Return whether a request needs the token of the registry: the API does not take it."""
        return path.startswith("/v2/") and not _is_api(path)

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request to the API."""
        if not _is_api(request.path):
            return None
        if request.headers.get("Host", "").partition(":")[0] != _API_HOST:
            return _error(404, "page not found")
        if request.path == _LOGIN:
            return self._log_in(request)
        sent = request.headers.get("Authorization", "")
        if sent and sent.removeprefix("Bearer ") not in self._tokens:
            return _error(401, "unauthorized")
        if match := _TAGS.fullmatch(request.path):
            index = contents.index(f"{match[1]}/{match[2]}")
            items = None if index is None else _tags(index, contents.faults)
        else:
            items = _repositories(request.path.split("/")[3], contents.repositories())
        if not items:
            return _error(404, "object not found") if items is None else _page(request, [], 0, 1)
        return self._cut(request, items, contents.faults, is_anonymous=not sent)

    def _log_in(self, request: Request) -> Answer:
        self.logins += 1
        body = msgspec.json.decode(request.body)
        password = self._users.get(body["identifier"])
        if request.method != "POST" or password is None or password != body["secret"]:
            return _error(401, "incorrect authentication credentials")
        token = secrets.token_hex(16)
        self._tokens.add(token)
        return json_answer({"access_token": token})

    def _cut(
        self,
        request: Request,
        items: Sequence[dict[str, Any]],
        faults: frozenset[ListFault],
        *,
        is_anonymous: bool,
    ) -> Answer:
        """Return one page."""
        size = min(int(request.query.get("page_size", _DEFAULT_PAGE)), self._max_page)
        start = (int(request.query.get("page", 1)) - 1) * size
        if start >= self._anonymous_rows and is_anonymous:
            return _error(403, "pagination offset too large for anonymous requests")
        if start >= len(items):
            return _error(404, "object not found")
        first = start
        if start:
            first += (ListFault.SKIPPED in faults) - (ListFault.SHIFTED in faults)
        return _page(request, items[first : start + size], len(items), start + size)


def _page(request: Request, items: Sequence[dict[str, Any]], count: int, end: int) -> Answer:
    query = request.query
    number = int(query.get("page", 1)) + 1
    url = f"http://{request.headers['Host']}{request.path}"
    following = f"{url}?page={number}&page_size={query.get('page_size', _DEFAULT_PAGE)}"
    answer = {"count": count, "next": following if end < count else None, "previous": None}
    headers = {"X-RateLimit-Limit": "180", "X-RateLimit-Remaining": "100"}
    return json_answer({**answer, "results": list(items)}, headers)


def _is_api(path: str) -> bool:
    return path.startswith("/v2/namespaces/") or path == _LOGIN


def _tags(index: Sequence[IndexRow], faults: frozenset[ListFault]) -> list[dict[str, Any]]:
    """Return the rows of a repository's tags, the newest first."""
    items = [_tag(row) for row in sorted(index, key=lambda row: row.updated_at, reverse=True)]
    if ListFault.UNORDERED in faults:
        items.sort(key=lambda item: b64encode(item["name"].encode())[::-1])
    return items


def _tag(row: IndexRow) -> dict[str, Any]:
    updated = row.updated_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    platform = {"architecture": "arm64", "os": "linux", "digest": f"sha256:{'9' * 64}"}
    return {
        "name": row.tag,
        "last_updated": updated,
        "tag_last_pushed": updated,
        "tag_status": "active",
        "full_size": row.size,
        "v2": True,
        "media_type": "application/vnd.docker.container.image.v1+json",
        "content_type": "image",
        "digest": row.digest,
        "images": [{**platform, "size": row.size, "status": "active"}],
    }


def _repositories(namespace: str, names: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the rows of a namespace's repositories, or None if it has none."""
    split = [name.partition("/") for name in names]
    return [
        {"name": name, "namespace": owner, "repository_type": "image", "is_private": False}
        for owner, _, name in split
        if owner == namespace
    ] or None


def _error(status: int, message: str) -> Answer:
    return json_answer({"message": message, "errinfo": {}}, status=status)
