"""The API of GitLab beside its container registry: the repositories of groups and projects.

With the fault ``shifted``, each later page begins with the last row of the page before it; with
``skipped``, it lacks its first row; with ``cut``, the last third of the rows is missing, but the
total counts it.
"""

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci.vendor import Contents, ListFault

_LIST: Final = re.compile(r"/api/v4/(groups|projects)/([^/]+)/registry/repositories")
_HOST: Final = "localhost"
_DEFAULT_PAGE: Final = 20
_MAX_PAGE: Final = 100


class GitLabApi:
    """The API of a GitLab with some projects, at ``localhost`` instead of ``127.0.0.1``.

    A project has the repository with its path, and those below it. Each of its parents is a group.

    Attributes:
        projects: The full paths of the projects.
    """

    def __init__(
        self,
        *projects: str,
        token: str | None = None,
        public: Sequence[str] = (),
        foreign: Sequence[str] = (),
        users: Sequence[str] = (),
        max_page: int = _MAX_PAGE,
        has_totals: bool = True,
        links: str | None = "{url}",
    ) -> None:
        """Set GitLab up.

        Args:
            projects: The full paths of the projects.
            token: The access token that the API accepts. None accepts none.
            public: The groups and projects that GitLab shows to everybody.
            foreign: The groups in which the token's owner has no role.
            users: The parents of projects that are namespaces of users, and no groups.
            max_page: The maximum number of rows of a page.
            has_totals: Whether answers state totals, as for at most 10,000 rows.
            links: The target of links without its query: ``{url}`` is the right one, and ``{path}``
                its path. None sends no links.
        """
        self.projects = projects
        self._token = token
        self._public = frozenset(public)
        self._foreign = frozenset(foreign)
        self._users = frozenset(users)
        self._max_page = max_page
        self._has_totals = has_totals
        self._links = links

    def host(self, registry: str) -> str:
        """Return the host and port of GitLab, for those of the registry."""
        return registry.replace("127.0.0.1", _HOST)

    def respond(self, request: Request, contents: Contents) -> Answer:
        """Answer a request for the repositories of a group or a project."""
        match = _LIST.fullmatch(request.path)
        if match is None or not request.headers.get("Host", "").startswith(_HOST):
            return _error("404 Not Found", 404)
        token = request.headers.get("PRIVATE-TOKEN")
        if token is not None and token != self._token:
            return _error("401 Unauthorized", 401)
        kind, owner = match[1], unquote(match[2])
        refusal = self._refuse(kind, owner, has_token=token is not None)
        names = [name for name in contents.repositories() if self._has(kind, owner, name)]
        return refusal or self._page(request, names, contents.faults)

    def _refuse(self, kind: str, owner: str, *, has_token: bool) -> Answer | None:
        is_group = any(each.startswith(f"{owner}/") for each in self.projects)
        is_group = is_group and owner not in self._users
        exists = is_group if kind == "groups" else owner in self.projects
        is_member = has_token and not any(_is_below(owner, group) for group in self._foreign)
        if not exists or not (is_member or owner in self._public):
            return _error(f"404 {kind[:-1].title()} Not Found", 404)
        if kind == "groups" and not is_member:
            return _error("403 Forbidden", 403)
        return None

    def _has(self, kind: str, owner: str, repository: str) -> bool:
        """Return whether a repository is one of a group or a project."""
        projects = [each for each in self.projects if _is_below(repository, each)]
        return owner in projects if kind == "projects" else _is_below(repository, owner)

    def _page(self, request: Request, names: Sequence[str], faults: frozenset[ListFault]) -> Answer:
        number = int(request.query.get("page", 1))
        size = min(int(request.query.get("per_page", _DEFAULT_PAGE)), self._max_page)
        headers = {"X-Total": str(len(names))} if self._has_totals else {}
        if ListFault.EMPTY in faults:
            names, headers = [], {"X-Total": "0"}
        if ListFault.CUT in faults:
            names = names[: -(-2 * len(names) // 3)]
        start = (number - 1) * size
        if start + size < len(names) and self._links is not None:
            headers["Link"] = self._link(request, number, size)
        if start:
            start += (ListFault.SKIPPED in faults) - (ListFault.SHIFTED in faults)
        end = number * size
        return json_answer([_repository(name) for name in names[start:end]], headers)

    def _link(self, request: Request, number: int, size: int) -> str:
        url = f"http://{request.headers['Host']}{request.path}"
        target = (self._links or "").format(url=url, path=request.path)
        owner = request.path.split("/")[4]
        query = f"id={owner}&per_page={size}"
        links = {"next": number + 1, "first": 1}
        return ", ".join(
            f'<{target}?{query}&page={page}>; rel="{rel}"' for rel, page in links.items()
        )


def _is_below(path: str, owner: str) -> bool:
    return f"{path}/".startswith(f"{owner}/")


def _repository(path: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {"id": 7, "name": name, "path": path, "project_id": 9, "location": f"reg/{path}"}


def _error(message: str, status: int) -> Answer:
    return json_answer({"message": message}, status=status)
