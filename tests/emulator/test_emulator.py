"""Test the emulated SWR over real HTTP against the vendor's documentation."""

import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Any

import httpx
import pytest

from tagsync.emulator import (
    AGENCY_ACCESS_KEY,
    REFERENCE_REPOSITORY,
    Emulator,
    Headers,
    Keys,
    Request,
    User,
    signature_fault,
)
from tagsync.models import Image
from tests.support.clock import FakeClock
from tests.support.paths import DATA

VECTORS = json.loads((DATA / "signing-vectors.json").read_text())["vectors"]
TAGS = "/v2/manage/namespaces/team/repos/api/tags"
NAMESPACES = "/v2/manage/namespaces"
REPOSITORIES = "/v2/manage/repos"
SHARED = "/v2/manage/shared-repositories"
SIGN_IN = "/v3/auth/tokens?nocatalog=true"
METADATA_TOKEN = "/meta-data/latest/api/token"
METADATA_KEYS = "/openstack/latest/securitykey"
ACCESS_KEY = "MADEUPACCESSKEY00001"
KEYS = Keys("made-up-secret-key")
EXAMPLE_TIME = datetime(2018, 7, 6, 6, 18, 55, tzinfo=UTC)
USER = User("made-up-password", domain="account", project="eu-de")

# The response example of "Querying the List of Image Repository Tags", copied unchanged.
EXAMPLE = r"""
[
    {
        "id": 0,
        "repo_id": 0,
        "Tag": "latest",
        "image_id": "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6",
        "manifest": "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\"config\":{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"size\":1862,\"digest\":\"sha256:741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6\"},\"layers\":[{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"size\":1292800,\"digest\":\"sha256:8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893\"},{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"size\":10240,\"digest\":\"sha256:77ddbf3a9fe11e81761a0f9df43a28e3e6f29bbb53c0c8cf71cd7efa69729aed\"}]}",
        "digest": "sha256:57b605845a6367c34bfb6ea6477f16852f59aa1861a2b51d10ab77ae0a1dc9c3",
        "schema": 2,
        "path": "192.158.24.86/namespace/busybox:latest",
        "internal_path": "10.125.0.198:20202/namespace/busybox:latest",
        "size": 1304902,
        "is_trusted": false,
        "created": "2018-07-06T06:18:55Z",
        "updated": "2018-07-06T06:18:55Z",
        "deleted": null,
        "scanned": false,
        "tag_type": 0
    }
]
"""  # noqa: E501  the vendor's own lines


@pytest.fixture
def clock(clock: FakeClock) -> FakeClock:
    clock.now = EXAMPLE_TIME
    return clock


@pytest.fixture
def swr(clock: FakeClock) -> Iterator[Emulator]:
    with Emulator(clock=clock) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        yield client


def send(
    http: httpx.Client,
    swr: Emulator,
    target: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    content: bytes | None = None,
) -> httpx.Response:
    """Send a request whose target httpx does not re-encode."""
    return http.request(
        method, swr.url, headers=headers, content=content, extensions={"target": target.encode()}
    )


def tag_names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    return [row["Tag"] for row in answer.json()]


def error_code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    return answer.status_code, body.get("error_code") or body["errors"][0]["errorCode"]


# --- rows -----------------------------------------------------------------------------------------


def test_reference_example_is_served_unchanged(http: httpx.Client, swr: Emulator) -> None:
    """The vendor's response example is served with exactly its values."""
    digest = swr.push_reference_example()
    namespace, name = REFERENCE_REPOSITORY.split("/")
    answer = send(http, swr, f"{NAMESPACES}/{namespace}/repos/{name}/tags")
    assert answer.json() == json.loads(EXAMPLE)
    (row,) = answer.json()
    assert digest == row["digest"] == f"sha256:{sha256(row['manifest'].encode()).hexdigest()}"


def test_pushed_image_has_a_consistent_manifest(http: httpx.Client, swr: Emulator) -> None:
    """A row has the documented fields, and its image's follow from the manifest."""
    digest = swr.push("team/api", "v1", "content")
    (row,) = send(http, swr, TAGS).json()
    manifest = json.loads(row["manifest"])
    assert row.keys() == {*json.loads(EXAMPLE)[0], "domain_id"}
    assert digest == row["digest"] == f"sha256:{sha256(row['manifest'].encode()).hexdigest()}"
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert row["manifest"] == json.dumps(manifest, separators=(",", ":"))
    assert f"sha256:{row['image_id']}" == manifest["config"]["digest"]
    assert len(manifest["layers"]) == 2
    assert row["size"] == sum(part["size"] for part in [manifest["config"], *manifest["layers"]])
    assert row["created"] == row["updated"] == "2018-07-06T06:18:55Z"
    assert row["path"].endswith("/team/api:v1")


def test_equal_content_gives_an_equal_image(swr: Emulator) -> None:
    """The digest depends only on the content."""
    one = swr.push("team/api", "v1", "content")
    assert swr.push("other/web", "v2", "content") == one
    assert swr.push("team/api", "v1", "other content") != one
    assert swr.push("team/api", "v3") == swr.push("team/web", "v3") != one


def test_push_moves_a_tag(http: httpx.Client, swr: Emulator, clock: FakeClock) -> None:
    """New content gives a tag, and no other tag, a new row with a later time."""
    swr.push("team/api", "v1", "one")
    swr.push("team/api", "same", "same")
    same, before = send(http, swr, TAGS).json()
    clock.advance(seconds=5)
    moved = swr.push("team/api", "v1", "two")
    after, still = send(http, swr, TAGS).json()
    assert swr.tags("team/api") == {"v1": moved, "same": same["digest"]}
    assert still == same
    assert (after["digest"], after["updated"]) == (moved, "2018-07-06T06:19:00Z")
    assert after["created"] == before["created"]
    assert after["id"] > before["id"]
    assert after["repo_id"] == before["repo_id"]


def test_repeated_push_changes_only_updated(
    http: httpx.Client, swr: Emulator, clock: FakeClock
) -> None:
    """If a tag's current image is pushed again, only the tag's `updated` changes."""
    swr.push("team/api", "v1", "one", is_trusted=True)
    (before,) = send(http, swr, TAGS).json()
    clock.advance(seconds=5)
    swr.push("team/api", "v1", "one")
    (after,) = send(http, swr, TAGS).json()
    assert after == {**before, "updated": "2018-07-06T06:19:00Z"}


def test_fields_can_be_set(http: httpx.Client, swr: Emulator) -> None:
    """A push or `set_fields` can give any field any value and changes no other field."""
    swr.push("team/api", "v1", "one", path="a/path")
    (before,) = send(http, swr, TAGS).json()
    changed = {"is_trusted": True, "updated": None, "size": 2**70, "id": None, "path": "\ud800"}
    swr.set_fields("team/api", "v1", **changed)
    (after,) = send(http, swr, TAGS).json()
    assert before["path"] == "a/path"
    assert after == {**before, **changed}


@pytest.mark.parametrize(
    ("media_type", "tag_type"),
    [
        ("application/vnd.docker.distribution.manifest.v2+json", 0),
        ("application/vnd.docker.distribution.manifest.list.v2+json", 1),
        ("application/vnd.oci.image.index.v1+json", 1),
    ],
)
def test_given_image_is_served_unchecked(
    media_type: str, tag_type: int, http: httpx.Client, swr: Emulator
) -> None:
    """A given image is served unchecked, and an index has its own tag type."""
    image = Image("sha256:wrong", image_id="id", media_type=media_type, schema=1, size=7)
    assert swr.push("team/api", "v1", image) == "sha256:wrong"
    (row,) = send(http, swr, TAGS).json()
    served = [row[name] for name in ("digest", "image_id", "schema", "size", "manifest")]
    assert served == ["sha256:wrong", "id", 1, 7, None]
    assert row["tag_type"] == tag_type


def test_values_that_are_not_json_raise_in_the_caller(swr: Emulator) -> None:
    """A field or body that is not JSON raises an error in the caller."""
    swr.push("team/api", "v1")
    with pytest.raises(TypeError):
        swr.push("team/api", "v1", "one", path=object())
    with pytest.raises(TypeError):
        swr.set_fields("team/api", "v1", path=object())
    with pytest.raises(TypeError):
        swr.answer_next(200, {"a": object()})


def test_errors_name_missing_tags_and_repositories(swr: Emulator) -> None:
    """Errors name the missing tag or repository, and invalid names are refused."""
    swr.create_repository("team/api")
    for tag in ("delete", "set_fields"):
        with pytest.raises(LookupError, match=r"no tag 'v1' in 'team/api'"):
            getattr(swr, tag)("team/api", "v1")
    for repository in (swr.tags, swr.delete_repository):
        with pytest.raises(LookupError, match="no repository 'team/web'"):
            repository("team/web")
    for name in ("team", "/api", "team/"):
        with pytest.raises(ValueError, match="namespace/name"):
            swr.create_repository(name)


def test_deletions_keep_the_repository_and_the_organization(
    http: httpx.Client, swr: Emulator
) -> None:
    """Deleting the last tag or repository keeps the repository or organization."""
    swr.push("team/api", "v1")
    swr.delete("team/api", "v1")
    assert tag_names(send(http, swr, TAGS)) == []
    swr.delete_repository("team/api")
    assert error_code(send(http, swr, TAGS)) == (404, "SVCSTG.SWR.4040010")


def test_each_repository_has_its_own_id(http: httpx.Client, swr: Emulator) -> None:
    """A repository that is deleted and recreated gets a new ID; others keep theirs."""
    numbers = []
    for _ in range(2):
        swr.push("team/api", "v1")
        swr.push("team/web", "v1")
        answers = [send(http, swr, TAGS.replace("api", name)) for name in ("api", "web")]
        numbers.append([answer.json()[0]["repo_id"] for answer in answers])
        swr.delete_repository("team/api")
    (first, neighbour), (again, still) = numbers
    assert first != again != neighbour == still


# --- the tag list ---------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["$", "%24"])
def test_slashes_in_names_are_sent_as_dollar_signs(
    written: str, http: httpx.Client, swr: Emulator
) -> None:
    """The slashes of a repository's name are sent as dollar signs, encoded or not."""
    swr.push("team/web/front/end", "v1")
    target = TAGS.replace("api", written.join(("web", "front", "end")))
    assert tag_names(send(http, swr, target)) == ["v1"]
    assert swr.requests[-1].path == target


@pytest.mark.parametrize(
    "target",
    [
        TAGS.replace("api", "web/api"),
        TAGS.replace("api", "web%2Fapi"),
        f"{TAGS}/",
        f"/{TAGS}",
        "/v2/",
        "/",
        "/v3/auth/tokens",
        METADATA_KEYS,
    ],
)
def test_gateway_answers_unknown_paths(target: str, http: httpx.Client, swr: Emulator) -> None:
    """The gateway answers unknown paths and raw slashes in names in its own format."""
    swr.push("team/web/api", "v1")
    answer = send(http, swr, target)
    assert answer.status_code == 404
    assert answer.json().keys() == {"error_msg", "error_code", "request_id"}
    assert answer.json()["error_code"] == "APIGW.0101"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_other_methods_are_unknown_paths(method: str, http: httpx.Client, swr: Emulator) -> None:
    """Requests with other methods are recorded and answered like unknown paths."""
    swr.push("team/api", "v1")
    assert send(http, swr, TAGS, method=method, content=b"body").status_code == 404
    assert swr.requests[-1][:2] == (method, TAGS)
    assert swr.requests[-1].body == b"body"
    assert tag_names(send(http, swr, TAGS)) == ["v1"]


@pytest.mark.parametrize(
    ("known", "code"),
    [("team/web", "SVCSTG.SWR.4040010"), ("other/web", "SVCSTG.SWR.4040058")],
)
def test_missing_repository_or_organization_is_not_found(
    known: str, code: str, http: httpx.Client, swr: Emulator
) -> None:
    """A missing repository or organization is 404 with its documented code."""
    swr.create_repository(known)
    answer = send(http, swr, TAGS)
    assert error_code(answer) == (404, code)
    assert answer.json()["errors"][0].keys() == {"errorCode", "errorMessage", "detail"}


@pytest.mark.parametrize(
    "query",
    [
        "offset=0",
        "limit=10",
        "offset=5&limit=10",
        "offset=-10&limit=10",
        "offset=0&limit=0",
        "offset=0&limit=",
        "offset=0&limit=ten",
        "offset=0&limit=1_0",
        "offset=0&limit=99999999999999999999",
        "order_column=updated_at",
        "order_type=desc",
        "order_column=size&order_type=desc",
        "order_column=tag&order_type=up",
    ],
)
def test_invalid_parameters_are_refused(query: str, http: httpx.Client, swr: Emulator) -> None:
    """Parameters come in pairs, and the offset must be a multiple of the limit."""
    swr.push("team/api", "v1")
    assert error_code(send(http, swr, f"{TAGS}?{query}")) == (400, "SVCSTG.SWR.4001072")


def push_tags(swr: Emulator, tags: int) -> list[str]:
    """Push tags with the same time and return their names in the order of the list."""
    names = [f"v{number:03}" for number in range(tags)]
    for name in names:
        swr.push("team/api", name)
    return names[::-1]


def test_pages_make_up_the_listing(http: httpx.Client, swr: Emulator) -> None:
    """Each page has its offset, its number of rows, and the total."""
    names = push_tags(swr, 25)
    for offset, count in ((0, 10), (10, 10), (20, 5), (30, 0)):
        answer = send(http, swr, f"{TAGS}?offset={offset}&limit=10")
        assert tag_names(answer) == names[offset : offset + 10]
        assert answer.headers["Content-Range"] == f"{offset}-{count}/25"


@pytest.mark.parametrize(
    ("query", "rows"), [("", 8), ("?offset=0&limit=15", 12), ("?offset=0&limit=5", 5)]
)
def test_page_size_is_configurable(query: str, rows: int, http: httpx.Client) -> None:
    """A page has the default size, or with a limit at most the maximum size."""
    with Emulator(max_page=12, default_page=8) as swr:
        names = push_tags(swr, 20)
        answer = send(http, swr, TAGS + query)
    assert tag_names(answer) == names[:rows]
    assert answer.headers["Content-Range"] == f"0-{rows}/20"


def test_total_can_be_left_out(http: httpx.Client) -> None:
    """A server that sends no total still sends pages."""
    with Emulator(sends_total=False) as swr:
        names = push_tags(swr, 5)
        answer = send(http, swr, f"{TAGS}?offset=3&limit=3")
    assert tag_names(answer) == names[3:]
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("query", ["", "?offset=3&limit=3", "?limit=1", "?offset=1&limit=none"])
def test_paging_can_be_ignored(query: str, http: httpx.Client) -> None:
    """A server that ignores paging sends all rows without a total in every case."""
    with Emulator(ignores_paging=True, max_page=2, default_page=2) as swr:
        names = push_tags(swr, 5)
        answer = send(http, swr, TAGS + query)
    assert tag_names(answer) == names
    assert "Content-Range" not in answer.headers


def test_tags_are_ordered(http: httpx.Client, swr: Emulator, clock: FakeClock) -> None:
    """Tags are listed newest first by default, or by time or name in either direction."""
    for name in ("b", "c", "a"):
        clock.advance(seconds=name != "c")
        swr.push("team/api", name)
    swr.set_fields("team/api", "a", updated="2001-01-01T00:00:00Z")

    def ordered(column: str, order_type: str) -> str:
        query = f"?order_column={column}&order_type={order_type}"
        return "".join(tag_names(send(http, swr, TAGS + query)))

    assert tag_names(send(http, swr, TAGS)) == ["c", "b", "a"]
    assert ordered("updated_at", "desc") == "cba"
    assert ordered("updated_at", "asc") == "abc"
    assert ordered("tag", "asc") == "abc"
    assert ordered("tag", "desc") == "cba"


def test_tags_can_be_filtered_by_name(http: httpx.Client, swr: Emulator) -> None:
    """The filter `tag` matches only the tag of exactly that name, also in the total."""
    for name in ("v1", "v1.1", "a b"):
        swr.push("team/api", name)
    answer = send(http, swr, f"{TAGS}?tag=v1")
    assert tag_names(answer) == ["v1"]
    assert answer.headers["Content-Range"] == "0-1/1"
    assert tag_names(send(http, swr, f"{TAGS}?tag=a%20b")) == ["a b"]
    assert tag_names(send(http, swr, f"{TAGS}?tag=none")) == []


# --- discovery ------------------------------------------------------------------------------------


def test_organizations_are_listed(http: httpx.Client, swr: Emulator) -> None:
    """Each organization is listed once with its documented fields, or one by name."""
    for repository in ("team/api", "team/web", "other/api"):
        swr.create_repository(repository)
    rows = send(http, swr, NAMESPACES).json()["namespaces"]
    assert [row["name"] for row in rows] == ["team", "other"]
    assert rows[0].keys() == {"id", "name", "creator_name", "auth"}
    assert send(http, swr, f"{NAMESPACES}?namespace=other").json() == {"namespaces": rows[1:]}
    assert send(http, swr, f"{NAMESPACES}?namespace=none").json() == {"namespaces": []}


def test_repositories_are_listed(http: httpx.Client, swr: Emulator, clock: FakeClock) -> None:
    """A repository's row has its images' number and size, and its last change."""
    swr.push("team/web/api", "v1", "one", size=10)
    clock.advance(seconds=5)
    swr.push("team/web/api", "v2", "two", size=None)
    answer = send(http, swr, f"{REPOSITORIES}?namespace=team&offset=0&limit=10")
    assert answer.headers["Content-Range"] == "0-1/1"
    (row,) = answer.json()
    assert row.items() >= {
        ("name", "web/api"),
        ("namespace", "team"),
        ("is_public", False),
        ("num_images", 2),
        ("size", 10),
        ("created_at", "2018-07-06T06:18:55Z"),
        ("updated_at", "2018-07-06T06:19:00Z"),
        ("total_range", 1),
    }
    assert row["tags"] == ["v1", "v2"]
    assert row["path"].endswith("/team/web/api")
    assert row["internal_path"].endswith("/team/web/api")


def repository_names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    return [f"{row['namespace']}/{row['name']}" for row in answer.json()]


def test_repositories_are_filtered_ordered_and_paged(
    http: httpx.Client, swr: Emulator, clock: FakeClock
) -> None:
    """The list accepts an organization, a part of the name, an order and a page."""
    for repository in ("team/c", "team/a", "team/b", "other/a"):
        swr.push(repository, "v1")
        clock.advance(seconds=1)
    swr.push("team/a", "v2")
    newest = ["team/a", "other/a", "team/b", "team/c"]
    assert repository_names(send(http, swr, REPOSITORIES)) == newest
    assert repository_names(send(http, swr, f"{REPOSITORIES}?name=a")) == ["team/a", "other/a"]
    assert repository_names(send(http, swr, f"{REPOSITORIES}?namespace=none")) == []
    by = f"{REPOSITORIES}?namespace=team&order_type=asc&order_column="
    assert repository_names(send(http, swr, f"{by}name")) == ["team/a", "team/b", "team/c"]
    assert repository_names(send(http, swr, f"{by}updated_time")) == ["team/c", "team/b", "team/a"]
    assert repository_names(send(http, swr, f"{by}tag_count")) == ["team/c", "team/b", "team/a"]
    page = send(http, swr, f"{by}name&offset=2&limit=2")
    assert repository_names(page) == ["team/c"]
    assert page.headers["Content-Range"] == "2-1/3"
    assert error_code(send(http, swr, f"{by}tag")) == (400, "SVCSTG.SWR.4001072")
    assert error_code(send(http, swr, f"{REPOSITORIES}?limit=2")) == (400, "SVCSTG.SWR.4001072")


def test_shared_repositories_have_their_own_list(http: httpx.Client, swr: Emulator) -> None:
    """A shared repository is listed only with shared ones, and its tags can be read."""
    swr.create_repository("theirs/api", shared=True)
    swr.push("theirs/api", "v1")
    swr.push("team/api", "v1")
    page = "offset=0&limit=10"
    answer = send(http, swr, f"{SHARED}?center=thirdparty&{page}")
    assert repository_names(answer) == ["theirs/api"]
    assert answer.headers["Content-Range"] == "0-1/1"
    assert repository_names(send(http, swr, f"{SHARED}?center=self&{page}")) == []
    assert repository_names(send(http, swr, REPOSITORIES)) == ["team/api"]
    namespaces = send(http, swr, NAMESPACES).json()["namespaces"]
    assert [row["name"] for row in namespaces] == ["team"]
    assert tag_names(send(http, swr, TAGS.replace("team", "theirs"))) == ["v1"]
    missing = send(http, swr, TAGS.replace("team", "theirs").replace("api", "web"))
    assert error_code(missing) == (404, "SVCSTG.SWR.4040010")
    for query in ("", "?center=all"):
        assert error_code(send(http, swr, SHARED + query)) == (400, "SVCSTG.SWR.4001072")


# --- tokens ---------------------------------------------------------------------------------------


def test_token_gives_access_to_every_list(http: httpx.Client) -> None:
    """If a token is configured, the gateway accepts exactly that token for each list."""
    with Emulator(token="made-up-token") as swr:
        swr.push("team/api", "v1")
        for target in (TAGS, NAMESPACES, REPOSITORIES, f"{SHARED}?center=self"):
            for headers in ({}, {"X-Auth-Token": "another"}, {"X-Auth-Token": ""}):
                assert error_code(send(http, swr, target, headers)) == (401, "APIGW.0301")
            right = {"x-auth-token": "made-up-token"}
            assert send(http, swr, target, right).status_code == 200
        assert error_code(send(http, swr, "/v2/unknown")) == (404, "APIGW.0101")


def sign_in(
    http: httpx.Client, swr: Emulator, name: str = "user", user: User = USER
) -> httpx.Response:
    account = {"name": name, "password": user.password, "domain": {"name": user.domain}}
    identity = {"methods": ["password"], "password": {"user": account}}
    body = {"auth": {"identity": identity, "scope": {"project": {"name": user.project}}}}
    return send(http, swr, SIGN_IN, method="POST", content=json.dumps(body).encode())


def status_with_token(http: httpx.Client, swr: Emulator, token: str) -> int:
    return send(http, swr, TAGS, {"X-Auth-Token": token}).status_code


def test_token_of_a_user_is_accepted_until_it_expires(http: httpx.Client, clock: FakeClock) -> None:
    """An issued token is accepted until the expiry time that came with it."""
    with Emulator(users={"user": USER}, token_lifetime=timedelta(hours=1), clock=clock) as swr:
        swr.push("team/api", "v1")
        answer = sign_in(http, swr)
        token = answer.headers["X-Subject-Token"]
        assert answer.status_code == 201
        assert answer.json()["token"]["expires_at"] == "2018-07-06T07:18:55.000000Z"
        assert status_with_token(http, swr, token) == 200
        clock.advance(minutes=59, seconds=59)
        assert status_with_token(http, swr, token) == 200
        clock.advance(seconds=1)
        assert status_with_token(http, swr, token) == 401


def test_tokens_can_be_revoked(http: httpx.Client) -> None:
    """A revoked token is refused, and a new sign-in gives a token that is accepted."""
    with Emulator(users={"user": USER}) as guarded:
        guarded.push("team/api", "v1")
        token = sign_in(http, guarded).headers["X-Subject-Token"]
        guarded.revoke_tokens()
        assert status_with_token(http, guarded, token) == 401
        again = sign_in(http, guarded).headers["X-Subject-Token"]
        assert status_with_token(http, guarded, again) == 200


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("unknown", USER),
        ("user", User("wrong", USER.domain, USER.project)),
        ("user", User("\ud800", USER.domain, USER.project)),
        ("user", User(USER.password, "another", USER.project)),
        ("user", User(USER.password, USER.domain, "another")),
    ],
)
def test_wrong_sign_in_is_refused(name: str, user: User, http: httpx.Client) -> None:
    """A sign-in with any wrong part is refused without a token."""
    with Emulator(users={"user": USER}) as swr:
        answer = sign_in(http, swr, name, user)
    assert answer.status_code == answer.json()["error"]["code"] == 401
    assert "X-Subject-Token" not in answer.headers


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"\xff", b"[" * 20_000, b'{"auth": []}'])
def test_malformed_sign_in_is_refused(body: bytes, http: httpx.Client) -> None:
    """A sign-in whose body is not as documented is answered 400."""
    with Emulator(users={"user": USER}) as swr:
        assert send(http, swr, SIGN_IN, method="POST", content=body).status_code == 400


# --- signatures -----------------------------------------------------------------------------------


def vector_request(vector: Mapping[str, Any]) -> Request:
    given, made = vector["input"], vector["output"]
    body = given["body"].encode()
    return Request(
        given["method"], made["request_uri_sent"], Headers(made["final_headers"].items()), body
    )


def vector_keys(vector: Mapping[str, Any]) -> dict[str, Keys]:
    given = vector["input"]
    return {given["ak"]: Keys(given["sk"], given["security_token"], given["project_id"])}


def vector_date(vector: Mapping[str, Any]) -> datetime:
    date = vector["input"]["headers"]["X-Sdk-Date"]
    return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_signatures_of_the_official_sdk_are_accepted(
    vector: Mapping[str, Any], http: httpx.Client
) -> None:
    """Requests signed by the vendor's SDK are accepted, and altered ones are refused."""
    clock, keys = FakeClock(), vector_keys(vector)
    clock.now = vector_date(vector)
    request = vector_request(vector)
    assert signature_fault(request, keys, clock()) is None
    altered = request._replace(target=request.target.replace("tags", "tag").replace("vpcs", "vpc"))
    assert signature_fault(altered, keys, clock()) == "the signature is wrong"
    longer = request._replace(body=b"x")
    assert signature_fault(longer, keys, clock()) == "the signature is wrong"
    with Emulator(keys=keys, clock=clock) as swr:
        swr.create_repository("my-org/busybox")
        swr.create_repository("my-org/team/app")
        answer = send(http, swr, request.target, request.headers)
        # The first vector is for another service of the vendor, whose path is unknown here.
        assert answer.status_code == (200 if "/my-org/" in request.target else 404)
    received = swr.requests[-1].headers
    assert {name: received[name] for name in request.headers} == dict(request.headers)


def signed_headers(
    swr: Emulator,
    target: str,
    *,
    access_key: str = ACCESS_KEY,
    secret_key: str = KEYS.secret_key,
    date: datetime | str,
    names: str = "host;x-sdk-date",
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the headers of a signed GET. The target must be in its canonical form."""
    path, _, query = target.partition("?")
    text = date if isinstance(date, str) else date.strftime("%Y%m%dT%H%M%SZ")
    headers = {"Host": swr.url.removeprefix("http://"), "X-Sdk-Date": text, **(more or {})}
    values = {name.lower(): value for name, value in headers.items()}
    lines = "".join(f"{name}:{values.get(name, '')}\n" for name in names.split(";"))
    body = sha256(b"").hexdigest()
    canonical = f"GET\n{path}/\n{query}\n{lines}\n{names}\n{body}"
    string = f"SDK-HMAC-SHA256\n{text}\n{sha256(canonical.encode()).hexdigest()}"
    signature = hmac_digest(secret_key.encode(), string.encode(), "sha256").hex()
    authorization = (
        f"SDK-HMAC-SHA256 Access={access_key}, SignedHeaders={names}, Signature={signature}"
    )
    return {**headers, "Authorization": authorization}


@pytest.fixture
def guarded(clock: FakeClock) -> Iterator[Emulator]:
    with Emulator(keys={ACCESS_KEY: KEYS}, clock=clock) as emulator:
        emulator.push("team/api", "v1")
        yield emulator


def test_signed_request_is_answered(
    http: httpx.Client, guarded: Emulator, clock: FakeClock
) -> None:
    """A signature made by the documented steps is accepted, for its own target only."""
    target = f"{TAGS}?limit=10&offset=0&tag=a%20b%2B~"
    headers = signed_headers(guarded, target, date=clock())
    assert send(http, guarded, target, headers).status_code == 200
    for other in (TAGS, target.replace("limit=10", "limit=20"), target.replace("api", "web")):
        answer = send(http, guarded, other, headers)
        assert error_code(answer) == (401, "APIGW.0301")
        assert "signature is wrong" in answer.json()["error_msg"]


def test_space_is_not_signed_as_a_plus(
    http: httpx.Client, guarded: Emulator, clock: FakeClock
) -> None:
    """A space that is signed as `%20` must be sent as `%20`."""
    headers = signed_headers(guarded, f"{TAGS}?tag=a%20b", date=clock())
    assert send(http, guarded, f"{TAGS}?tag=a%20b", headers).status_code == 200
    assert send(http, guarded, f"{TAGS}?tag=a+b", headers).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"secret_key": "another"}, "signature is wrong"),
        ({"access_key": "ANOTHERACCESSKEY"}, "access key is unknown"),
        ({"names": "host"}, "x-sdk-date is not signed"),
        ({"names": "x-sdk-date"}, "host is not signed"),
        ({"names": "host;x-other;x-sdk-date"}, "x-other is not signed or not sent"),
        ({"date": "yesterday"}, "X-Sdk-Date is malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_signature_is_refused(
    arguments: dict[str, str],
    reason: str,
    http: httpx.Client,
    guarded: Emulator,
    clock: FakeClock,
) -> None:
    """A wrong signature is answered 401 with the reason and without the secret."""
    all_arguments: dict[str, Any] = {"date": clock(), **arguments}
    answer = send(http, guarded, TAGS, signed_headers(guarded, TAGS, **all_arguments))
    assert error_code(answer) == (401, "APIGW.0301")
    assert reason in answer.json()["error_msg"]
    assert KEYS.secret_key not in answer.text


@pytest.mark.parametrize(
    ("seconds", "status"), [(-901, 401), (-900, 200), (0, 200), (900, 200), (901, 401)]
)
def test_signature_is_valid_for_fifteen_minutes(
    seconds: int, status: int, http: httpx.Client, guarded: Emulator, clock: FakeClock
) -> None:
    """A request's date may differ by 15 minutes either way, and the error says so."""
    headers = signed_headers(guarded, TAGS, date=clock() + timedelta(seconds=seconds))
    answer = send(http, guarded, TAGS, headers)
    assert answer.status_code == status
    assert ("15 minutes" in answer.text) == (status == 401)


@pytest.mark.parametrize("authorization", ["", "Basic x", "SDK-HMAC-SHA256", "SDK-HMAC-SHA256 A=b"])
def test_malformed_authorization_is_refused(
    authorization: str, http: httpx.Client, guarded: Emulator
) -> None:
    """A request without a signature, or with a malformed one, is answered 401."""
    answer = send(http, guarded, TAGS, {"Authorization": authorization} if authorization else {})
    assert error_code(answer) == (401, "APIGW.0301")


@pytest.mark.parametrize(
    ("names", "more", "status"),
    [
        ("host;x-project-id;x-sdk-date;x-security-token", {}, 200),
        ("host;x-project-id;x-sdk-date", {}, 401),
        ("host;x-sdk-date;x-security-token", {}, 401),
        ("host;x-project-id;x-sdk-date;x-security-token", {"X-Security-Token": "another"}, 401),
        ("host;x-project-id;x-sdk-date;x-security-token", {"X-Project-Id": "another"}, 401),
        ("host;x-sdk-date", None, 401),
    ],
)
def test_security_token_and_project_must_be_signed(
    names: str,
    more: Mapping[str, str] | None,
    status: int,
    http: httpx.Client,
    clock: FakeClock,
) -> None:
    """The security token and the project of a key must be sent, right and signed."""
    right = {"X-Security-Token": "token//+==", "X-Project-Id": "project"}
    keys = Keys(KEYS.secret_key, "token//+==", "project")
    with Emulator(keys={ACCESS_KEY: keys}, clock=clock) as swr:
        swr.push("team/api", "v1")
        sent = {} if more is None else {**right, **more}
        headers = signed_headers(swr, TAGS, date=clock(), names=names, more=sent)
        assert send(http, swr, TAGS, headers).status_code == status


def test_all_kinds_of_credentials_can_be_combined(http: httpx.Client, clock: FakeClock) -> None:
    """One server accepts a fixed token, an issued token and a signature."""
    users, keys = {"user": USER}, {ACCESS_KEY: KEYS}
    with Emulator(token="made-up-token", users=users, keys=keys, clock=clock) as swr:
        swr.push("team/api", "v1")
        assert status_with_token(http, swr, "made-up-token") == 200
        assert status_with_token(http, swr, sign_in(http, swr).headers["X-Subject-Token"]) == 200
        headers = signed_headers(swr, TAGS, date=clock())
        assert send(http, swr, TAGS, headers).status_code == 200
        assert send(http, swr, TAGS).status_code == 401


# --- the metadata service -------------------------------------------------------------------------

AGENCY = Keys("made-up-agency-secret", "made-up-security-token")


def signed_by_agency(
    swr: Emulator, clock: FakeClock, credential: Mapping[str, str]
) -> dict[str, str]:
    return signed_headers(
        swr,
        TAGS,
        access_key=credential["access"],
        secret_key=credential["secret"],
        date=clock(),
        names="host;x-sdk-date;x-security-token",
        more={"X-Security-Token": credential["securitytoken"]},
    )


def test_keys_of_an_agency_are_accepted_until_they_expire(
    http: httpx.Client, clock: FakeClock
) -> None:
    """A host with a metadata token gets keys, which are accepted until they expire."""
    with Emulator(agency=AGENCY, token_lifetime=timedelta(hours=1), clock=clock) as swr:
        swr.push("team/api", "v1")

        def keys() -> dict[str, str]:
            ttl = {"X-Metadata-Token-Ttl-Seconds": "21600"}
            token = send(http, swr, METADATA_TOKEN, ttl, method="PUT").text
            answer = send(http, swr, METADATA_KEYS, {"X-Metadata-Token": token})
            assert answer.status_code == 200
            return dict(answer.json()["credential"])

        def status(credential: Mapping[str, str]) -> int:
            return send(http, swr, TAGS, signed_by_agency(swr, clock, credential)).status_code

        invented = {"access": AGENCY_ACCESS_KEY, "secret": AGENCY.secret_key}
        assert status({**invented, "securitytoken": str(AGENCY.security_token)}) == 401
        given = keys()
        assert given == {
            **invented,
            "securitytoken": AGENCY.security_token,
            "expires_at": "2018-07-06T07:18:55.000000Z",
        }
        assert status(given) == 200
        clock.advance(hours=1)
        assert status(given) == 401
        assert keys()["expires_at"] == "2018-07-06T08:18:55.000000Z"


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "soon"])
def test_metadata_token_requires_a_lifetime(ttl: str | None, http: httpx.Client) -> None:
    """The metadata service refuses a request for a token without a valid lifetime."""
    headers = {} if ttl is None else {"X-Metadata-Token-Ttl-Seconds": ttl}
    with Emulator(agency=AGENCY) as swr:
        assert send(http, swr, METADATA_TOKEN, headers, method="PUT").status_code == 400


def test_keys_require_a_metadata_token(http: httpx.Client, clock: FakeClock) -> None:
    """The metadata service refuses a missing, a wrong and an expired token."""
    with Emulator(agency=AGENCY, clock=clock) as swr:
        ttl = {"X-Metadata-Token-Ttl-Seconds": "60"}
        token = {"X-Metadata-Token": send(http, swr, METADATA_TOKEN, ttl, method="PUT").text}
        assert send(http, swr, METADATA_KEYS).status_code == 401
        assert send(http, swr, METADATA_KEYS, {"X-Metadata-Token": "wrong"}).status_code == 401
        assert send(http, swr, METADATA_KEYS, token).status_code == 200
        clock.advance(seconds=60)
        assert send(http, swr, METADATA_KEYS, token).status_code == 401


def test_older_host_has_no_metadata_tokens(http: httpx.Client) -> None:
    """Without metadata tokens, a request for one is 405 and keys require none."""
    with Emulator(agency=AGENCY, metadata_tokens=False) as swr:
        ttl = {"X-Metadata-Token-Ttl-Seconds": "21600"}
        assert send(http, swr, METADATA_TOKEN, ttl, method="PUT").status_code == 405
        assert send(http, swr, METADATA_KEYS).status_code == 200


def test_agency_requires_a_security_token() -> None:
    """The constructor refuses an agency without a security token."""
    with pytest.raises(ValueError, match="security_token"):
        Emulator(agency=KEYS)


def test_repr_shows_no_secrets() -> None:
    """The `repr` of keys and users contains no secret."""
    shown = repr(AGENCY) + repr(USER)
    for secret in (AGENCY.secret_key, AGENCY.security_token, USER.password):
        assert str(secret) not in shown


# --- canned answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"\xff\x00", b"\xff\x00"),
        ("<html>", b"<html>"),
        ({"errors": []}, b'{"errors": []}'),
        ([], b"[]"),
        (None, b"null"),
    ],
)
def test_answer_can_be_replaced(
    body: object, sent: bytes, http: httpx.Client, swr: Emulator
) -> None:
    """Bytes and text are sent unchanged and other values as JSON, with the headers."""
    swr.push("team/api", "v1")
    headers = {"retry-after": "3", "content-type": "text/html", "Date": "never"}
    swr.answer_next(599, body, headers)
    answer = send(http, swr, TAGS)
    assert (answer.status_code, answer.content) == (599, sent)
    assert {name: answer.headers[name] for name in headers} == headers
    assert answer.headers.get_list("Content-Type") == ["text/html"]
    assert tag_names(send(http, swr, TAGS)) == ["v1"]


def test_replaced_answers_are_used_in_order(http: httpx.Client, swr: Emulator) -> None:
    """Replaced answers go to matching requests, in order, even without a credential."""
    swr.push("team/api", "v1")
    swr.answer_next(503, matching="offset=10", times=2)
    swr.answer_next(429)
    targets = [TAGS, f"{TAGS}?offset=10&limit=10", f"{TAGS}?offset=10&limit=10", TAGS]
    answers = [send(http, swr, target).status_code for target in targets]
    assert answers == [429, 503, 503, 200]
    with Emulator(token="made-up-token") as guarded:
        guarded.answer_next(500)
        assert send(http, guarded, TAGS).status_code == 500


def test_answer_can_break_off(http: httpx.Client, swr: Emulator) -> None:
    """A length beyond the body makes an incomplete answer, and the next is complete."""
    swr.push("team/api", "v1")
    swr.answer_next(200, b"[", {"Content-Length": "100"})
    with pytest.raises(httpx.RemoteProtocolError):
        send(http, swr, TAGS)
    assert tag_names(send(http, swr, TAGS)) == ["v1"]


def test_statuses_without_a_body(http: httpx.Client, swr: Emulator) -> None:
    """Statuses without a body are sent without one, and the connection is kept."""
    swr.push("team/api", "v1")
    for status in (204, 304):
        swr.answer_next(status, b"ignored")
        assert send(http, swr, TAGS).content == b""
    assert tag_names(send(http, swr, TAGS)) == ["v1"]


# --- the server -----------------------------------------------------------------------------------


def test_requests_are_recorded_unchanged(http: httpx.Client, swr: Emulator) -> None:
    """The method, path, query and headers of each request are recorded, in order."""
    send(http, swr, "//x%24?a=1&a=2&b=c%20d&e=", {"X-Some": "1"})
    send(http, swr, NAMESPACES)
    first, second = swr.requests
    assert (first.method, first.path) == ("GET", "//x%24")
    assert first.query == {"a": "2", "b": "c d", "e": ""}
    assert first.headers["x-some"] == first.headers["X-SOME"] == "1"
    assert "X-Some" in dict(first.headers)
    assert len(first.headers) == len(dict(first.headers))
    assert (second.path, second.query) == (NAMESPACES, {})


def test_repeated_headers_are_joined(swr: Emulator) -> None:
    """A header that is sent twice has both values."""
    send_raw(swr, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\n\r\n")
    assert swr.requests[0].headers["X-A"] == "1, 2"


def send_raw(swr: Emulator, message: bytes) -> bytes:
    """Send bytes and read until the server closes the connection."""
    port = int(swr.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(message)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "message",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
def test_malformed_request_closes_the_connection(
    message: bytes, swr: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """A malformed request is answered 400 and its connection closed, without output."""
    assert b" 400 " in send_raw(swr, message).partition(b"\r\n")[0]
    assert swr.requests == []
    assert capfd.readouterr() == ("", "")


def test_client_that_disconnects_is_ignored(
    http: httpx.Client, swr: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """A connection that breaks early causes no output, and others are answered."""
    port = int(swr.url.rpartition(":")[2])
    for message in (b"", b"GET ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(message)
            # Close the connection with a reset instead of a FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert send(http, swr, NAMESPACES).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_connection_is_kept(swr: Emulator) -> None:
    """Consecutive requests, successful or not, use one connection."""
    swr.push("team/api", "v1")
    transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))
    ports = set()
    with httpx.Client(transport=transport) as client:
        for target in (TAGS, "/unknown", TAGS):
            stream = send(client, swr, target).extensions["network_stream"]
            ports.add(stream.get_extra_info("client_addr")[1])
    assert len(ports) == 1


def test_date_of_answers_is_from_the_clock(http: httpx.Client, swr: Emulator) -> None:
    """The `Date` of an answer is from the emulator's clock, which reveals any skew."""
    assert send(http, swr, TAGS).headers["Date"] == "Fri, 06 Jul 2018 06:18:55 GMT"


def test_server_runs_while_entered() -> None:
    """The server has no address before `with` and accepts no connection after it."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="with"):
        _ = emulator.url
    with closing(httpx.Client(trust_env=False)) as client:
        with emulator:
            assert client.get(emulator.url + NAMESPACES).status_code == 200
        with pytest.raises(httpx.TransportError):
            client.get(emulator.url + NAMESPACES)
    assert len(emulator.requests) == 1


def test_threads_can_list_and_push_at_once(http: httpx.Client, swr: Emulator) -> None:
    """While threads push, every listing is consistent and no push is lost."""
    swr.create_repository("team/api")

    def push(number: int) -> None:
        swr.push("team/api", f"v{number}")

    def list_tags(_: int) -> None:
        answer = send(http, swr, f"{TAGS}?offset=0&limit=1000")
        found = tag_names(answer)
        assert answer.headers["Content-Range"] == f"0-{len(found)}/{len(set(found))}"

    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(push, number) for number in range(100)]
        done += [threads.submit(list_tags, number) for number in range(50)]
        for future in done:
            future.result()
    assert len(swr.tags("team/api")) == 100
    assert len({row["id"] for row in send(http, swr, TAGS).json()}) == 100
