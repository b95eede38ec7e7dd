"""Test that tagsync and the vendor's own SDK get the same from one emulator."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from huaweicloudsdkcore.auth.credentials import (  # type: ignore[import-untyped]  # ships no types
    BasicCredentials,
)
from huaweicloudsdkcore.exceptions.exceptions import (  # type: ignore[import-untyped]  # ships no types
    ClientRequestException,
)
from huaweicloudsdkswr.v2 import (  # type: ignore[import-untyped]  # ships no types
    ListNamespacesRequest,
    ListReposDetailsRequest,
    ListRepositoryTagsRequest,
    SwrClient,
)

from tagsync.emulator import Emulator, Keys
from tagsync.errors import Unauthorized
from tagsync.models import Listing
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import KeyCredential
from tagsync.secrets import Secret

PERMANENT, TEMPORARY = "MADEUPACCESSKEY00001", "MADEUPACCESSKEY00002"
KEYS = {
    PERMANENT: Keys(
        "MadeUpSecretKey0000000000000000000000001",
        project_id="0123456789abcdef0123456789abcdef",
    ),
    TEMPORARY: Keys(
        "MadeUpSecretKey0000000000000000000000002",
        "made-up-security-token//+abc==",
        "0123456789abcdef0123456789abcdef",
    ),
}
REPOSITORIES = [f"team/r{number:03}" for number in range(118)] + ["team/large", "team/deep/er/one"]
LARGE = [f"v{number}" for number in range(250)]
PAGE = 100


@pytest.fixture(scope="module")
def swr() -> Iterator[Emulator]:
    """An emulator with 120 repositories in one organization and one in another."""
    with Emulator(keys=KEYS) as emulator:
        for repository in REPOSITORIES:
            emulator.push(repository, "v1", repository)
        for tag in LARGE:
            emulator.push("team/large", tag)
        emulator.create_repository("tools/lint")
        yield emulator


def sdk_client(emulator: Emulator, access_key: str, secret_key: str | None = None) -> Any:
    """Return the vendor's client for an access key."""
    keys = KEYS[access_key]
    credentials = BasicCredentials(access_key, secret_key or keys.secret_key, keys.project_id)
    if keys.security_token is not None:
        credentials.with_security_token(keys.security_token)
    builder = SwrClient.new_builder().with_credentials(credentials)
    return builder.with_endpoint(emulator.url).build()


def tagsync_client(emulator: Emulator, access_key: str, secret_key: str | None = None) -> Registry:
    """Return tagsync's client for an access key."""
    keys = KEYS[access_key]
    token = keys.security_token
    return open_registry(
        emulator.url,
        KeyCredential(
            Secret(access_key),
            Secret(secret_key or keys.secret_key),
            Secret(token) if token is not None else None,
            keys.project_id,
        ),
        timeout=5,
        retry_for=1,
        max_listing_bytes=2**26,
        requests_per_second=10_000,
        connections=4,
    )


def all_pages(page: Callable[..., Any]) -> list[Any]:
    """Return the rows of all pages, using the total in ``Content-Range``."""
    rows: list[Any] = []
    while True:
        answer = page(offset=str(len(rows)), limit=str(PAGE))
        begin, total = f"{len(rows)}-{len(answer.body)}", int(answer.content_range.split("/")[1])
        assert answer.content_range == f"{begin}/{total}"
        rows += answer.body
        if len(rows) >= total:
            return rows


def tags_by_sdk(client: Any, repository: str) -> dict[str, str]:
    namespace, _, name = repository.partition("/")

    def page(**window: str) -> Any:
        request = ListRepositoryTagsRequest(namespace, name.replace("/", "$"), **window)
        return client.list_repository_tags(request)

    return {row.tag: row.digest for row in all_pages(page)}


def tags_by_tagsync(registry: Registry, repository: str) -> dict[str, str | None]:
    listing = registry.list_tags(repository)
    assert isinstance(listing, Listing)
    return {name: tag.digest for name, tag in listing.tags.items()}


@pytest.mark.parametrize("access_key", [PERMANENT, TEMPORARY])
def test_both_read_the_same_tags(access_key: str, swr: Emulator) -> None:
    """The SDK and tagsync read the same digests, also of a name with slashes."""
    client = sdk_client(swr, access_key)
    with closing(tagsync_client(swr, access_key)) as registry:
        for repository, count in (("team/large", 250), ("team/deep/er/one", 1)):
            seen = tags_by_sdk(client, repository)
            assert len(seen) == count
            assert seen == tags_by_tagsync(registry, repository) == swr.tags(repository)


@pytest.mark.parametrize("access_key", [PERMANENT, TEMPORARY])
def test_both_find_the_same_repositories(access_key: str, swr: Emulator) -> None:
    """The SDK lists exactly the repositories that tagsync discovers."""
    client = sdk_client(swr, access_key)

    def page(**window: str) -> Any:
        return client.list_repos_details(ListReposDetailsRequest(namespace="team", **window))

    seen = {f"{row.namespace}/{row.name}" for row in all_pages(page)}
    with closing(tagsync_client(swr, access_key)) as registry:
        assert seen == registry.list_repositories(["team/*"]) == set(REPOSITORIES)


@pytest.mark.parametrize("access_key", [PERMANENT, TEMPORARY])
def test_both_find_the_same_organizations(access_key: str, swr: Emulator) -> None:
    """The SDK lists the organizations in which tagsync discovers repositories."""
    answer = sdk_client(swr, access_key).list_namespaces(ListNamespacesRequest())
    seen = {row.name for row in answer.namespaces}
    with closing(tagsync_client(swr, access_key)) as registry:
        found = registry.list_repositories(["*"])
    assert seen == {name.partition("/")[0] for name in found} == {"team", "tools"}


@pytest.mark.parametrize("access_key", [PERMANENT, TEMPORARY])
def test_both_are_refused_with_a_wrong_secret_key(access_key: str, swr: Emulator) -> None:
    """The SDK and tagsync both get 401 for a signature with a wrong key."""
    wrong = "MadeUpSecretKey000000000000000000000wrong"
    with pytest.raises(ClientRequestException) as sdk_error:
        tags_by_sdk(sdk_client(swr, access_key, wrong), "team/large")
    assert sdk_error.value.status_code == 401
    assert sdk_error.value.error_code == "APIGW.0301"
    with (
        closing(tagsync_client(swr, access_key, wrong)) as registry,
        pytest.raises(Unauthorized, match=r"APIGW\.0301") as tagsync_error,
    ):
        registry.list_tags("team/large")
    assert wrong not in str(tagsync_error.value)
