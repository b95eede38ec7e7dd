"""Pure: whether a manifest's bytes are what its digest and its image's identity claim."""

from hashlib import sha256

import msgspec

from tagsync.models import Image


class _Config(msgspec.Struct):
    digest: str | None = None


class _Manifest(msgspec.Struct, rename="camel"):
    media_type: str | None = None
    config: _Config | None = None


_decode = msgspec.json.Decoder(_Manifest).decode


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
        verified=named and f"sha256:{sha256(manifest.encode()).hexdigest()}" == digest,
    )
