"""zot with the search extension: ``/v2/_zot/ext/search``.

The registry takes a user and a password, not a token. Tags of signatures (``sha256-…``) are not
listed. With the fault ``frozen``, the list is that of a second store until the fault ends, as after
a change of the storage until zot restarts. With ``other_name``, the rows have the name of another
repository.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, IndexRow, ListFault, Vendor

_DISCOVER: Final = "/v2/_oci/ext/discover"
_SEARCH: Final = "/v2/_zot/ext/search"
_QUERY: Final = re.compile(r'\{ImageList\(repo:"([^"]*)"\)\{Results\{([A-Za-z ]+)\}\}\}')
_SIGNATURE: Final = re.compile(r"sha256-[0-9a-f]{64}(\.sig)?")


class Zot(Vendor):
    """zot with the search extension."""

    takes_password: ClassVar[bool] = True

    def __init__(self, *, has_search: bool = True) -> None:
        """Set the registry up.

        Args:
            has_search: Whether the search extension is enabled.
        """
        self._has_search = has_search

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of each answer below ``/v2/`` but refusals."""
        return {
            "Access-Control-Allow-Methods": "GET,OPTIONS",
            "Access-Control-Allow-Headers": "Authorization,content-type,X-ZOT-API-CLIENT",
        }

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the list of a repository."""
        return path == _SEARCH

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request for a list, or for the extensions."""
        if request.path == _DISCOVER:
            endpoints = [_SEARCH] if self._has_search else ["/v2/_zot/ext/mgmt"]
            extension = {"name": "_zot", "url": "", "description": "", "endpoints": endpoints}
            return json_answer({"extensions": [extension]})
        if request.path != _SEARCH or not self._has_search:
            return None
        match = _QUERY.fullmatch(request.query.get("query", ""))
        if match is None:
            return json_answer({"errors": [{"message": "syntax"}], "data": None}, status=422)
        name, fields = match[1], match[2].split()
        shown = "team/another" if ListFault.OTHER_NAME in contents.faults else name
        rows = [row for row in contents.index(name) or () if not _SIGNATURE.fullmatch(row.tag)]
        results = [{field: _fields(shown, row)[field] for field in fields} for row in rows]
        return json_answer({"data": {"ImageList": {"Results": results}}})


def _fields(repository: str, row: IndexRow) -> dict[str, Any]:
    return {
        "RepoName": repository,
        "Tag": row.tag,
        "Digest": row.digest,
        "MediaType": row.media_type,
    }
