"""Google Artifact Registry: the map ``manifest`` in ``tags/list``.

The registry does not page: it cuts the answer at ``limit`` tags. With the fault ``other_name``, the
list has the name of another repository.
"""

import re
from typing import Any, ClassVar, Final

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, ListFault, Vendor

_LIST: Final = re.compile(r"/v2/(.+)/tags/list")
LIMIT: Final = 10_000
"""The number of tags at which the real registry cuts its answer."""


class Google(Vendor):
    """Google Artifact Registry."""

    realm_path: ClassVar[str] = "/v2/token"
    service: ClassVar[str] = "registry.example.com"

    def __init__(self, *, limit: int = LIMIT) -> None:
        """Set the registry up.

        Args:
            limit: The number of tags at which the answer is cut.
        """
        self._limit = limit

    def list_path(self, path: str) -> bool:
        """Return whether a request is for the tags of a repository."""
        return _LIST.fullmatch(path) is not None

    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request for the tags of a repository."""
        match = _LIST.fullmatch(request.path)
        if match is None or (rows := contents.index(match[1])) is None:
            return None
        shown = rows[: min(self._limit, int(request.query.get("n", self._limit)))]
        manifests: dict[str, dict[str, Any]] = {}
        for row in shown:
            entry = {
                "imageSizeBytes": str(row.size),
                "layerId": "",
                "mediaType": row.media_type,
                "tag": [],
                "timeCreatedMs": str(int(row.created_at.timestamp() * 1000)),
                "timeUploadedMs": str(int(row.updated_at.timestamp() * 1000)),
            }
            if row.digest is not None:
                manifests.setdefault(row.digest, entry)["tag"].append(row.tag)
        other = ListFault.OTHER_NAME in contents.faults
        name = "project/another" if other else match[1]
        tags = [row.tag for row in shown]
        return json_answer({"child": [], "manifest": manifests, "name": name, "tags": tags})
