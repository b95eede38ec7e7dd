"""Any registry that speaks the OCI distribution specification (the Docker registry's API, v2).

Names come from ``GET /v2/{name}/tags/list``, each digest from ``HEAD /v2/{name}/manifests/{tag}``.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from tagsync import manifests
from tagsync.clock import Clock, timestamp, utc_now
from tagsync.errors import (
    BadRequest,
    EndpointNotFound,
    Forbidden,
    MalformedResponse,
    NotFound,
    RegistryError,
    RepositoryNotFound,
    ResponseTooLarge,
    Throttled,
    Unauthorized,
)
from tagsync.escaping import truncate
from tagsync.models import EVERYTHING, OCI_REPOSITORY, Image, Listing, Scope, Tag, Unchanged
from tagsync.registries import client as http
from tagsync.registries import responses as answers
from tagsync.registries.oci.paging import PAGE, _Cost, _Names
from tagsync.registries.pacing import requests_left
from tagsync.secrets import Secret, redact

MAX_MANIFEST_BYTES: Final = 4 * 2**20
"""How large a manifest may be: what the specification asks registries to take."""

DEPTH: Final = 3
"""How deep indexes within indexes are followed."""

_DECODING: Final = b"oci 1\n"
"""Part of each fingerprint: to be changed when more is taken from equal answers than before."""

_MANIFESTS: Final = ", ".join(manifests.MEDIA_TYPES)

_A_MANIFEST_MAY_HAVE: Final = f"the {MAX_MANIFEST_BYTES} bytes that a manifest may have"

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

_CODE: Final = re.compile(r"[A-Z_]+")
"""The form of an error's code (OCI distribution specification, "Error codes")."""

_ABSENT: Final = (NotFound, EndpointNotFound)
"""A 404 for a manifest, whatever else it says: the answer to a HEAD has no body to tell by."""

ItemT = TypeVar("ItemT")

ResultT = TypeVar("ResultT")


class _Tags(msgspec.Struct):
    tags: list[str] | None


class _Catalog(msgspec.Struct):
    repositories: list[str] | None


_decode_tags = msgspec.json.Decoder(_Tags).decode

_decode_catalog = msgspec.json.Decoder(_Catalog).decode


class _Resolved(msgspec.Struct, frozen=True):
    """What a tag was resolved to; null where the registry denies to have its manifest."""

    tag: str
    image: Image | None


class _Fetching:
    """The manifests of one listing, as they are fetched by many threads."""

    def __init__(self, repository: str, scope: Scope, cost: _Cost) -> None:
        self.repository = repository
        self.scope = scope
        self.cost = cost
        self.images: dict[str, Image] = {}
        self.forged: set[str] = set()
        self.failure: RegistryError | None = None
        self.stopped = False

    def failed(self, error: RegistryError) -> None:
        """Notes that a manifest could not be had, and whether others would fail as well."""
        self.failure = self.failure or error
        spent = isinstance(error, ResponseTooLarge) and self.cost.left < MAX_MANIFEST_BYTES
        if error.transient or isinstance(error, Unauthorized) or spent:
            self.stopped = True


class Oci:
    """An OCI registry behind the `Registry` protocol."""

    def __init__(
        self,
        client: http.Client,
        max_listing_bytes: int,
        concurrency: int,
        clock: Clock = utc_now,
    ) -> None:
        """Takes over the client, which has to have been made with `refusal_of`.

        Args:
            client: asks.
            max_listing_bytes: how large all bodies of one listing together may be.
            concurrency: how many requests may be under way at once, of all repositories together.
            clock: dates the listings.
        """
        self._client = client
        self._max_bytes = max_listing_bytes
        self._concurrency = concurrency
        self._clock = clock
        self._pool = ThreadPoolExecutor(concurrency, "resolve")
        self._manifests_left: int | None = None

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Reads all tags of a repository, and resolves those that the scope wants.

        A tag that is listed and whose manifest is answered with 404 is in the listing, without a
        digest and as `Listing.missing`. A manifest that cannot be had does not make the listing
        fail: it is left for the next poll, for which the fingerprint is null.

        Args:
            repository: a name as the registry has it.
            known: the fingerprint of the last recorded listing.
            scope: which tags are resolved, and whether manifests are fetched.

        Raises:
            RepositoryNotFound: there is no such repository.
            InconsistentListing: the pages contradicted each other in every read.
            RegistryError: any other reason for which there is no complete listing.
        """
        started_at = timestamp(self._clock())
        cost = _Cost(self._max_bytes)

        def read() -> _Names:
            names = _Names(self._client, cost, _TAG)
            path = f"/v2/{repository}/tags/list?n={PAGE}"
            names.read(path, lambda body: _decode_tags(body).tags or [])
            return names

        names = answers.read_consistently(read, repository)
        wanted = [name for name in names.names if scope.has(name) and name not in scope.seen]
        resolved = list(self._each(lambda name: self._resolve(repository, name, cost), wanted))
        tags = {name: scope.seen.get(name, Tag(name)) for name in names.names}
        images: dict[str, Image] = {}
        for each in resolved:
            if each.image is not None:
                tags[each.tag] = Tag(each.tag, each.image.digest)
                images[each.image.digest] = each.image
        missing = tuple(each.tag for each in resolved if each.image is None)
        fingerprint = _fingerprint(tags, missing, scope)
        if fingerprint == known:
            finished_at = timestamp(self._clock())
            return Unchanged(started_at, finished_at, fingerprint, cost.requests, cost.size)
        fetching = _Fetching(repository, scope, cost)
        if scope.manifests:
            self._fetch(fetching, images)
        children = {d: image for d, image in fetching.images.items() if d not in images}
        images |= {d: image for d, image in fetching.images.items() if d in images}
        return Listing(
            tags,
            images,
            started_at,
            timestamp(self._clock()),
            None if fetching.failure else fingerprint,
            pages=names.pages,
            requests=cost.requests,
            size=cost.size,
            unverified=tuple(tag.tag for tag in tags.values() if tag.digest in fetching.forged),
            children=children,
            steady=False,
            missing=missing,
            unfetched=str(fetching.failure) if fetching.failure else None,
        )

    def list_repositories(
        self,
        globs: Sequence[str],
        *,
        shared: bool = False,  # noqa: ARG002  a catalogue lists all that may be seen
    ) -> set[str]:
        """Finds the repositories that match, in the registry's catalogue if it offers one.

        Args:
            globs: over names; ``*`` crosses slashes.
            shared: of no effect: a catalogue lists all that may be seen.

        Raises:
            RegistryError: the registry has no catalogue, or it could not be had in full.
        """
        if not globs:
            return set()
        cost = _Cost(self._max_bytes)

        def read() -> _Names:
            names = _Names(self._client, cost, OCI_REPOSITORY)
            names.read(
                f"/v2/_catalog?n={PAGE}", lambda body: _decode_catalog(body).repositories or []
            )
            return names

        try:
            found = answers.read_consistently(read, "the catalogue").names
        except (BadRequest, EndpointNotFound, Forbidden, NotFound, Unauthorized) as error:
            raise type(error)(
                f"the registry gives no list of its repositories, so name them instead of"
                f" {globs[0]!r}: {error}",
                status=error.status,
                code=error.code,
            ) from error
        return {name for name in found if any(fnmatchcase(name, glob) for glob in globs)}

    def close(self) -> None:
        """Closes the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _each(
        self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
    ) -> Iterator[ResultT]:
        """The results in order, while threads work a little ahead.

        Not more than that, so that repositories polled at the same time get their turns.
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

    def _resolve(self, repository: str, tag: str, cost: _Cost) -> _Resolved:
        path = f"/v2/{repository}/manifests/{tag}"
        try:
            answer = cost.add(self._client.head(path, accept=_MANIFESTS))
            digest = answer.headers.get("Docker-Content-Digest", "").strip()
            if not digest:
                answer = cost.add(self._get_manifest(path, cost))
                digest = manifests.digest_of(answer.body)
        except _ABSENT:
            return _Resolved(tag, None)
        if not manifests.is_digest(digest):
            raise MalformedResponse(
                f"{answer.url} names {truncate(digest)[:80]!r} as its digest, which is none"
            )
        self._note_limit(answer)
        media_type = manifests.media_type(answer.headers.get("Content-Type", ""))
        return _Resolved(tag, Image(digest, media_type=media_type))

    def _get_manifest(self, path: str, cost: _Cost) -> http.Answer:
        bound = min(MAX_MANIFEST_BYTES, cost.left)
        named = _A_MANIFEST_MAY_HAVE if bound == MAX_MANIFEST_BYTES else None
        return self._client.get(path, {}, bound, accept=_MANIFESTS, bound=named)

    def _fetch(self, fetching: _Fetching, images: dict[str, Image]) -> None:
        """Fetches the manifests that are not recorded yet, each with those of its children."""
        recorded = fetching.scope.recorded(list(images))
        lacking = [digest for digest in images if digest not in recorded]

        def fetch(digest: str) -> None:
            try:
                self._fetch_tree(fetching, digest, DEPTH)
            except RegistryError as error:
                fetching.failed(error)

        for _ in self._each(fetch, lacking):
            pass

    def _fetch_tree(self, fetching: _Fetching, digest: str, depth: int) -> None:
        """Fetches a manifest; an index counts as fetched only with all that it names.

        For when it is recorded nobody asks for its children again. One that the registry does not
        have is none: many keep indexes of which they hold some platforms only.
        """
        if digest in fetching.images:
            return
        if fetching.stopped:
            raise fetching.failure or Throttled("the registry allows no more manifests for now")
        image = self._fetch_one(fetching, digest)
        children = manifests.children(image) if depth else []
        recorded = fetching.scope.recorded(children) if children else ()
        for child in children:
            if child not in recorded:
                with suppress(*_ABSENT):
                    self._fetch_tree(fetching, child, depth - 1)
        fetching.images[digest] = image

    def _fetch_one(self, fetching: _Fetching, digest: str) -> Image:
        if self._manifests_left == 0:
            raise Throttled("the registry's rate limit allows no more manifests for now")
        path = f"/v2/{fetching.repository}/manifests/{digest}"
        answer = fetching.cost.add(self._get_manifest(path, fetching.cost))
        self._note_limit(answer)
        content_type = answer.headers.get("Content-Type", "")
        image = manifests.fetched_image(digest, answer.body, content_type)
        if image is None:
            fetching.forged.add(digest)
            raise MalformedResponse(f"{answer.url} sent a manifest that is not what it was asked")
        return image

    def _note_limit(self, answer: http.Answer) -> None:
        """Remembers how many manifests may still be fetched, where the registry says so."""
        self._manifests_left = requests_left(answer.headers)


def _fingerprint(tags: dict[str, Tag], missing: Sequence[str], scope: Scope) -> str:
    """Of every name and what it was resolved to, and of whether manifests were fetched for it."""
    absent = frozenset(missing)
    lines = (
        f"{name} {'404' if name in absent else tag.digest or ''}\n" for name, tag in tags.items()
    )
    hashed = sha256(_DECODING)
    hashed.update(b"manifests\n" if scope.manifests else b"")
    for line in sorted(lines):
        hashed.update(line.encode())
    return hashed.hexdigest()


def refusal_of(answer: http.Answer, secrets: tuple[Secret, ...] = ()) -> RegistryError:
    """The error of an answer whose status is not 200, in one sentence with status, code and text.

    Args:
        answer: its body may have the specification's form, or any other, or be missing.
        secrets: what must not appear in the sentence even if the server echoes it.
    """
    error = answers.errors_of(answer.body)
    code, text = (redact(str(error.get(key) or ""), secrets) for key in ("code", "message"))
    said = ": ".join(filter(None, (truncate(code), truncate(text)))) or "no readable message"
    kind, advice = _kind_of_refusal(answer, code)
    advice = truncate(redact(advice, secrets))
    sentence = redact(f"{answer.url} answered {answer.status} ({said}){advice}", secrets)
    return kind(
        sentence, retry_after=answer.retry_after, status=answer.status, code=truncate(code) or None
    )


def _kind_of_refusal(answer: http.Answer, code: str) -> tuple[type[RegistryError], str]:
    status = answer.status
    if status == 429 or code == "TOOMANYREQUESTS":  # noqa: PLR2004  statuses read best as figures
        return Throttled, ""
    if later := http.kind_of_passing(status):
        return later, ""
    if 300 <= status < 400:  # noqa: PLR2004
        # What a store of blobs has signed is a key by itself, and stands in the query.
        where = answer.headers.get("Location", "nowhere").partition("?")[0]
        return BadRequest, f"; it points to {where}, and a redirect is never followed"
    if status == 404:  # noqa: PLR2004
        # A proxy in between, or a host that is no registry, says 404 of any path, some of them with
        # a code of another form than the specification's.
        ours = _CODE.fullmatch(code) or "Docker-Distribution-Api-Version" in answer.headers
        return (RepositoryNotFound, "") if ours else (EndpointNotFound, ": check the endpoint")
    kinds: dict[int, tuple[type[RegistryError], str]] = {
        401: (
            Unauthorized,
            ": check the credentials; many registries say this of a repository that does not exist",
        ),
        403: (Forbidden, ": the credentials do not permit this"),
    }
    return kinds.get(status, (BadRequest, ""))
