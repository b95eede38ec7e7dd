"""Registries with the API of the OCI distribution specification (Docker API v2).

The tags of a repository come from ``GET /v2/{name}/tags/list``. The digest of each tag comes from
``HEAD /v2/{name}/manifests/{tag}``.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

import msgspec

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.errors import (
    BadRequest,
    EndpointNotFound,
    Forbidden,
    NotFound,
    RepositoryNotFound,
    Throttled,
    Unauthorized,
)
from tagsync.models import EVERYTHING, OCI_REPOSITORY, Image, Listing, Scope, Tag, Unchanged
from tagsync.registries.client import Client
from tagsync.registries.oci.paging import PAGE, Cost, PagedNames
from tagsync.registries.oci.resolve import ManifestFetch, Resolver
from tagsync.registries.responses import Refusal, Refusals, read_consistently

_FINGERPRINT_VERSION: Final = b"oci 1\n"
"""Part of each fingerprint. Change it when tagsync starts to record more of an answer, so that a
listing that was recorded before counts as changed and is recorded again."""

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Valid tags (OCI distribution specification, "Pulling manifests")."""

REFUSALS: Final = Refusals(
    code_keys=("code",),
    message_keys=("message",),
    rows=(
        Refusal(Throttled, code="TOOMANYREQUESTS"),
        # A proxy, or a host that is not a registry, also answers 404. A registry's own 404 has an
        # error code as the specification writes it, or the header below.
        Refusal(RepositoryNotFound, 404, code=r"[A-Z_]+"),
        Refusal(RepositoryNotFound, 404, header="Docker-Distribution-Api-Version"),
        Refusal(EndpointNotFound, 404, advice=": check the endpoint"),
        Refusal(
            Unauthorized,
            401,
            advice=": check the credentials; many registries answer so if the repository does not"
            " exist",
        ),
        Refusal(Forbidden, 403, advice=": the credentials do not permit this"),
    ),
)
"""The meaning of the error codes of the specification (section "Error codes")."""


class _Tags(msgspec.Struct):
    tags: list[str] | None


class _Catalog(msgspec.Struct):
    repositories: list[str] | None


_decode_tags = msgspec.json.Decoder(_Tags).decode
_decode_catalog = msgspec.json.Decoder(_Catalog).decode


class Oci:
    """An OCI registry. It implements the protocol `Registry`."""

    def __init__(
        self,
        client: Client,
        max_listing_bytes: int,
        concurrency: int,
        clock: Clock = utc_now,
    ) -> None:
        """Prepare the registry. No request is sent yet.

        Args:
            client: Sends the requests. It must have been created with `REFUSALS`. `close` closes
                it.
            max_listing_bytes: Maximum size of the response bodies of one listing together.
            concurrency: Maximum number of requests for manifests at the same time, for all
                repositories together.
            clock: Returns the time at which a listing starts and finishes.
        """
        self._client = client
        self._max_bytes = max_listing_bytes
        self._clock = clock
        self._resolver = Resolver(client, concurrency)

    def list_tags(
        self, repository: str, known: str | None = None, scope: Scope = EVERYTHING
    ) -> Listing | Unchanged:
        """Return all tags of a repository, with digests for the tags in the scope.

        If the registry lists a tag but answers 404 for its manifest, the tag has no digest and is
        in `Listing.missing`. If a manifest cannot be fetched, the listing is valid nevertheless:
        the manifest is left for the next poll, and the listing's fingerprint is None.

        Args:
            repository: The name of the repository in the registry.
            known: Fingerprint of the last recorded listing.
            scope: Which tags to resolve to digests, and whether to fetch manifests.

        Raises:
            RepositoryNotFound: If the repository does not exist.
            InconsistentListing: If the pages contradicted each other in every attempt.
            RegistryError: If a complete listing cannot be read for any other reason.
        """
        started_at = timestamp(self._clock())
        cost = Cost(self._max_bytes)
        listed = read_consistently(lambda: self._names(repository, cost), repository)
        tags, images, missing = self._resolve(repository, list(listed.names), scope, cost)
        fingerprint = _fingerprint(tags, missing, scope)
        if fingerprint == known:
            finished_at = timestamp(self._clock())
            return Unchanged(started_at, finished_at, fingerprint, cost.requests, cost.size)
        fetch = ManifestFetch(repository, scope, cost)
        if scope.manifests:
            fetch = self._resolver.fetch_manifests(repository, list(images), scope, cost)
        children = {d: image for d, image in fetch.images.items() if d not in images}
        images |= {d: image for d, image in fetch.images.items() if d in images}
        return Listing(
            tags,
            images,
            started_at,
            timestamp(self._clock()),
            None if fetch.failure else fingerprint,
            pages=listed.pages,
            requests=cost.requests,
            size=cost.size,
            unverified=tuple(tag.tag for tag in tags.values() if tag.digest in fetch.forged),
            children=children,
            steady=False,
            missing=missing,
            unfetched=str(fetch.failure) if fetch.failure else None,
            source="head",
        )

    def list_repositories(
        self,
        globs: Sequence[str],
        *,
        shared: bool = False,  # noqa: ARG002  a catalogue lists all repositories
    ) -> set[str]:
        """Return the repositories of the registry's catalogue that match one of the globs.

        Args:
            globs: Patterns over names. ``*`` also matches slashes.
            shared: Ignored, because a catalogue lists all repositories that the user may see.

        Raises:
            RegistryError: If the registry has no catalogue, or the catalogue could not be read in
                full.
        """
        if not globs:
            return set()
        cost = Cost(self._max_bytes)

        def read() -> PagedNames:
            names = PagedNames(self._client, cost, OCI_REPOSITORY)
            path = f"/v2/_catalog?n={PAGE}"
            names.read(path, lambda body: _decode_catalog(body).repositories or [])
            return names

        try:
            found = read_consistently(read, "the catalogue").names
        except (BadRequest, EndpointNotFound, Forbidden, NotFound, Unauthorized) as error:
            raise type(error)(
                f"the registry gives no list of its repositories, so name them instead of"
                f" {globs[0]!r}: {error}",
                status=error.status,
                code=error.code,
            ) from error
        return {name for name in found if any(fnmatchcase(name, glob) for glob in globs)}

    def close(self) -> None:
        """Close the connections."""
        self._resolver.close()
        self._client.close()

    def _names(self, repository: str, cost: Cost) -> PagedNames:
        names = PagedNames(self._client, cost, _TAG)
        path = f"/v2/{repository}/tags/list?n={PAGE}"
        names.read(path, lambda body: _decode_tags(body).tags or [])
        return names

    def _resolve(
        self, repository: str, names: Sequence[str], scope: Scope, cost: Cost
    ) -> tuple[dict[str, Tag], dict[str, Image], tuple[str, ...]]:
        """Resolve the tags that the scope includes; the other tags have no digest.

        Returns:
            All tags by name, the images of the tags that were resolved here, by digest, and the
            tags whose manifest the registry does not have.
        """
        unresolved = [name for name in names if scope.has(name) and name not in scope.seen]
        tags = {name: scope.seen.get(name, Tag(name)) for name in names}
        images: dict[str, Image] = {}
        missing: list[str] = []
        for resolved in self._resolver.resolve(repository, unresolved, cost):
            if resolved.image is None:
                missing.append(resolved.tag)
            else:
                tags[resolved.tag] = Tag(resolved.tag, resolved.image.digest)
                images[resolved.image.digest] = resolved.image
        return tags, images, tuple(missing)


def _fingerprint(tags: dict[str, Tag], missing: Sequence[str], scope: Scope) -> str:
    """Return a hash of all tags, their digests, and whether manifests are fetched."""
    absent = frozenset(missing)
    lines = (
        f"{name} {'404' if name in absent else tag.digest or ''}\n" for name, tag in tags.items()
    )
    hashed = sha256(_FINGERPRINT_VERSION)
    hashed.update(b"manifests\n" if scope.manifests else b"")
    for line in sorted(lines):
        hashed.update(line.encode())
    return hashed.hexdigest()
