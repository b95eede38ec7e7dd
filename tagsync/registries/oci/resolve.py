"""Resolve tags to digests and fetch manifests, with several threads per registry."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec

from tagsync import manifests
from tagsync.errors import (
    EndpointNotFound,
    MalformedResponse,
    NotFound,
    RegistryError,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.models import Image, Scope
from tagsync.registries.client import Client
from tagsync.registries.lanes import LaneFuture, LanePool
from tagsync.registries.oci.paging import Cost
from tagsync.registries.pacing import requests_left
from tagsync.registries.responses import Answer

MAX_MANIFEST_BYTES: Final = 4 * 2**20
"""Maximum size of a manifest. By the specification, registries should accept this size."""

DEPTH: Final = 3
"""Maximum number of levels below a manifest that are fetched: an index may reference indexes."""

_ACCEPT: Final = ", ".join(manifests.MEDIA_TYPES)

_MANIFEST_LIMIT_TEXT: Final = f"the {MAX_MANIFEST_BYTES} bytes that a manifest may have"

_MISSING: Final = (NotFound, EndpointNotFound)
"""The errors that a missing manifest can cause. The response to a HEAD request has no body, so a
missing manifest and a wrong endpoint look the same."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Resolved(msgspec.Struct, frozen=True):
    """A tag and its image. The image is None if the registry lacks the tag's manifest."""

    tag: str
    image: Image | None


class ManifestFetch:
    """The results of fetching the manifests of one listing, shared by several threads.

    Attributes:
        images: The images whose manifests were fetched, by digest.
        forged: Digests for which the registry sent a manifest with another hash.
        failure: The first error. None if every manifest was fetched.
        stopped: Whether all remaining manifests are left for the next poll.
    """

    def __init__(self, repository: str, scope: Scope, cost: Cost) -> None:
        self.repository = repository
        self.scope = scope
        self.cost = cost
        self.images: dict[str, Image] = {}
        self.forged: set[str] = set()
        self.failure: RegistryError | None = None
        self.stopped = False

    def note_failure(self, error: RegistryError) -> None:
        """Note a failure, and stop if the remaining manifests would fail as well."""
        self.failure = self.failure or error
        exhausted = isinstance(error, ResponseTooLarge) and (
            self.cost.bytes_left < MAX_MANIFEST_BYTES
        )
        if error.transient or isinstance(error, Unauthorized) or exhausted:
            self.stopped = True


class Resolver:
    """Several threads that request the manifests of one registry."""

    def __init__(self, client: Client, concurrency: int) -> None:
        """Prepare the threads.

        Args:
            client: Sends the requests.
            concurrency: Maximum number of requests at the same time, for all repositories together.
        """
        self._client = client
        self._concurrency = concurrency
        self._pool = LanePool(concurrency, client.patience)
        self._manifests_left: int | None = None

    def close(self) -> None:
        """Cancel the requests that have not started yet."""
        self._pool.close(cancel=True)

    def resolve(self, repository: str, tags: Iterable[str], cost: Cost) -> list[Resolved]:
        """Return the image of each tag: its digest and media type, without its manifest.

        Raises:
            RegistryError: If a tag cannot be resolved for any other reason than a missing manifest.
        """
        return list(self._map(lambda tag: self._resolve_tag(repository, tag, cost), tags))

    def fetch_manifests(
        self, repository: str, digests: Sequence[str], scope: Scope, cost: Cost
    ) -> ManifestFetch:
        """Fetch manifests that are not recorded yet, and the manifests they reference.

        If a manifest cannot be fetched, no error is raised. `ManifestFetch.failure` holds the first
        error instead.
        """
        fetch = ManifestFetch(repository, scope, cost)
        recorded = scope.recorded(digests)

        def fetch_one(digest: str) -> None:
            try:
                self._fetch_tree(fetch, digest, DEPTH)
            except RegistryError as error:
                fetch.note_failure(error)

        for _ in self._map(fetch_one, [digest for digest in digests if digest not in recorded]):
            pass
        return fetch

    def _map(
        self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """Yield the results in the items' order, while threads work a few items ahead.

        The threads do not work further ahead, so that repositories that are polled at the same time
        do not have to wait until all items are done. The first item is done alone: if the server
        does not answer at all for a repository, it occupies one thread only.
        """
        ahead: deque[LaneFuture] = deque()
        window = 1
        try:
            for item in items:
                ahead.append(self._pool.submit(partial(function, item)))
                if len(ahead) >= window:
                    yield ahead.popleft().result_within_wait()
                    window = 2 * self._concurrency + 1
            while ahead:
                yield ahead.popleft().result_within_wait()
        finally:
            for future in ahead:
                future.cancel()

    def _resolve_tag(self, repository: str, tag: str, cost: Cost) -> Resolved:
        path = f"/v2/{repository}/manifests/{tag}"
        try:
            answer = cost.add(self._client.head(path, accept=_ACCEPT))
            digest = answer.headers.get("Docker-Content-Digest", "").strip()
            if not digest:
                answer = cost.add(self._get_manifest(path, cost))
                digest = manifests.digest_of(answer.body)
        except _MISSING:
            return Resolved(tag, None)
        if not manifests.is_digest(digest):
            raise MalformedResponse(
                f"{answer.url} sent an invalid digest, {truncate(digest)[:80]!r}"
            )
        self._note_rate_limit(answer)
        media_type = manifests.media_type(answer.headers.get("Content-Type", ""))
        return Resolved(tag, Image(digest, media_type=media_type))

    def _get_manifest(self, path: str, cost: Cost) -> Answer:
        max_bytes = min(MAX_MANIFEST_BYTES, cost.bytes_left)
        limit_text = _MANIFEST_LIMIT_TEXT if max_bytes == MAX_MANIFEST_BYTES else None
        return self._client.get(path, {}, max_bytes, accept=_ACCEPT, limit_text=limit_text)

    def _fetch_tree(self, fetch: ManifestFetch, digest: str, depth: int) -> None:
        """Fetch a manifest and, if it is an index, first the manifests that it references.

        The index is added last, because tagsync does not request the children of a recorded index
        again. A child that the registry does not have is skipped: many registries store only some
        platforms of an index.

        Args:
            fetch: Receives the images.
            digest: The digest of the manifest.
            depth: How many levels of children to fetch.
        """
        if digest in fetch.images:
            return
        if fetch.stopped:
            raise fetch.failure or Throttled("the registry allows no more manifests at the moment")
        image = self._fetch_manifest(fetch, digest)
        children = manifests.children(image) if depth else []
        recorded = fetch.scope.recorded(children) if children else ()
        for child in children:
            if child not in recorded:
                with suppress(*_MISSING):
                    self._fetch_tree(fetch, child, depth - 1)
        fetch.images[digest] = image

    def _fetch_manifest(self, fetch: ManifestFetch, digest: str) -> Image:
        if self._manifests_left == 0:
            raise Throttled("the registry's rate limit allows no more manifests at the moment")
        path = f"/v2/{fetch.repository}/manifests/{digest}"
        answer = fetch.cost.add(self._get_manifest(path, fetch.cost))
        self._note_rate_limit(answer)
        content_type = answer.headers.get("Content-Type", "")
        image = manifests.fetched_image(digest, answer.body, content_type)
        if image is None:
            fetch.forged.add(digest)
            raise MalformedResponse(f"{answer.url} sent a manifest that does not match its digest")
        return image

    def _note_rate_limit(self, answer: Answer) -> None:
        """Note how many manifests the registry still allows. None if it does not say so."""
        self._manifests_left = requests_left(answer.headers)
