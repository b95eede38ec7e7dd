"""The paged lists of the emulated registry: tags, organizations and repositories."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from tagsync.emulator.answers import Refusal, bad_request, json_answer, registry_error
from tagsync.emulator.faults import TRUTH, Faults, Lie, Page
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.repositories import EmulatedRepository, Repositories, TagRow

_RowT = TypeVar("_RowT", TagRow, EmulatedRepository)
_SortKeys = Mapping[str, Callable[[_RowT], Any]]

# The sort key for each value of `order_column`. The first value is the default. If the request has
# no `order_type`, the order is descending.
_TAG_SORT_KEYS: Final[_SortKeys[TagRow]] = {
    "updated_at": lambda row: str(row.fields["updated"] or ""),
    "tag": lambda row: str(row.fields["Tag"]),
}
_REPOSITORY_SORT_KEYS: Final[_SortKeys[EmulatedRepository]] = {
    "updated_time": lambda repository: repository.updated_at,
    "name": lambda repository: repository.name,
    "tag_count": lambda repository: len(repository.rows),
}


class Paging(NamedTuple):
    """How the server splits lists into pages.

    Attributes:
        max_page: The maximum number of rows of a page.
        default_page: The number of rows of a page if the request has no ``limit``.
        sends_total: Whether an answer has the header ``Content-Range``.
        ignored: Whether the server ignores ``offset`` and ``limit`` and sends all rows.
    """

    max_page: int
    default_page: int
    sends_total: bool
    ignored: bool


class Lists:
    """The handlers of requests for lists."""

    def __init__(self, repositories: Repositories, faults: Faults, paging: Paging) -> None:
        self._repositories = repositories
        self._faults = faults
        self._paging = paging

    def tags(self, request: Request, namespace: str, name: str) -> Answer:
        """Answer a request for the tags of a repository.

        Raises:
            Refusal: If the repository does not exist, or a parameter is wrong.
        """
        repository = self._repositories.get(f"{namespace}/{name.replace('$', '/')}")
        if repository is None:
            raise Refusal(self._not_found(namespace))
        tag_filter = request.query.get("tag")
        lie = self._draw_lie(repository, request.query)
        if lie.vanished:
            raise Refusal(self._not_found(namespace))
        listed = repository.rows if lie.rows is None else lie.rows
        rows = [row for tag, row in listed.items() if tag_filter in {None, tag}]
        rows = [row for row in rows if row.fields["Tag"] not in lie.hidden]
        page, headers = self._page(rows, request.query, _TAG_SORT_KEYS, lie)
        return Answer(200, b"[" + b",".join(row.encoded for row in page) + b"]", headers)

    def namespaces(self, request: Request) -> Answer:
        """Answer a request for the organizations."""
        name_filter = request.query.get("namespace")
        namespaces = [
            {"id": number, "name": name, "creator_name": "emulator", "auth": 7}
            for name, number in self._repositories.organizations.items()
            if name_filter in {None, name}
        ]
        return json_answer({"namespaces": namespaces})

    def repositories(self, request: Request) -> Answer:
        """Answer a request for the account's own repositories.

        Raises:
            Refusal: If a parameter is wrong.
        """
        namespace = request.query.get("namespace")
        return self._repository_list(
            request,
            [each for each in self._repositories if namespace in {None, each.namespace}],
            shared=False,
        )

    def shared_repositories(self, request: Request) -> Answer:
        """Answer a request for the repositories that other accounts share.

        Raises:
            Refusal: If a parameter is wrong.
        """
        center = request.query.get("center")
        if center not in {"self", "thirdparty"}:
            raise Refusal(bad_request("center must be self or thirdparty"))
        # `self` lists the repositories that this account shares with others. The emulated account
        # shares none.
        rows = list(self._repositories) if center == "thirdparty" else []
        return self._repository_list(request, rows, shared=True)

    def _repository_list(
        self, request: Request, rows: Sequence[EmulatedRepository], *, shared: bool
    ) -> Answer:
        name_part = request.query.get("name", "")
        found = [each for each in rows if each.shared == shared and name_part in each.name]
        page, headers = self._page(found, request.query, _REPOSITORY_SORT_KEYS)
        return json_answer([each.fields(len(found)) for each in page], headers)

    def _not_found(self, namespace: str) -> Answer:
        known = self._repositories.has_namespace(namespace)
        code, missing = ("4040010", "repository") if known else ("4040058", "organization")
        return registry_error(404, f"SVCSTG.SWR.{code}", f"the {missing} does not exist")

    def _draw_lie(self, repository: EmulatedRepository, query: Mapping[str, str]) -> Lie:
        offset, size = 0, None
        if not self._paging.ignored:
            offset, limit = _window(query, self._paging.default_page)
            size = min(limit, self._paging.max_page)
        page = Page(
            repository.full_name,
            repository.rows.keys(),
            offset,
            size,
            sends_total=self._paging.sends_total,
            earlier=repository.earlier,
        )
        return self._faults.draw_lie(page)

    def _page(
        self,
        rows: Sequence[_RowT],
        query: Mapping[str, str],
        sort_keys: _SortKeys[_RowT],
        lie: Lie = TRUTH,
    ) -> tuple[Sequence[_RowT], Mapping[str, str]]:
        """Return the rows of the requested page, and the header ``Content-Range``."""
        ordered = _ordered(rows, query, sort_keys)
        if self._paging.ignored:
            return ordered, {}
        offset, limit = _window(query, self._paging.default_page)
        start = offset + lie.shift
        size = min(limit, self._paging.max_page, limit if lie.cap is None else lie.cap)
        page = ordered[start : start + size]
        content_range = {"Content-Range": f"{offset}-{len(page)}/{len(rows) + lie.total_error}"}
        return page, content_range if self._paging.sends_total else {}


def _ordered(
    rows: Sequence[_RowT], query: Mapping[str, str], sort_keys: _SortKeys[_RowT]
) -> list[_RowT]:
    _require_both_or_neither(query, "order_column", "order_type")
    column = query.get("order_column", next(iter(sort_keys)))
    order_type = query.get("order_type", "desc")
    if column not in sort_keys:
        raise Refusal(bad_request(f"order_column must be one of {', '.join(sort_keys)}"))
    if order_type not in {"asc", "desc"}:
        raise Refusal(bad_request("order_type must be asc or desc"))
    key = sort_keys[column]
    return sorted(rows, key=lambda row: (key(row), row.sort_id), reverse=order_type == "desc")


def _window(query: Mapping[str, str], default_page: int) -> tuple[int, int]:
    """Return the requested offset and limit, in rows."""
    _require_both_or_neither(query, "offset", "limit")
    numbers = query.get("offset", "0"), query.get("limit", str(default_page))
    # The vendor's integers might have no room for a number with more digits.
    if not all(re.fullmatch("[0-9]{1,9}", number) for number in numbers):
        raise Refusal(bad_request("offset and limit must be numbers"))
    offset, limit = map(int, numbers)
    if limit == 0 or offset % limit:
        raise Refusal(bad_request("offset must be 0 or a multiple of limit"))
    return offset, limit


def _require_both_or_neither(query: Mapping[str, str], one: str, other: str) -> None:
    if (one in query) != (other in query):
        raise Refusal(bad_request(f"{one} and {other} must be used together"))
