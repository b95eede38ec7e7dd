"""A registry's own list that only tests know: pages by number, with a total, and repositories."""

import re
from collections.abc import Sequence
from typing import ClassVar, Final, Self

import msgspec

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer as Sent
from tagsync.emulator.http import Request
from tagsync.emulator.oci.vendor import Contents, Vendor
from tagsync.registries.client import Client
from tagsync.registries.oci.lists.pages import PagedRows, read_again_if_inconsistent
from tagsync.registries.oci.lists.protocol import Access, NotOffered, Row, Rows, TagList
from tagsync.registries.oci.paging import Cost
from tagsync.registries.responses import decode_body

LIST: Final = re.compile(r"/plain/(.+)/list")
REPOSITORIES: Final = "/plain/repositories"


class Plain(Vendor):
    """The registry with this list.

    Attributes:
        size: The number of rows of a page.
        repositories: The names that the list of repositories has. None refuses the request.
    """

    def __init__(self, *, size: int = 10, repositories: Sequence[str] | None = None) -> None:
        self.size = size
        self.repositories = repositories

    def list_path(self, path: str) -> bool:
        return LIST.fullmatch(path) is not None

    def needs_token(self, path: str) -> bool:
        return False

    def respond(self, request: Request, contents: Contents) -> Sent | None:
        if request.path == REPOSITORIES:
            return json_answer(self.repositories, status=200 if self.repositories else 403)
        match = LIST.fullmatch(request.path)
        if match is None or (rows := contents.index(match[1])) is None:
            return None
        start = int(request.query["page"]) * self.size
        page = [[row.tag, row.digest] for row in rows[start : start + self.size]]
        return json_answer({"total": self.total(len(rows), start), "rows": page})

    def total(self, rows: int, start: int) -> int:
        """Return the total that a page states."""
        del start
        return rows


class _Page(msgspec.Struct):
    total: int
    rows: list[tuple[str, str | None]]


class PlainList(TagList):
    """The list of `Plain`. Its names come from ``tags/list``."""

    name: ClassVar[str] = "plain"

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    def detect(cls, access: Access, repository: str) -> Self | None:  # noqa: ARG003  the same for all
        return cls(access.client)

    def read(self, repository: str, cost: Cost) -> Rows:
        if repository.startswith("proxy/"):
            raise NotOffered(f"{repository} is a proxy")
        found = read_again_if_inconsistent(lambda: self._read(f"/plain/{repository}/list", cost))
        return Rows(found.rows, pages=found.pages)

    def _read(self, path: str, cost: Cost) -> PagedRows:
        found = PagedRows(path)
        total = 1
        while len(found.rows) < total:
            query = {"page": found.pages}
            answer = cost.add(self._client.get(path, query, cost.bytes_left))
            page = decode_body(msgspec.json.Decoder(_Page).decode, answer, "the API")
            found.add((Row(*row) for row in page.rows), page.total)
            total = page.total if page.rows else 0
        return found

    def list_repositories(self, globs: Sequence[str], cost: Cost) -> set[str] | None:
        del globs
        answer = cost.add(self._client.get(REPOSITORIES, {}, cost.bytes_left))
        return set(decode_body(msgspec.json.Decoder(list[str]).decode, answer, "the API"))
