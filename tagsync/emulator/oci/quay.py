"""Quay: ``/api/v1/repository/<name>/tag/``, its lists of repositories, and its proxies.

A token that is wrong or has expired counts as none, as Quay does it. The catalogue has nothing for
an anonymous user, and the token server knows no scope for it.

With the fault ``shifted``, each later page begins with the last row of the page before it. With
``future_end``, every second tag has an end in the future. With ``dead_rows``, the list also has the
rows that have ended, as older releases do.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, ClassVar, Final

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_LIST: Final = re.compile(r"/api/v1/repository/(.+)/tag/")
_PROXY: Final = re.compile(r"/api/v1/organization/([^/]+)/proxycache")
_CATALOG: Final = "/v2/_catalog"
_REPOSITORIES: Final = "/api/v1/repository"
_ERROR: Final = "/api/v1/error/invalid_token"
_DEFAULT_PAGE: Final = 50
_MAX_PAGE: Final = 100
_YEAR: Final = 365 * 86400


class Quay(Vendor):
    """Quay. Its API takes an OAuth token, and no token for images."""

    realm_path: ClassVar[str] = "/v2/auth"
    service: ClassVar[str] = "quay.example.com"

    def __init__(
        self,
        *,
        token: str | None = None,
        is_private: bool = False,
        is_member: bool = True,
        proxies: Sequence[str] = (),
        max_page: int = _MAX_PAGE,
    ) -> None:
        """Set the registry up.

        Args:
            token: The OAuth token that the API accepts. None accepts none.
            is_private: Whether the API shows repositories only for the OAuth token.
            is_member: Whether the owner of the OAuth token belongs to the organizations, and the
                token has a permission that comes with it, so that it may ask for a proxy.
            proxies: The organizations that are proxies. All of their tags expire.
            max_page: The maximum number of rows of a page.
        """
        self._token = token
        self._is_private = is_private
        self._is_member = is_member
        self._proxies = proxies
        self._max_page = max_page

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository."""
        return _LIST.fullmatch(path) is not None

    def needs_token(self, path: str) -> bool:
        """Return whether a request needs the token for images: the API does not take it."""
        return path.startswith("/v2/") and path != _CATALOG

    def refuses_scope(self, scope: str) -> bool:
        """Return whether a scope is of another kind than a repository."""
        return bool(scope) and not scope.startswith("repository:")

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request to the API, or an anonymous one for the catalogue."""
        if request.path == _CATALOG and "Authorization" not in request.headers:
            return json_answer({"repositories": []})
        return self._api(request, contents) if request.path.startswith("/api/v1/") else None

    def _api(self, request: Request, contents: Contents) -> Answer:
        path, sent = request.path, request.headers.get("Authorization", "")
        has_token = self._token is not None and sent == f"Bearer {self._token}"
        if match := _PROXY.fullmatch(path):
            return self._proxy(match[1], has_token=has_token)
        if path == _ERROR:
            return json_answer({"title": "invalid_token", "type": _ERROR, "description": "…"})
        if path == _REPOSITORIES:
            sees_all = has_token or not self._is_private
            return _repositories(request.query, contents, sees_all=sees_all, has_user=has_token)
        if self._is_private and not has_token:
            return _error(401, "invalid_token")
        return self._page(request, contents)

    def _proxy(self, organization: str, *, has_token: bool) -> Answer:
        if not has_token or not self._is_member:
            return _error(403 if has_token else 401, "insufficient_scope")
        upstream = "docker.io" if organization in self._proxies else ""
        return json_answer({"upstream_registry": upstream, "expiration_s": 86400})

    def _page(self, request: Request, contents: Contents) -> Answer:
        match = _LIST.fullmatch(request.path)
        index = contents.index(match[1]) if match else None
        if match is None or index is None:
            return _error(404, "not_found")
        is_proxy = match[1].partition("/")[0] in self._proxies
        rows = sorted(_rows(index, contents.faults, all_end=is_proxy), key=_newest_first)
        number = int(request.query.get("page", 1))
        size = min(int(request.query.get("limit", _DEFAULT_PAGE)), self._max_page)
        start = (number - 1) * size
        has_more = start + size < len(rows)
        shift = start > 0 and ListFault.SHIFTED in contents.faults
        page = rows[start - shift : start + size]
        return json_answer({"page": number, "has_additional": has_more, "tags": page})


def _repositories(
    query: Mapping[str, str], contents: Contents, *, sees_all: bool, has_user: bool
) -> Answer:
    """Answer with the repositories that the user may see, or with the starred ones: none."""
    if query.get("starred") == "true":
        return json_answer({"repositories": []}) if has_user else _error(400, "invalid_request")
    namespace = query.get("namespace", "")
    if not namespace:
        return _error(400, "invalid_request")
    names = [name.partition("/") for name in contents.repositories() if sees_all]
    found = [
        {"namespace": owner, "name": name, "is_public": True, "kind": "image"}
        for owner, _, name in names
        if owner == namespace
    ]
    return json_answer({"repositories": found})


def _rows(
    index: Sequence[IndexRow], faults: frozenset[ListFault], *, all_end: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list, before they are sorted."""
    for number, row in enumerate(index):
        fields = {
            "name": row.tag,
            "reversion": False,
            "start_ts": int(row.updated_at.timestamp()),
            "manifest_digest": row.digest,
            "is_manifest_list": False,
            "size": row.size,
        }
        if all_end or (ListFault.FUTURE_END in faults and not number % 2):
            fields["end_ts"] = int(row.updated_at.timestamp()) + _YEAR
        yield fields
        if ListFault.DEAD_ROWS in faults:
            ended = row.updated_at - timedelta(seconds=1)
            digest = f"sha256:{sha256(b'before ' + row.tag.encode()).hexdigest()}"
            times = {"start_ts": int(ended.timestamp()) - 60, "end_ts": int(ended.timestamp())}
            yield fields | times | {"manifest_digest": digest}


def _newest_first(row: dict[str, Any]) -> tuple[int, str]:
    return -row["start_ts"], row["name"]


def _error(status: int, kind: str) -> Answer:
    body = {"status": status, "error_type": kind, "title": kind, "error_message": kind}
    return json_answer(body, status=status)
