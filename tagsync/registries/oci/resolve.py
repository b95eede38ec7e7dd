"""Resolve tags to digests and fetch manifests, with several threads a registry."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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
from tagsync.registries.oci.paging import Cost
from tagsync.registries.pacing import requests_left
from tagsync.registries.responses import Answer

MAX_MANIFEST_BYTES: Final = 4 * 2**20
"""The largest manifest, which is the size that the specification asks registries to accept."""

DEPTH: Final = 3
"""How deep indexes within indexes are followed."""

_ACCEPT: Final = ", ".join(manifests.MEDIA_TYPES)

_MANIFEST_LIMIT_TEXT: Final = f"the {MAX_MANIFEST_BYTES} bytes that a manifest may have"

_MISSING: Final = (NotFound, EndpointNotFound)
"""Errors for a missing manifest: the response to a HEAD request has no body that would tell a
missing manifest from a wrong endpoint."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Resolved(msgspec.Struct, frozen=True):
    """A tag and its image. The image is None if the registry lacks its manifest."""

    tag: str
    image: Image | None


class ManifestFetch:
    """The manifests of one listing, while many threads fetch them.

    Attributes:
        images: The images that were fetched, by digest.
        forged: Digests whose bytes do not hash to them.
        failure: The first reason why a manifest could not be fetched.
        stopped: Whether the other manifests are left for the next poll.
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
        """Record a failure, and stop if the other manifests would fail as well."""
        self.failure = self.failure or error
        exhausted = isinstance(error, ResponseTooLarge) and (
            self.cost.bytes_left < MAX_MANIFEST_BYTES
        )
        if error.transient or isinstance(error, Unauthorized) or exhausted:
            self.stopped = True


class Resolver:
    """The manifests of one registry, requested by several threads."""

    def __init__(self, client: Client, concurrency: int) -> None:
        """Prepare the threads.

        Args:
            client: Sends the requests.
            concurrency: The most requests at once, for all repositories together.
        """
        self._client = client
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, "resolve")
        self._manifests_left: int | None = None

    def close(self) -> None:
        """Cancel the requests that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def resolve(self, repository: str, tags: Iterable[str], cost: Cost) -> list[Resolved]:
        """Return the image of each tag, without its manifest.

        Raises:
            RegistryError: If a tag cannot be resolved for any other reason than a missing manifest.
        """
        return list(self._map(lambda tag: self._resolve_tag(repository, tag, cost), tags))

    def fetch_manifests(
        self, repository: str, digests: Sequence[str], scope: Scope, cost: Cost
    ) -> ManifestFetch:
        """Fetch manifests that are not recorded yet, with those that they reference.

        A failure does not raise an error: `ManifestFetch.failure` has it.
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
        """Yield the results in order, while threads work a few items ahead.

        Only a few, so that other repositories that are polled at the same time get their turns.
        """
        ahead: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                ahead.append(self._pool.submit(function, item))
                if len(ahead) > 2 * self._concurrency:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
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
        """Fetch a manifest; an index is complete only with what it references.

        Once an index is recorded, its children are not requested again. A child that the registry
        does not have is skipped: many registries keep only some platforms of an index.
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
        """Store how many manifests may still be fetched, if the registry says so."""
        self._manifests_left = requests_left(answer.headers)
