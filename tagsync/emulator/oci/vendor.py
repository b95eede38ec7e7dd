"""The additions of a vendor to the emulated OCI registry, and the known faults of such lists."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, NamedTuple, Protocol

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request

_REPOSITORY: Final = re.compile(r"/(?:v2|v1/repositories|v1)/(.+?)/(?:tags|manifests|_tags)\b")
"""The paths of requests for one repository, its name as a group."""


class ListFault(StrEnum):
    """The faults of vendors' lists, as they were reported.

    These faults change the rows, so that every vendor has them:

    ==================  =====================================================================
    ``empty``           the list has no rows, and the status is 200
    ``cut``             the last third of the rows is missing without a sign
    ``null_digest``     every third row has no digest
    ``bad_digest``      every third row has a text of the wrong length instead of a digest
    ``wrong_digest``    every third row has the digest of another image
    ``frozen``          the list stays as it is when the fault begins: an index that lags, or a
                        second store that is not updated until the registry restarts
    ``no_signatures``   tags of signatures (``sha256-….sig``) are left out
    ==================  =====================================================================

    These change the body, so that every vendor has them, too:

    ==================  =====================================================================
    ``not_json``        200 with a page of HTML
    ``other_json``      200 with JSON, but not a list of tags
    ``refused``         403, as for a login that may pull but not list
    ``unavailable``     503
    ==================  =====================================================================

    Each vendor's module documents what the others do to its list:

    ==================  =====================================================================
    ``shifted``         a page begins a row too early, as after a push between two pages
    ``skipped``         a page begins a row too late, as after a deletion between two pages
    ``unordered``       the rows are not in the order that the list documents
    ``other_name``      the list says that it is of another repository
    ``future_end``      live tags have an end in the future
    ``dead_rows``       the list also has rows of tags as they were, which have ended
    ==================  =====================================================================
    """

    EMPTY = "empty"
    CUT = "cut"
    NULL_DIGEST = "null_digest"
    BAD_DIGEST = "bad_digest"
    WRONG_DIGEST = "wrong_digest"
    FROZEN = "frozen"
    NO_SIGNATURES = "no_signatures"
    NOT_JSON = "not_json"
    OTHER_JSON = "other_json"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    SHIFTED = "shifted"
    SKIPPED = "skipped"
    UNORDERED = "unordered"
    OTHER_NAME = "other_name"
    FUTURE_END = "future_end"
    DEAD_ROWS = "dead_rows"


class IndexRow(NamedTuple):
    """A tag as the vendor's list has it.

    Attributes:
        tag: The name of the tag.
        digest: The digest. None if the list does not have it.
        media_type: The media type of the manifest.
        size: The size of the image in bytes.
        created_at: When the tag was first pushed.
        updated_at: When the tag last moved to another image.
    """

    tag: str
    digest: str | None
    media_type: str
    size: int
    created_at: datetime
    updated_at: datetime


class Contents(Protocol):
    """The part of the emulated registry that a vendor uses. The emulator holds its lock."""

    @property
    def faults(self) -> frozenset[ListFault]:
        """The faults that are on."""

    def index(self, repository: str) -> Sequence[IndexRow] | None:
        """Return the rows of a repository's list by name, or None if it does not exist."""

    def repositories(self) -> Sequence[str]:
        """Return the names of all repositories, sorted."""

    def admits(self, authorization: str) -> bool:
        """Return whether a header ``Authorization`` permits to read the registry (Basic)."""


class Vendor(ABC):
    """A vendor's additions to the emulated registry.

    Attributes:
        realm_path: The path of the token server, at the registry's own host.
        service: The name of the registry in its challenges.
        takes_password: Whether the registry itself takes a user and a password, and no token.
    """

    realm_path: ClassVar[str] = "/token"
    service: ClassVar[str] = "registry"
    takes_password: ClassVar[bool] = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of each answer below ``/v2/``."""
        return {}

    @abstractmethod
    def list_path(self, path: str) -> bool:
        """Return whether a request with this path is for the vendor's list of tags.

        Faults of the body happen to these requests only.
        """

    @abstractmethod
    def respond(self, request: Request, contents: Contents) -> Answer | None:
        """Answer a request, or return None if it is not for the vendor."""

    def scope(self, path: str) -> str | None:
        """Return the scope that a challenge to a request with this path names, or None."""
        match = _REPOSITORY.search(path)
        return f"repository:{match[1]}:pull" if match else None

    def realm(self, host: str) -> str:
        """Return the URL of the token server for a registry at this host and port."""
        return f"http://{host}{self.realm_path}"

    def refuses_scope(self, scope: str) -> bool:
        """Return whether the token server does not know a scope, and answers 400."""
        del scope
        return False

    def needs_token(self, path: str) -> bool:
        """Return whether a request with this path needs the login of the registry."""
        return path.startswith("/v2/") or self.list_path(path)


def fault_answer(faults: frozenset[ListFault]) -> Answer | None:
    """Return the answer of a list whose body a fault replaces, or None without such a fault."""
    if ListFault.REFUSED in faults:
        return json_answer({"errors": [{"code": "DENIED", "message": "no"}]}, status=403)
    if ListFault.UNAVAILABLE in faults:
        return Answer(503, b"", {})
    if ListFault.NOT_JSON in faults:
        return Answer(200, b"<html>Please sign in</html>", {"Content-Type": "text/html"})
    if ListFault.OTHER_JSON in faults:
        return json_answer({"status": "ok"})
    return None
