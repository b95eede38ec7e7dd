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

ERRORS_IN_A_ROW: Final = 10
"""Number of errors in a row after which tagsync checks whether the registry still works.

If tags cannot be resolved, tagsync requests a tag again that was resolved before. If manifests
cannot be fetched, tagsync leaves the others for the next poll.
"""

_MANIFEST_LIMIT_TEXT: Final = f"the {MAX_MANIFEST_BYTES} bytes that a manifest may have"

_MISSING: Final = (NotFound, EndpointNotFound)
"""The errors that a missing manifest can cause. The response to a HEAD request has no body, so a
missing manifest and a wrong endpoint look the same."""

_HEAD_REFUSED: Final = frozenset({400, 403, 405, 406, 410, 411, 415, 416, 422, 501})
"""Statuses with which registries and proxies refuse HEAD requests although they answer GET."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Resolved(msgspec.Struct, frozen=True):
    """A tag and its image.

    Attributes:
        image: None if the registry lacks the tag's manifest, or if there is an error.
        error: Why the tag's manifest could not be read. None if it was read or is missing.
    """

    tag: str
    image: Image | None = None
    error: RegistryError | None = None


class _WrongManifest(MalformedResponse):
    """The registry sent a manifest whose hash is not the digest that was requested."""

    def __init__(self, message: str, digest: str) -> None:
        """Describe the manifest.

        Args:
            message: A sentence, as for every error.
            digest: The digest of the manifest that was sent.
        """
        super().__init__(message)
        self.digest: Final = digest


class ManifestFetch:
    """The results of fetching the manifests of one listing, shared by several threads.

    Attributes:
        images: The images whose manifests were fetched, by digest.
        wrong: The digest of each wrong manifest that the registry sent, by the digest that was to
            be fetched with everything that it references.
        failure: The first error. None if every manifest was fetched.
        stopped: Whether all remaining manifests are left for the next poll.
        transient: Number of transient errors since the last manifest that was fetched.
    """

    def __init__(self, repository: str, scope: Scope, cost: Cost) -> None:
        self.repository = repository
        self.scope = scope
        self.cost = cost
        self.images: dict[str, Image] = {}
        self.wrong: dict[str, str] = {}
        self.failure: RegistryError | None = None
        self.stopped = False
        self.transient = 0

    def note_failure(self, error: RegistryError) -> None:
        """Note a failure, and stop if the remaining manifests would probably fail as well."""
        self.failure = self.failure or error
        self.transient += error.transient
        exhausted = isinstance(error, ResponseTooLarge) and (
            self.cost.bytes_left < MAX_MANIFEST_BYTES
        )
        refused = isinstance(error, Throttled | Unauthorized)
        if refused or exhausted or self.transient >= ERRORS_IN_A_ROW:
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

    def resolve(
        self, repository: str, tags: Iterable[str], cost: Cost, resolved_before: str | None = None
    ) -> list[Resolved]:
        """Return the image of each tag: its digest and media type, without its manifest.

        If the registry answers the HEAD request for a manifest with 404, the result of the tag has
        neither an image nor an error. Call `confirm` for such tags.

        An error concerns only its tag as long as other tags can be resolved. To check this, tagsync
        requests a resolved tag again after errors.

        Args:
            repository: The name of the repository.
            tags: The tags to resolve.
            cost: Counts the requests and bytes.
            resolved_before: A tag that was resolved shortly before, if there is one.

        Raises:
            RegistryError: If the registry throttles, if the listing is too large, or if tags fail
                and none can be resolved.
        """
        return self._resolve_all(self._resolve_by_head, repository, tags, cost, resolved_before)

    def confirm(
        self, repository: str, tags: Iterable[str], cost: Cost, resolved_before: str | None
    ) -> list[Resolved]:
        """Return the image of each tag by GET requests; see `resolve`.

        Some registries and proxies answer a HEAD request with 404 although the manifest exists.
        """
        return self._resolve_all(self._resolve_by_get, repository, tags, cost, resolved_before)

    def _resolve_all(
        self,
        resolve_one: Callable[[str, str, Cost], Image | None],
        repository: str,
        tags: Iterable[str],
        cost: Cost,
        working: str | None,
    ) -> list[Resolved]:
        def resolve(tag: str) -> Resolved:
            try:
                return Resolved(tag, resolve_one(repository, tag, cost))
            except Throttled:
                raise
            except RegistryError as error:
                if isinstance(error, ResponseTooLarge) and cost.bytes_left < MAX_MANIFEST_BYTES:
                    raise
                return Resolved(tag, error=error)

        results: list[Resolved] = []
        first_error: RegistryError | None = None
        in_a_row = 0
        for result in self._map(resolve, tags):
            results.append(result)
            if result.image is not None:
                working = result.tag
            in_a_row = in_a_row + 1 if result.error else 0
            first_error = first_error or result.error
            if first_error and in_a_row == ERRORS_IN_A_ROW:
                self._require_working(repository, working, first_error, cost)
                in_a_row = 0
        if first_error:
            self._require_working(repository, working, first_error, cost)
        return results

    def _require_working(
        self, repository: str, working: str | None, error: RegistryError, cost: Cost
    ) -> None:
        """Require that a tag can still be resolved, so that errors concern only their own tags.

        Args:
            repository: The name of the repository.
            working: A tag that was resolved before. None if no tag was resolved.
            error: The first error of the listing. It is raised if ``working`` is None.
            cost: Counts the requests and bytes.

        Raises:
            RegistryError: If the tag cannot be resolved again, or if no tag was resolved.
        """
        if working is None:
            raise error
        self._resolve_by_head(repository, working, cost)

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
            except _WrongManifest as error:
                fetch.wrong[digest] = error.digest
                fetch.note_failure(error)
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

    def _resolve_by_head(self, repository: str, tag: str, cost: Cost) -> Image | None:
        """Return the image of a tag, or None if the registry answers 404.

        The answer to the HEAD request counts only if it states one digest. Otherwise, or if the
        registry does not allow HEAD, the manifest is fetched and hashed.

        A manifest of schema 1 is fetched, too, because some registries sign it anew in each answer,
        so that the stated digest changes. If it cannot be hashed, the stated digest counts.
        """
        try:
            path = f"/v2/{repository}/manifests/{tag}"
            answer = cost.add(self._client.head(path, accept=manifests.ACCEPT))
        except _MISSING:
            return None
        except RegistryError as error:
            if error.status not in _HEAD_REFUSED:
                raise
            return self._resolve_by_get(repository, tag, cost)
        digest = _stated_digest(answer)
        if digest is None:
            return self._resolve_by_get(repository, tag, cost)
        if _media_type(answer) in manifests.SCHEMA_1_MEDIA_TYPES:
            with suppress(MalformedResponse):
                return self._resolve_by_get(repository, tag, cost)
        self._note_rate_limit(answer)
        return _image(digest, answer)

    def _resolve_by_get(self, repository: str, tag: str, cost: Cost) -> Image | None:
        """Return the image of a tag by the bytes of its manifest, or None if it has none.

        Raises:
            MalformedResponse: If the body is not a manifest, or is another one than the headers
                state.
        """
        try:
            answer = cost.add(self._get_manifest(f"/v2/{repository}/manifests/{tag}", cost))
        except _MISSING:
            return None
        self._note_rate_limit(answer)
        if not manifests.is_manifest(answer.body):
            raise MalformedResponse(
                f"{answer.url} sent a body that is not a manifest"
                f" ({truncate(answer.headers.get('Content-Type', 'no type'))}): check the endpoint,"
                " and check the proxy if there is one"
            )
        stated = _stated_digest(answer)
        algorithm = stated.partition(":")[0] if stated else "sha256"
        digest = manifests.digest_of(manifests.without_signature(answer.body), algorithm)
        if stated not in {None, digest, manifests.digest_of(answer.body, algorithm)}:
            raise MalformedResponse(f"{answer.url} sent a manifest that does not match its digest")
        return _image(digest, answer)

    def _get_manifest(self, path: str, cost: Cost) -> Answer:
        max_bytes = min(MAX_MANIFEST_BYTES, cost.bytes_left)
        limit_text = _MANIFEST_LIMIT_TEXT if max_bytes == MAX_MANIFEST_BYTES else None
        return self._client.get(path, {}, max_bytes, accept=manifests.ACCEPT, limit_text=limit_text)

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
        fetch.transient = 0

    def _fetch_manifest(self, fetch: ManifestFetch, digest: str) -> Image:
        if self._manifests_left == 0:
            raise Throttled("the registry's rate limit allows no more manifests at the moment")
        path = f"/v2/{fetch.repository}/manifests/{digest}"
        answer = fetch.cost.add(self._get_manifest(path, fetch.cost))
        self._note_rate_limit(answer)
        content_type = answer.headers.get("Content-Type", "")
        image = manifests.fetched_image(digest, answer.body, content_type)
        if image is None:
            raise _WrongManifest(
                f"{answer.url} sent a manifest that does not match its digest",
                manifests.actual_digest(answer.body, digest),
            )
        return image

    def _note_rate_limit(self, answer: Answer) -> None:
        """Note how many manifests the registry still allows. None if it does not say so."""
        self._manifests_left = requests_left(answer.headers)


def _stated_digest(answer: Answer) -> str | None:
    """Return the digest that the headers of an answer state, or None if they state not one.

    Proxies repeat the header, or add an empty one. Digests that differ count as none.
    """
    values = answer.headers.get_list("Docker-Content-Digest", split_commas=True)
    digests = {value.strip() for value in values} - {""}
    if len(digests) != 1:
        return None
    (digest,) = digests
    return digest if manifests.is_digest(digest) else None


def _image(digest: str, answer: Answer) -> Image:
    return Image(digest, media_type=_media_type(answer))


def _media_type(answer: Answer) -> str | None:
    return manifests.media_type(answer.headers.get("Content-Type", ""))
