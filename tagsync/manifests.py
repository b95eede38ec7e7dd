"""Decode manifests, list the digests that they reference, and check their digest.

A manifest is a JSON document that a registry stores under the hash of its bytes. The manifest of an
image references a configuration and layers; an index references the manifests of several platforms.
A registry may send any text as a manifest. tagsync decodes only the members that it uses, and
treats a text that it cannot decode as a manifest without any members.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from tagsync.models import Image

Role = Literal["manifest", "config", "layer"]
"""The role of a digest in the manifest that references it."""

MEDIA_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Media types of the manifests and indexes that tagsync asks for first."""

SCHEMA_1_MEDIA_TYPES: Final = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
"""Media types of the oldest manifests. Many registries convert newer ones to them on request."""

ACCEPT: Final = ", ".join((*MEDIA_TYPES, *(f"{name};q=0.1" for name in SCHEMA_1_MEDIA_TYPES)))
"""The types to accept in a request for a manifest. Schema 1 is accepted last, because some
registries send an old image only to clients that accept it."""

_MANIFEST_TYPES: Final = frozenset(
    (*MEDIA_TYPES, *SCHEMA_1_MEDIA_TYPES, "application/vnd.oci.artifact.manifest.v1+json")
)

_SCHEMA_VERSIONS: Final = frozenset({1, 2})

_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_OTHER_DIGEST: Final = re.compile(
    r"(?!sha256:|sha512:)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[A-Za-z0-9=_-]{32,256}"
)
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


class _Kind(msgspec.Struct, rename="camel", gc=False):
    """The members that say whether a document is a manifest, or an error of a registry."""

    schema_version: Any = None
    media_type: Any = None
    errors: Any = None


class _Signature(msgspec.Struct, gc=False):
    protected: str


class _Signed(msgspec.Struct, gc=False):
    """A manifest of schema 1 with its signatures."""

    signatures: list[_Signature] = []


class _Protected(msgspec.Struct, rename="camel", gc=False):
    """Which part of a manifest is signed: its beginning of this length, and this tail."""

    format_length: int
    format_tail: str


_decode: Final = msgspec.json.Decoder(Manifest).decode
_decode_kind: Final = msgspec.json.Decoder(_Kind).decode
_decode_signatures: Final = msgspec.json.Decoder(_Signed).decode
_decode_protected: Final = msgspec.json.Decoder(_Protected).decode


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


def is_manifest(body: bytes) -> bool:
    """Return whether a body is a manifest, and not an error, a sign-in page or the like.

    A manifest is a JSON object with the ``schemaVersion`` 1 or 2, or with the ``mediaType`` of a
    manifest. An object with ``errors`` is an error, whatever else it has.
    The status and the ``Content-Type`` of a response prove nothing: some front servers answer every
    request with 200 and a page.
    """
    try:
        body.decode()  # msgspec does not check the encoding of keys that it skips
        content = _decode_kind(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if content.errors:
        return False
    is_typed = isinstance(content.media_type, str) and content.media_type in _MANIFEST_TYPES
    return is_typed or _natural(content.schema_version) in _SCHEMA_VERSIONS


def without_signature(body: bytes) -> bytes:
    """Return a signed manifest of schema 1 without its signature, and any other body unchanged.

    The digest of such a manifest is that of the part which is signed. The signature may differ in
    each answer. Source: distribution, "Image Manifest Version 2, Schema 1", "Signed Manifests".
    """
    try:
        signatures = _decode_signatures(body).signatures
        if not signatures:
            return body
        protected = _decode_protected(_base64url(signatures[0].protected))
        tail = _base64url(protected.format_tail)
    except (ValueError, RecursionError):  # the errors of msgspec and binascii are ValueErrors
        return body
    if not 0 < protected.format_length <= len(body):
        return body
    return body[: protected.format_length] + tail


def is_digest(text: str) -> bool:
    """Return whether a text is a digest by SHA-256 or SHA-512.

    The OCI image specification registers these two algorithms.
    """
    return _DIGEST.fullmatch(text) is not None


def may_be_digest(text: str) -> bool:
    """Return whether a text has the form of a digest.

    Digests by SHA-256 and SHA-512 are checked exactly. Other algorithms, which tagsync cannot
    verify, need the form of the OCI image specification, "Digests", and 128 bits or more.
    """
    return is_digest(text) or _OTHER_DIGEST.fullmatch(text) is not None


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of bytes.

    Args:
        body: The bytes.
        algorithm: ``sha256`` or ``sha512``.
    """
    return f"{algorithm}:{_HASHES[algorithm](body).hexdigest()}"


def actual_digest(body: bytes, digest: str) -> str:
    """Return the digest of bytes by the algorithm of another digest.

    Args:
        body: The bytes.
        digest: The digest that a registry states. SHA-256 is used if it is not a valid one.
    """
    return digest_of(body, digest.partition(":")[0] if is_digest(digest) else "sha256")


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

    If the row has a manifest, the image is verified if the manifest's hash is the digest. The
    values that a verified manifest states then take the place of those of the row. An index and a
    schema 1 manifest reference no configuration and have no size, so those of the row stay.
    """
    if manifest is None:
        return Image(digest, image_id=image_id, schema=schema, size=size)
    body = manifest.encode()
    read = fetched_image(digest, body, "") if is_digest(digest) else None
    if read is None:
        stated = decode(body).media_type
        media_type = stated if isinstance(stated, str) else None
        return Image(digest, image_id, media_type, schema, size, manifest, verified=False)
    return replace(
        read,
        image_id=_decided_image_id(read.image_id, image_id),
        schema=schema if read.schema is None else read.schema,
        size=size if read.size is None else read.size,
    )


def _decided_image_id(config: str | None, listed: str | None) -> str | None:
    """Return the image_id of a verified image.

    Args:
        config: The configuration that the manifest references. None if it references none.
        listed: The image_id in the registry's list. SWR writes it with or without ``sha256:``.

    Returns:
        ``listed``, exactly as the registry wrote it, unless the manifest references another one.
    """
    if config is None or not listed:
        return config or listed
    agrees = config.rpartition(":")[2] == listed.rpartition(":")[2]
    return listed if agrees else config


def fetched_image(digest: str, body: bytes, content_type: str) -> Image | None:
    """Return the image that a manifest describes, which was fetched by its digest.

    The size of the image is the sum of the sizes of its configuration and its layers, as SWR
    counts it. An index has no size. The signature of a schema 1 manifest is left out if the digest
    is that of the rest.

    Args:
        digest: The digest that was requested.
        body: The bytes that the registry sent.
        content_type: The ``Content-Type`` header of the response.

    Returns:
        None if the hash of the bytes is not the digest, or if they are not UTF-8 text.
    """
    algorithm = digest.partition(":")[0]
    if digest_of(body, algorithm) != digest:
        body = without_signature(body)
        if digest_of(body, algorithm) != digest:
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


def _base64url(text: str) -> bytes:
    """Decode base64url text, whose padding may be missing.

    Raises:
        ValueError: If the text is not base64url.
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


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
