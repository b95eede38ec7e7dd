"""Fetch every tag list and discard it, as the baseline of the benchmarks.

``python -m tests.benchmarks.fetch httpx|sdk ENDPOINT REPOSITORIES THREADS`` reads them with one
`httpx.Client`, or with the vendor's SDK. ``… fetch heads URL TAGS THREADS`` requests the digests of
the tags ``v0``, ``v1`` and so on from an OCI repository.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.data import NAMESPACE, repository


def httpx_fetcher(endpoint: str) -> Callable[[int], object]:
    """Return a function that reads a repository's list as bytes."""
    import httpx  # noqa: PLC0415  each way measures its own imports only

    client = httpx.Client()

    def fetch(number: int) -> bytes:
        _, name = repository(number).split("/")
        url = f"{endpoint}/v2/manage/namespaces/{NAMESPACE}/repos/{name}/tags"
        answer = client.get(
            f"{url}?offset=0&limit=1000&order_column=updated_at&order_type=desc"
        ).raise_for_status()
        return answer.content

    return fetch


def heads_fetcher(repository_url: str) -> Callable[[int], object]:
    """Return a function that requests a tag's digest."""
    import httpx  # noqa: PLC0415  as above

    accept = "application/vnd.oci.image.manifest.v1+json"
    client = httpx.Client(headers={"Accept": accept})
    return lambda number: client.head(f"{repository_url}/manifests/v{number}").raise_for_status()


def sdk_fetcher(endpoint: str) -> Callable[[int], object]:
    """Return a function that reads a repository's list with the vendor's SDK."""
    from huaweicloudsdkcore.auth.credentials import (  # type: ignore[import-untyped]  # noqa: PLC0415  ships no types
        BasicCredentials,
    )
    from huaweicloudsdkswr.v2 import (  # type: ignore[import-untyped]  # noqa: PLC0415  ships no types
        ListRepositoryTagsRequest,
        SwrClient,
    )

    credentials = BasicCredentials("MADEUPACCESSKEY00001", "made-up", "0" * 32)
    client = SwrClient.new_builder().with_credentials(credentials).with_endpoint(endpoint).build()

    def fetch(number: int) -> object:
        _, name = repository(number).split("/")
        request = ListRepositoryTagsRequest(namespace=NAMESPACE, repository=name)
        request.offset, request.limit = "0", "1000"
        return client.list_repository_tags(request).body

    return fetch


def main() -> None:
    way, endpoint, count, threads = sys.argv[1:]
    ways = {"httpx": httpx_fetcher, "sdk": sdk_fetcher, "heads": heads_fetcher}
    fetch = ways[way](endpoint)
    numbers = range(int(count))
    if threads == "1":
        for number in numbers:
            fetch(number)
        return
    with ThreadPoolExecutor(int(threads)) as pool:
        for _ in pool.map(fetch, numbers):
            pass


main()
