"""The tags of a repository, from their names to a complete listing. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from tagsync.errors import RegistryError
from tagsync.models import Image, Listing, Scope, Tag
from tagsync.registries.oci.lists.claims import HEAD, NOTHING, Believed
from tagsync.registries.oci.paging import Cost
from tagsync.registries.oci.resolve import ManifestFetch, Resolved

_FINGERPRINT_VERSION: Final = b"oci 1\n"
"""Part of each fingerprint. Change it when tagsync starts to record more of an answer, so that a
listing that was recorded before counts as changed and is recorded again."""


class Listed(NamedTuple):
    """The names of a repository's tags.

    Attributes:
        names: The valid names.
        bad_names: Listed texts that are not valid names.
        pages: Number of responses from which the names were read.
    """

    names: Sequence[str]
    bad_names: Sequence[str]
    pages: int


class Resolution(msgspec.Struct):
    """All tags of a listing, as far as they are resolved.

    Attributes:
        tags: By name.
        believed: The tags whose digests come from the registry's own list.
        images: The images of the tags that were resolved here, by digest.
        missing: Tags whose manifest the registry does not have.
        failed: Tags whose manifest could not be read for another reason.
        asked: The digest of each tag that was resolved here, or None if it has none.
        fingerprint: Hash of all this.
    """

    tags: dict[str, Tag]
    believed: Believed = NOTHING
    images: dict[str, Image] = {}
    missing: list[str] = []
    failed: dict[str, RegistryError] = {}
    asked: dict[str, str | None] = {}
    fingerprint: str = ""

    @property
    def resolved(self) -> dict[str, Tag]:
        """The tags that were resolved here and have a digest, by name."""
        return {name: self.tags[name] for name, digest in self.asked.items() if digest}

    def images_of(self, tags: Mapping[str, Tag]) -> dict[str, Image]:
        """Return the images that some of the tags point to, by digest."""
        digests = (tag.digest for tag in tags.values())
        return {digest: self.images[digest] for digest in digests if digest in self.images}

    def add(self, results: Iterable[Resolved]) -> None:
        """Add the results of some tags."""
        for result in results:
            self.asked[result.tag] = result.image.digest if result.image else None
            if result.error is not None:
                self.failed[result.tag] = result.error
            elif result.image is None:
                self.missing.append(result.tag)
            else:
                self.tags[result.tag] = Tag(result.tag, result.image.digest)
                self.images[result.image.digest] = result.image


def fingerprint(found: Resolution, bad_names: Iterable[str], scope: Scope) -> str:
    """Return a hash of all tags, their digests and where they come from."""
    believed = found.believed
    marks = dict.fromkeys(found.missing, "404") | dict.fromkeys(found.failed, "?")
    lines = [f"{name} {marks.get(name, tag.digest or '')}\n" for name, tag in found.tags.items()]
    # A bad name may contain any character. Its line differs from that of every tag.
    lines += [f"!{name!r}\n" for name in bad_names]
    hashed = sha256(_FINGERPRINT_VERSION)
    hashed.update(b"manifests\n" if scope.manifests else b"")
    # A listing from another source begins another observation, so it must not be `Unchanged`.
    hashed.update(f"source {believed.source}\n".encode() if believed.source != HEAD else b"")
    hashed.update(b"distrusted\n" if believed.distrust else b"")
    for line in sorted(lines):
        hashed.update(line.encode())
    return hashed.hexdigest()


def complete_listing(
    listed: Listed, found: Resolution, fetch: ManifestFetch, cost: Cost, times: tuple[str, str]
) -> Listing:
    """Return the listing of a repository.

    Args:
        listed: The names of its tags.
        found: The tags.
        fetch: The manifests that were fetched.
        cost: The requests and bytes of all this.
        times: When the first request was sent, and when the last answer was read.
    """
    children = {d: image for d, image in fetch.images.items() if d not in found.images}
    fetched = {d: image for d, image in fetch.images.items() if d in found.images}
    wrong = {
        name: fetch.wrong[tag.digest]
        for name, tag in found.tags.items()
        if tag.digest in fetch.wrong
    }
    return Listing(
        found.tags,
        found.images | fetched,
        *times,
        None if fetch.failure else found.fingerprint,
        pages=listed.pages,
        requests=cost.requests,
        size=cost.size,
        unverified=tuple(wrong),
        wrong_manifests=wrong,
        children=children,
        steady=False,
        missing=tuple(found.missing),
        failed={name: str(error) for name, error in found.failed.items()},
        bad_names=tuple(listed.bad_names),
        unfetched=str(fetch.failure) if fetch.failure else None,
        source=found.believed.source,
        distrust=found.believed.distrust,
    )
