"""GitLab's lists of repositories: what is requested where, and what each fault leads to."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import GitLab, GitLabApi, ListFault, OciEmulator
from tagsync.errors import Unauthorized
from tagsync.registries.credentials import BasicCredential
from tagsync.registries.oci.lists.gitlab import GitLabList
from tagsync.registries.oci.lists.gitlab_groups import GitLabGroups
from tagsync.registries.oci.lists.namespaces import directories_of
from tagsync.registries.oci.lists.vendor import LISTS
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, Open, access_at, fill

pytestmark = pytest.mark.processes

TOKEN = "made-up-access-token"
LIST_TOKEN = Secret(TOKEN)
LOGIN = BasicCredential("reader", Secret("made-up-password"))
PROJECTS = ("team/app", "team/sub/web", "team/sub/web-old", "other/app")
NAMES = ("team/app", "team/app/img", "team/sub/web", "team/sub/web/img/x", "team/sub/web-old")
TEAM = "/api/v4/groups/team/registry/repositories"


def api(**settings: Any) -> GitLabApi:
    """Return the API of a GitLab with the projects of this module."""
    return GitLabApi(*PROJECTS, **{"token": TOKEN, **settings})


def push_all(emulator: OciEmulator) -> None:
    """Push an image to each repository, and to one of another group."""
    for name in (*NAMES, "other/app"):
        fill(emulator, 1, name)


def to_api(emulator: OciEmulator) -> list[Request]:
    """Return the requests to GitLab's API."""
    return [request for request in emulator.requests if request.path.startswith("/api/")]


def failure(registry: ListedRegistry, glob: str = "team/*") -> str:
    """Return the sentence with which the expansion of a glob fails."""
    with pytest.raises(Unauthorized) as caught:
        registry.oci.list_repositories([glob])
    return str(caught.value)


def below(*parts: str) -> set[str]:
    """Return the names that begin with one of the texts."""
    return {name for name in NAMES if name.startswith(parts)}


@pytest.mark.parametrize(
    ("globs", "found", "asked"),
    [
        (["team/*"], set(NAMES), ["groups/team"]),
        (["team/a*"], below("team/app"), ["groups/team"]),
        (["team/sub/*"], below("team/sub/"), ["groups/team%2Fsub"]),
        (["team/app/*"], {"team/app/img"}, ["groups/team%2Fapp", "projects/team%2Fapp"]),
        (
            ["team/sub/web/img/*"],
            {"team/sub/web/img/x"},
            [
                "groups/team%2Fsub%2Fweb%2Fimg",
                "projects/team%2Fsub%2Fweb%2Fimg",
                "groups/team%2Fsub%2Fweb",
                "projects/team%2Fsub%2Fweb",
            ],
        ),
        (["team/none/*"], set(), ["groups/team%2Fnone", "projects/team%2Fnone", "groups/team"]),
        (
            ["other/*", "team/[s]ub/*"],
            below("team/sub/") | {"other/app"},
            ["groups/other", "groups/team"],
        ),
    ],
)
def test_globs_are_expanded_by_groups_and_projects(
    listed: Open, globs: list[str], found: set[str], asked: list[str]
) -> None:
    """The path before the first wildcard is asked for as a group, then a project, then above."""
    with OciEmulator(GitLab(api=api())) as emulator:
        push_all(emulator)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(globs) == found
        expected = [f"/api/v4/{each}/registry/repositories" for each in asked]
        assert [request.path for request in to_api(emulator)] == expected


def test_list_token_goes_to_gitlab_only(listed: Open) -> None:
    """GitLab gets the token and no login, and the registry the login and no token."""
    users = {LOGIN.username: LOGIN.password.reveal()}
    with OciEmulator(GitLab(api=api()), users=users) as emulator:
        push_all(emulator)
        registry = listed(emulator, credential=LOGIN, list_token=LIST_TOKEN)
        registry.oci.list_repositories(["team/*"])
        registry.poll("team/app")
        lists = to_api(emulator)
        assert all(r.headers.get("PRIVATE-TOKEN") == TOKEN for r in lists)
        assert all("Authorization" not in r.headers for r in lists)
        others = [r for r in emulator.requests if r not in lists]
        assert others
        assert TOKEN not in str([dict(r.headers.items()) for r in others])


@pytest.mark.parametrize(
    ("endpoint", "realm", "url"),
    [
        ("https://r.example.com", "https://gl.example.com/jwt/auth", "https://gl.example.com"),
        ("https://r.example.com", "https://e.com:8443/gl/jwt/auth", "https://e.com:8443/gl"),
        (
            "https://r.example.com:5050",
            "http://r.example.com/jwt/auth",
            "https://r.example.com:5050",
        ),
        ("http://127.0.0.1:5000", "http://127.0.0.1/jwt/auth", "http://127.0.0.1"),
        ("https://r.example.com", "http://gl.example.com/jwt/auth", None),
        ("https://r.example.com", "http://127.0.0.1/jwt/auth", None),
        ("https://r.example.com", "https://gl.example.com/auth", None),
        ("https://r.example.com", "https://u:p@gl.example.com/jwt/auth", None),
        ("https://r.example.com", "https://:x/jwt/auth", None),
        ("https://r.example.com", "", None),
    ],
)
def test_gitlab_is_at_the_host_of_the_token_server(
    clock: FakeClock, endpoint: str, realm: str, url: str | None
) -> None:
    """The API is beside GitLab's token server, with TLS unless all is on this machine."""
    challenge = f'Bearer realm="{realm}",service="container_registry"'
    found = GitLabGroups.of(access_at(endpoint, clock, WWW_Authenticate=challenge))
    assert (found and found.url) == url
    if found:
        found.close()


def test_realm_that_is_no_url_is_no_vendors(clock: FakeClock) -> None:
    """A registry that names something else than a URL as its token server has no list."""
    access = access_at("https://r.example.com", clock, WWW_Authenticate='Bearer realm="https://["')
    assert not any(kind.detect(access, REPOSITORY) for kind in LISTS)


def test_groups_need_no_metadata_database(listed: Open, logged: list[dict[str, Any]]) -> None:
    """A registry without a list of tags has the lists of repositories, and no line about tags."""
    with OciEmulator(GitLab(api=api(), has_database=False)) as emulator:
        push_all(emulator)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["team/*"]) == set(NAMES)
        assert registry.poll("team/app").source == "head"
        use = registry.oci.list_use("team/app")
        assert (use.source, use.offered) == ("head", False)
        assert not [r for r in emulator.requests if r.path.startswith("/gitlab/v1/repositories/")]
    assert not [each for each in logged if each["event"] == "list.unused"]


def test_without_a_token_public_projects_are_listed(listed: Open) -> None:
    """A public project needs no token, whatever the login; a public group does."""
    users = {LOGIN.username: LOGIN.password.reveal()}
    vendor = GitLab(api=api(public=["team", "team/app"]))
    with OciEmulator(vendor, users=users) as emulator:
        push_all(emulator)
        registry = listed(emulator, credential=LOGIN)
        assert registry.oci.list_repositories(["team/app/*"]) == {"team/app/img"}
        assert "'team' without a token: set list_token in [registries.auth]" in failure(registry)
        assert "'team' without a token: set list_token" in failure(registry, "team/sub/*")
        assert "'other' without a token: set list_token" in failure(registry, "other/*")


@pytest.mark.parametrize(
    ("token", "glob", "sentence"),
    [
        ("made-up-old-token", "team/*", "localhost does not accept list_token (status 401)"),
        (TOKEN, "other/*", "list_token may not list the repositories of 'other' at localhost"),
        (TOKEN, "alice/*", "shows neither a group nor a project 'alice'"),
        (TOKEN, "alice/none/*", "shows neither a group nor a project 'alice/none'"),
        (TOKEN, "42/*", "shows neither a group nor a project '42'"),
    ],
)
def test_refusal_says_what_to_do(
    listed: Open, logged: list[dict[str, Any]], token: str, glob: str, sentence: str
) -> None:
    """The failed expansion and the log name the reason, and never the token."""
    gitlab = GitLabApi(
        *PROJECTS,
        "alice/app",
        "42/app",
        token=TOKEN,
        public=["other"],
        foreign=["other"],
        users=["alice"],
    )
    with OciEmulator(GitLab(api=gitlab)) as emulator:
        push_all(emulator)
        registry = listed(emulator, list_token=Secret(token))
        found = failure(registry, glob)
        assert sentence in found
        assert "the registry gives no list of its repositories" in found
        (entry,) = [each for each in logged if each["event"] == "list.unused"]
        assert sentence in entry["reason"]
        assert token not in found + entry["reason"]


def test_project_of_a_user_is_listed(listed: Open) -> None:
    """In the namespace of a user, each project has a list."""
    gitlab = GitLabApi("alice/app", token=TOKEN, users=["alice"])
    with OciEmulator(GitLab(api=gitlab)) as emulator:
        fill(emulator, 1, "alice/app/img")
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["alice/app/*"]) == {"alice/app/img"}


def test_number_is_not_taken_for_an_id(listed: Open) -> None:
    """GitLab takes a number for an id, so a group with such a path is asked for no list."""
    with OciEmulator(GitLab(api=GitLabApi("42/sub/app", token=TOKEN))) as emulator:
        fill(emulator, 1, "42/sub/app")
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["42/sub/*"]) == {"42/sub/app"}
        failure(registry, "42/*")
        assert [request.path.split("/")[4] for request in to_api(emulator)] == ["42%2Fsub"]


@pytest.mark.parametrize("links", ["{url}", "{path}", "http://internal{path}", None])
@pytest.mark.parametrize("has_totals", [True, False])
def test_all_pages_are_read(listed: Open, links: str | None, has_totals: bool) -> None:
    """Pages are followed at GitLab's host, by links of each form, and without links by number."""
    names = {f"team/app/{number:03}" for number in range(200)}
    with OciEmulator(GitLab(api=api(links=links, has_totals=has_totals))) as emulator:
        for name in names:
            fill(emulator, 1, name)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["team/*"]) == names
        pages = [request.query.get("page", "1") for request in to_api(emulator)]
        assert pages == ["1", "2", "3"][: 2 if has_totals else 3]
        assert all(request.path == TEAM for request in to_api(emulator))


@pytest.mark.parametrize("fault", [ListFault.SHIFTED, ListFault.SKIPPED, ListFault.CUT])
def test_rows_that_are_repeated_or_missing_are_noticed(listed: Open, fault: ListFault) -> None:
    """A list whose pages do not agree with its total is read twice, and then not used."""
    with OciEmulator(GitLab(api=api(max_page=2))) as emulator:
        push_all(emulator)
        emulator.begin(fault)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert "two pages" in failure(registry) or "names" in failure(registry)
        emulator.end(fault)
        assert registry.oci.list_repositories(["team/*"]) == set(NAMES)


def test_push_between_two_pages_is_read_again(listed: Open) -> None:
    """If the total changes, the list is read again, and is then complete."""

    class Busy(OciEmulator):
        is_pushed = False

        def respond(self, request: Request) -> Answer:
            answer = super().respond(request)
            if request.path == TEAM and not self.is_pushed:
                self.is_pushed = True
                self.push("team/app/aaa", "v1", "an image")
            return answer

    with Busy(GitLab(api=api(max_page=2))) as emulator:
        push_all(emulator)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["team/*"]) == {*NAMES, "team/app/aaa"}
        pages = [request.query.get("page", "1") for request in to_api(emulator)]
        assert pages == ["1", "2", "1", "2", "3"]


def test_deletion_between_two_pages_is_read_again(listed: Open) -> None:
    """If a row is skipped and the names are as many as the later total, the list is read again."""

    class Deleting(GitLabApi):
        is_deleted = False

        def respond(self, request: Request, contents: Any) -> Answer:
            names = [name for name in NAMES if name != "team/app" or not self.is_deleted]
            self.is_deleted = True
            left = SimpleNamespace(repositories=lambda: names, faults=contents.faults)
            return super().respond(request, left)

    with OciEmulator(GitLab(api=Deleting(*PROJECTS, token=TOKEN, max_page=2))) as emulator:
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["team/*"]) == {*NAMES} - {"team/app"}
        pages = [request.query.get("page", "1") for request in to_api(emulator)]
        assert pages == ["1", "2", "1", "2"]


@pytest.mark.parametrize(
    "fault",
    [ListFault.NOT_JSON, ListFault.OTHER_JSON, ListFault.REFUSED, ListFault.UNAVAILABLE],
)
def test_answer_that_is_no_list_is_not_used(listed: Open, fault: ListFault) -> None:
    """A body that is not the list leads to the catalogue, which GitLab keeps closed."""
    with OciEmulator(GitLab(api=api())) as emulator:
        push_all(emulator)
        emulator.begin(fault)
        assert "localhost" in failure(listed(emulator, list_token=LIST_TOKEN))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'[{"path": "team/app"}, {"path": "teams/app"}]', "not below 'team', 'teams/app'"),
        (b'[{"name": "app"}]', "path"),
        (b'[{"path": null}]', "path"),
        (b'[{"path": "team/app"}]' + b" " * 2**16, "max_listing_size"),
    ],
)
def test_list_of_another_form_is_not_used(listed: Open, body: bytes, sentence: str) -> None:
    """A row of another group, a missing field and too many bytes fail the expansion."""

    class Odd(GitLabApi):
        def respond(self, request: Request, contents: Any) -> Answer:
            return super().respond(request, contents)._replace(body=body, headers={})

    with OciEmulator(GitLab(api=Odd(*PROJECTS, token=TOKEN))) as emulator:
        push_all(emulator)
        assert sentence in failure(listed(emulator, list_token=LIST_TOKEN, bound=2**15))


def test_names_that_no_repository_has_are_skipped(
    listed: Open, logged: list[dict[str, Any]]
) -> None:
    """A listed text that is not a valid name is logged, and the other names are used."""

    class Odd(GitLabApi):
        def respond(self, request: Request, contents: Any) -> Answer:
            answer = super().respond(request, contents)
            return answer._replace(
                body=b'[{"path": "team/../x"}, {"path": "team/app"}]', headers={}
            )

    with OciEmulator(GitLab(api=Odd(*PROJECTS, token=TOKEN))) as emulator:
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert registry.oci.list_repositories(["team/*"]) == {"team/app"}
    assert [each["names"] for each in logged if each["event"] == "discovery.skipped"] == [
        ["team/../x"]
    ]


def test_list_that_never_ends_is_refused(listed: Open) -> None:
    """An empty page that names a next one is not followed."""

    class Endless(GitLabApi):
        def respond(self, request: Request, contents: Any) -> Answer:
            link = f'<{request.path}?page=2>; rel="next"'
            return super().respond(request, contents)._replace(body=b"[]", headers={"Link": link})

    with OciEmulator(GitLab(api=Endless(*PROJECTS, token=TOKEN))) as emulator:
        assert "empty page" in failure(listed(emulator, list_token=LIST_TOKEN))
        assert len(to_api(emulator)) == 1


def test_project_that_has_moved_is_not_followed_to_another_path(listed: Open) -> None:
    """GitLab redirects to the project's new place, whose repositories are not those asked for."""

    class Moved(GitLabApi):
        def respond(self, request: Request, contents: Any) -> Answer:
            if request.path.startswith("/api/v4/projects/team%2Fold/"):
                url = request.path.replace("team%2Fold", "other%2Fapp")
                return Answer(301, b"", {"Location": url})
            return super().respond(request, contents)

    with OciEmulator(GitLab(api=Moved(*PROJECTS, token=TOKEN))) as emulator:
        push_all(emulator)
        found = failure(listed(emulator, list_token=LIST_TOKEN), "team/old/*")
        assert "not below 'team/old', 'other/app'" in found


def test_gitlab_has_a_rate_of_its_own(listed: Open) -> None:
    """While GitLab throttles, the registry is polled without a pause."""

    class Throttled(GitLabApi):
        def respond(self, request: Request, contents: Any) -> Answer:
            return Answer(429, b"", {"Retry-After": "3600"})

    with OciEmulator(GitLab(api=Throttled(*PROJECTS, token=TOKEN))) as emulator:
        fill(emulator, 3)
        registry = listed(emulator, list_token=LIST_TOKEN)
        assert "429" in failure(registry)
        assert registry.poll(REPOSITORY).source == "gitlab"


def test_secrets_and_connections_are_those_of_gitlab(listed: Open) -> None:
    """The list token is a secret of the registry, and closing the list closes GitLab's client."""
    with OciEmulator(GitLab(api=api())) as emulator:
        push_all(emulator)
        registry = listed(emulator, list_token=LIST_TOKEN, lists=[GitLabList])
        registry.oci.list_repositories(["team/*"])
        assert LIST_TOKEN in registry.lists.secrets
        registry.lists.close()
        with pytest.raises(RuntimeError, match="closed"):
            registry.oci.list_repositories(["team/*"])


def test_list_that_fails_or_is_cut_loses_no_repository(tmp_path: Path) -> None:
    """A recorded repository is still polled if the list lacks it, or cannot be read."""
    config = """
        registries = [{{ name = "gl", kind = "oci", endpoint = "{url}", auth = {{ kind = "none",
            list_token = "env:LIST_TOKEN" }}, watch = [{{ repositories = ["team/*"] }}] }}]
    """.replace("\n", " ")
    command = [sys.executable, "-m", "tagsync", "sync", "--format", "json"]

    def sync() -> dict[str, str]:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "LIST_TOKEN": TOKEN},
            capture_output=True,
            timeout=30,
            check=False,
        )
        return {row["repository"]: row["outcome"] for row in json.loads(done.stdout)}

    with OciEmulator(GitLab(api=api())) as emulator:
        push_all(emulator)
        (tmp_path / "config.toml").write_text(config.format(url=emulator.url))
        everything = dict.fromkeys((f"gl/{name}" for name in NAMES), "ok")
        assert sync() == everything
        emulator.begin(ListFault.EMPTY)
        assert sync() == everything
        emulator.begin(ListFault.REFUSED)
        assert sync() == everything | {"gl/team/*": "failed"}


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["team/*"], ["team"]),
        (["team/sub/app*", "a/b"], ["a", "team/sub"]),
        (["team/s?b/*", "team/[ab]"], ["team"]),
        (["team/*", "*"], None),
        (["t*/app"], None),
        (["busybox"], None),
    ],
)
def test_path_before_the_first_wildcard(globs: list[str], found: list[str] | None) -> None:
    """A glob names whole parts of a path only."""
    assert directories_of(globs) == found
