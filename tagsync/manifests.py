"""Decode manifests, list the digests that they reference, and check their digest.

A manifest is a JSON document that a registry stores under the hash of its bytes. The manifest of an
image references a configuration and layers; an index references the manifests of several platforms.
A registry may send any text as a manifest. tagsync decodes only the members that it uses, and
treats a text that it cannot decode as a manifest without any members.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from tagsync.models import Image

Role = Literal["manifest", "config", "layer"]
"""The role of a digest in the manifest that references it."""

MEDIA_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Media types of the manifests and indexes that tagsync asks for."""

_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ANY_DIGEST: Final = re.compile(r"(?:[a-z0-9+._-]+:)?([0-9a-f]{32,128})")

_LARGEST: Final = 2**63 - 1
"""Largest integer that SQLite stores."""


class Platform(msgspec.Struct, gc=False):
    """The operating system and processor for which an index lists a manifest."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, rename="camel", gc=False):
    """A reference to other content (OCI image specification, "Content Descriptors")."""

    digest: str | None = None
    media_type: Any = None
    size: Any = None
    platform: Platform | None = None


class _Schema1Layer(msgspec.Struct, rename={"digest": "blobSum"}, gc=False):
    digest: str | None = None


class Manifest(msgspec.Struct, rename="camel", gc=False):
    """A manifest or an index of any kind.

    Attributes:
        schema_version: As the registry sent it, of any type; see `version`.
        media_type: As the registry sent it, of any type.
        config: The configuration of an image.
        layers: The layers of an image.
        fs_layers: The layers of a schema 1 image, the newest first.
        manifests: The manifests of an index.
    """

    schema_version: Any = None
    media_type: Any = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    fs_layers: list[_Schema1Layer] | None = None
    manifests: list[Descriptor] | None = None

    @property
    def version(self) -> int | None:
        """The member ``schemaVersion``. None if the database cannot store it as a number."""
        return _natural(self.schema_version)

    def references(self) -> Iterator[tuple[Role, str]]:
        """Yield each digest that the manifest references, with its role."""
        groups: tuple[tuple[Role, list[Descriptor | _Schema1Layer]], ...] = (
            ("config", [self.config] if self.config else []),
            ("layer", [*(self.layers or ()), *(self.fs_layers or ())]),
            ("manifest", [*(self.manifests or ())]),
        )
        for role, descriptors in groups:
            for descriptor in descriptors:
                if descriptor.digest:
                    yield role, descriptor.digest


_decode: Final = msgspec.json.Decoder(Manifest).decode


def decode(manifest: str | bytes | None) -> Manifest:
    """Return the content of a manifest.

    The result has no members if ``manifest`` is None or cannot be decoded.
    """
    if manifest is None:
        return Manifest()
    try:
        return _decode(manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Manifest()


def is_digest(text: str) -> bool:
    """Return whether a text is a digest by SHA-256 or SHA-512.

    The OCI image specification registers these two algorithms.
    """
    return _DIGEST.fullmatch(text) is not None


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of bytes.

    Args:
        body: The bytes.
        algorithm: ``sha256`` or ``sha512``.
    """
    return f"{algorithm}:{_HASHES[algorithm](body).hexdigest()}"


def _hashes_to(body: bytes, digest: str) -> bool:
    """Return whether a text is the digest of these bytes, by SHA-256 or SHA-512."""
    return is_digest(digest) and digest_of(body, digest.partition(":")[0]) == digest


def media_type(content_type: str) -> str | None:
    """Return the media type in a ``Content-Type`` header, without its parameters.

    Returns:
        None if the media type is invalid.
    """
    name = content_type.partition(";")[0].strip()
    return name if _MEDIA_TYPE.fullmatch(name) else None


def listed_image(
    digest: str,
    manifest: str | None,
    *,
    image_id: str | None,
    schema: int | None,
    size: int | None,
) -> Image:
    """Return the image that one row of a registry's tag list describes.

    If the row has a manifest, the image is verified if two conditions hold: the manifest's hash is
    the digest, and the configuration that the manifest references is ``image_id``. SWR writes
    ``image_id`` with or without ``sha256:``. An index and a schema 1 manifest reference no
    configuration, so only the first condition applies to them.
    """
    if manifest is None:
        return Image(digest, image_id=image_id, schema=schema, size=size)
    content = decode(manifest)
    config = content.config.digest if content.config else None
    agrees = not (config and image_id) or config.rpartition(":")[2] == image_id.rpartition(":")[2]
    return Image(
        digest,
        image_id=image_id,
        media_type=content.media_type if isinstance(content.media_type, str) else None,
        schema=schema,
        size=size,
        manifest=manifest,
        verified=agrees and _hashes_to(manifest.encode(), digest),
    )


def fetched_image(digest: str, body: bytes, content_type: str) -> Image | None:
    """Return the image that a manifest describes, which was fetched by its digest.

    The size of the image is the sum of the sizes of its configuration and its layers, as SWR
    counts it. An index has no size.

    Args:
        digest: The digest that was requested.
        body: The bytes that the registry sent.
        content_type: The ``Content-Type`` header of the response.

    Returns:
        None if the hash of the bytes is not the digest, or if they are not UTF-8 text.
    """
    if digest_of(body, digest.partition(":")[0]) != digest:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    content = decode(body)
    stated = content.media_type if isinstance(content.media_type, str) else ""
    config = content.config.digest if content.config else None
    return Image(
        digest,
        image_id=config if config and is_digest(config) else None,
        media_type=media_type(stated) or media_type(content_type),
        schema=content.version,
        size=_size_of(content),
        manifest=text,
        verified=True,
    )


def children(image: Image) -> list[str]:
    """Return the digests of the manifests that an index references, each once."""
    digests = (
        entry.digest
        for entry in decode(image.manifest).manifests or ()
        if entry.digest and (entry.media_type is None or entry.media_type in MEDIA_TYPES)
    )
    return list(dict.fromkeys(digest for digest in digests if is_digest(digest)))


@lru_cache(maxsize=4096)  # images share layers, so the cache makes a first import 3 % faster
def hex_digits(digest: str) -> str | None:
    """Return the hexadecimal digits of a digest, or None if the text is not a digest.

    Args:
        digest: With or without its algorithm; SWR sends some digests without it.
    """
    match = _ANY_DIGEST.fullmatch(digest)
    return match[1] if match else None


def _natural(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _LARGEST else None


def _size_of(content: Manifest) -> int | None:
    """Return the size of configuration and layers, or None if a size is missing."""
    if content.config is None:
        return None
    sizes = [_natural(part.size) for part in (content.config, *(content.layers or ()))]
    known = [size for size in sizes if size is not None]
    return _natural(sum(known)) if len(known) == len(sizes) else None
