"""Pure: whether a manifest's bytes are what its digest and its image's identity claim."""

import hashlib
import re
from typing import Annotated, Final

import msgspec

from tagsync.models import Image


class _Config(msgspec.Struct, gc=False):
    digest: str | None = None


class _Manifest(msgspec.Struct, rename="camel", gc=False):
    media_type: str | None = None
    config: _Config | None = None


class _Descriptor(msgspec.Struct, rename="camel", gc=False):
    """What a manifest says of something that it names (OCI image specification, "descriptor")."""

    digest: str | None = None
    media_type: str | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class _Content(msgspec.Struct, rename="camel", gc=False):
    """What a manifest or an index says that is asked for by its digest."""

    schema_version: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None
    media_type: str | None = None
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


MEDIA_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""Those of manifests and indexes that are understood."""

_HASHES: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

_decode = msgspec.json.Decoder(_Manifest).decode
_decode_content = msgspec.json.Decoder(_Content).decode


def is_digest(text: str) -> bool:
    """Whether a text is a digest by an algorithm that the OCI image specification registers."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes.

    Args:
        body: the bytes.
        algorithm: ``sha256`` or ``sha512``.
    """
    return f"{algorithm}:{_HASHES[algorithm](body).hexdigest()}"


def media_type(text: str) -> str | None:
    """The media type of a ``Content-Type``, without its parameters; null where it is none."""
    name = text.partition(";")[0].strip()
    return name if _MEDIA_TYPE.fullmatch(name) else None


def fetched(digest: str, body: bytes, content_type: str) -> Image | None:
    """The image that a digest names, from the bytes that a registry gave for it.

    Its size is that of its configuration and layers, as SWR counts it; an index has none.

    Args:
        digest: see `is_digest`.
        body: what the registry gave.
        content_type: as what it gave it.

    Returns:
        Null where the bytes do not hash to the digest, or are no text.
    """
    if digest_of(body, digest.partition(":")[0]) != digest:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    content = _content(body)
    return Image(
        digest,
        image_id=_config_of(content),
        media_type=media_type(content.media_type or content_type) or media_type(content_type),
        schema=content.schema_version,
        size=_size_of(content),
        manifest=text,
        verified=True,
    )


def children(image: Image) -> list[str]:
    """The digests of the manifests and indexes that an index names, each once."""
    manifests = _content((image.manifest or "").encode()).manifests or []
    digests = (
        entry.digest
        for entry in manifests
        if entry.digest and (entry.media_type is None or entry.media_type in MEDIA_TYPES)
    )
    return list(dict.fromkeys(digest for digest in digests if is_digest(digest)))


def _content(body: bytes) -> _Content:
    """What the bytes say; nothing where they say it in another way than is understood."""
    try:
        return _decode_content(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Content()


def _config_of(content: _Content) -> str | None:
    digest = content.config.digest if content.config else None
    return digest if digest and is_digest(digest) else None


def _size_of(content: _Content) -> int | None:
    parts = [content.config, *(content.layers or [])]
    sizes = [part.size for part in parts if part is not None and part.size is not None]
    if content.config is None or len(sizes) != len(parts):
        return None
    total = sum(sizes)
    return total if total < 2**63 else None


def image(
    digest: str,
    manifest: str | None,
    *,
    image_id: str | None,
    schema: int | None,
    size: int | None,
) -> Image:
    """The image that a digest names, its manifest checked if there is one.

    The bytes have to hash to the digest, and the configuration that they name has to be the
    ``image_id``, which SWR writes with and without ``sha256:``. An index and a schema 1 manifest
    name no configuration.
    """
    if manifest is None:
        return Image(digest, image_id=image_id, schema=schema, size=size)
    try:
        content = _decode(manifest)
    except (msgspec.DecodeError, RecursionError):
        content = _Manifest()
    config = content.config.digest if content.config else None
    named = not (config and image_id) or config.rpartition(":")[2] == image_id.rpartition(":")[2]
    return Image(
        digest,
        image_id=image_id,
        media_type=content.media_type,
        schema=schema,
        size=size,
        manifest=manifest,
        verified=named and digest_of(manifest.encode()) == digest,
    )
