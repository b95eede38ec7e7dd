"""Query one image, or one layer: what it consists of, and what leads to it.

Every list is bounded, because a base layer may belong to each image, and an image may have many
tags. Times are texts, as the database has them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from tagsync.audit.digest_search import paths_to
from tagsync.database.connection import Connection
from tagsync.database.decoding import Timestamp, decode
from tagsync.database.digest_index import images_referencing
from tagsync.manifests import Manifest, hex_digits
from tagsync.manifests import decode as decode_manifest

MOST_INTERVALS: Final = 1_000
"""Maximum number of intervals of tags that are read."""

MOST_IMAGES: Final = 1_000
"""Maximum number of images that are read for each layer."""

ROWS: Final = 40
"""Maximum number of tags, of images, or of indexes in a result."""

_IMAGE_SQL: Final = """
    SELECT id, digest, image_id, media_type, schema, size, manifest, verified, first_observed_at
    FROM images WHERE digest = ?
"""
_TAGS_SQL: Final = """
    SELECT h.repository, h.tag, h.digest, h.not_before, h.valid_from, h.still_at, h.valid_to
    FROM json_each(?) AS path CROSS JOIN tag_history AS h ON h.digest = path.value
    LIMIT ?
"""
_REFERENCING_SQL: Final = """
    SELECT rowid FROM image_search WHERE image_search MATCH ? ORDER BY rowid DESC LIMIT ?
"""
_BY_ID_SQL: Final = """
    SELECT id, digest, size, first_observed_at FROM images
    WHERE id IN (SELECT value FROM json_each(?))
"""
_SIZES_SQL: Final = """
    SELECT digest, size FROM images WHERE digest IN (SELECT value FROM json_each(?))
"""
_HOLDERS_SQL: Final = """
    SELECT id, digest, size, first_observed_at, manifest FROM images
    WHERE verified AND id IN (SELECT value FROM json_each(?))
"""


class Layer(msgspec.Struct, frozen=True):
    """A layer of an image.

    Attributes:
        position: 0 is the lowest layer.
        digest: The digest of the layer.
        size: Its size in bytes. None if the manifest does not state it.
        images: Number of recorded images with the layer, this one included, up to `MOST_IMAGES`.
    """

    position: int
    digest: str
    size: int | None
    images: int


class Platform(msgspec.Struct, frozen=True):
    """A manifest that an index references.

    Attributes:
        platform: ``os/architecture/variant``. Empty if the index does not state it.
        digest: The digest of the manifest.
        recorded: Whether the manifest is recorded as an image, too.
        size: The size of that image in bytes. None if it is unknown.
    """

    platform: str
    digest: str
    recorded: bool
    size: int | None


class ImageRow(msgspec.Struct, frozen=True):
    """An image in a list.

    Attributes:
        digest: The digest of its manifest.
        size: Its size in bytes. None if it is unknown.
        first_observed_at: The end of the first listing that contained it.
        layers: Number of layers in common.
    """

    digest: str
    size: int | None
    first_observed_at: str
    layers: int


class TagRow(msgspec.Struct, frozen=True):
    """An interval in which a tag pointed to an image, or to an index that leads to it.

    ``digest`` is what the tag pointed to; the times are those of the view ``tag_history``.
    """

    repository: str
    tag: str
    digest: str
    not_before: str | None
    valid_from: str
    still_at: str | None
    valid_to: str | None


class TagUse(msgspec.Struct, frozen=True):
    """The tags that lead, or led, to an image.

    Attributes:
        now: Number of tags that lead there in the last listings.
        ever: Number of tags that ever did.
        repositories: Number of repositories of these tags.
        rows: Up to `ROWS` intervals: those that last first, and the newest of these first.
        complete: Whether the counts are complete. They are not if there are more than
            `MOST_INTERVALS` intervals.
    """

    now: int
    ever: int
    repositories: int
    rows: tuple[TagRow, ...]
    complete: bool


class ImageDetails(msgspec.Struct, frozen=True):
    """An image.

    Attributes:
        digest: The digest of its manifest.
        image_id: The digest of its configuration. None if it is unknown.
        media_type: As the manifest states it. None if it is unknown.
        schema: Version of the manifest format. None if it is unknown.
        size: Bytes of configuration and layers. None if it is unknown.
        verified: Whether the recorded manifest hashes to the digest. None without a manifest.
        first_observed_at: The end of the first listing that contained the image.
        layers: Its layers, the lowest first.
        platforms: The manifests that an index references, with their platforms. Empty otherwise.
        indexes: The digests of up to `ROWS` indexes that reference it.
        tags: The tags that lead to it.
        shared_with: Up to `ROWS` other images with the same layers, the most layers first.
        shared: Number of images that share a layer, up to `MOST_IMAGES` for each layer.
    """

    digest: str
    image_id: str | None
    media_type: str | None
    schema: int | None
    size: int | None
    verified: bool | None
    first_observed_at: str
    layers: tuple[Layer, ...]
    platforms: tuple[Platform, ...]
    indexes: tuple[str, ...]
    tags: TagUse
    shared_with: tuple[ImageRow, ...]
    shared: int


class LayerUse(msgspec.Struct, frozen=True):
    """The images that have a layer.

    Attributes:
        digest: The digest of the layer.
        size: Its size in bytes. None if no image states it.
        images: Number of images with the layer, up to `MOST_IMAGES`.
        rows: Up to `ROWS` of these, the newest first.
        tags: The tags that lead to the images in ``rows``.
        complete: Whether ``images`` and ``tags`` are complete.
    """

    digest: str
    size: int | None
    images: int
    rows: tuple[ImageRow, ...]
    tags: TagUse
    complete: bool


class _Image(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``images``."""

    id: int
    digest: str
    image_id: str | None
    media_type: str | None
    schema: int | None
    size: int | None
    manifest: str | None
    verified: int | None
    first_observed_at: Timestamp


def image(db: Connection, digest: str) -> ImageDetails | None:
    """Return an image, or None if it is not recorded.

    Args:
        db: A connection to a database that `tagsync.database.migrations.check_current` accepts.
        digest: The whole digest of the manifest, with its algorithm.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    row = db.execute(_IMAGE_SQL, (digest,)).fetchone()
    if row is None:
        return None
    found: _Image = decode(row, _Image, f"image {digest}")
    # A manifest that is not verified says nothing about the image.
    manifest = decode_manifest(found.manifest if found.verified else None)
    layers = list(_layers(manifest))
    holders = {layer.digest: _holders(db, layer.digest) for layer in layers}
    common = Counter(number for numbers in holders.values() for number in numbers)
    del common[found.id]
    return ImageDetails(
        found.digest,
        found.image_id,
        found.media_type,
        found.schema,
        found.size,
        None if found.verified is None else bool(found.verified),
        found.first_observed_at,
        tuple(
            msgspec.structs.replace(layer, images=len(holders[layer.digest])) for layer in layers
        ),
        tuple(_platforms(db, manifest)),
        tuple(islice(_indexes(db, digest), ROWS)),
        tags_leading_to(db, [digest]),
        tuple(_image_rows(db, common)),
        len(common),
    )


def layer(db: Connection, digest: str) -> LayerUse:
    """Return the images that have a layer, and the tags that lead to them.

    Args:
        db: As for `image`.
        digest: The whole digest of the layer, with its algorithm.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    numbers = _holders(db, digest)
    rows = decode(
        db.execute(_HOLDERS_SQL, (json.dumps(numbers),)).fetchall(),
        list[tuple[int, str, int | None, Timestamp, str]],
        "the images of the layer",
    )
    images, size = [], None
    for _, of_image, image_size, first_at, manifest in sorted(rows, reverse=True):
        for each in _layers(decode_manifest(manifest)):
            if each.digest == digest:
                images.append(ImageRow(of_image, image_size, first_at, 1))
                size = size if each.size is None else each.size
                break
    tags = tags_leading_to(db, [each.digest for each in images[:ROWS]])
    return LayerUse(
        digest,
        size,
        len(images),
        tuple(images[:ROWS]),
        tags,
        complete=len(numbers) < MOST_IMAGES and len(images) <= ROWS and tags.complete,
    )


def tags_leading_to(
    db: Connection, digests: Sequence[str], *, most: int = MOST_INTERVALS
) -> TagUse:
    """Return the tags that point, or pointed, to images or to indexes that lead to them.

    Args:
        db: A connection to the database.
        digests: The whole digests of the images.
        most: Maximum number of intervals to read.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    paths = sorted({path for path, _ in paths_to(db, digests)})
    rows = decode(
        db.execute(_TAGS_SQL, (json.dumps(paths), most)).fetchall(),
        list[tuple[str, str, str, Timestamp | None, Timestamp, Timestamp | None, Timestamp | None]],
        "a tag of the image",
    )
    found = sorted((TagRow(*row) for row in rows), key=lambda row: row.valid_from, reverse=True)
    found.sort(key=lambda row: row.valid_to is not None)
    ever = {(row.repository, row.tag) for row in found}
    return TagUse(
        len({(row.repository, row.tag) for row in found if row.valid_to is None}),
        len(ever),
        len({repository for repository, _ in ever}),
        tuple(found[:ROWS]),
        complete=len(rows) < most,
    )


def _layers(manifest: Manifest) -> Iterator[Layer]:
    """Yield the layers of a manifest, the lowest first. Schema 1 lists the highest one first."""
    oldest = [*reversed(manifest.fs_layers or [])]
    parts = [(part.digest, part.size) for part in manifest.layers or ()]
    for position, (digest, size) in enumerate(parts or [(part.digest, None) for part in oldest]):
        if digest:
            stated = size if type(size) is int and size >= 0 else None
            yield Layer(position, digest, stated, 0)


def _platforms(db: Connection, manifest: Manifest) -> Iterator[Platform]:
    parts = [part for part in manifest.manifests or () if part.digest]
    digests = json.dumps([part.digest for part in parts])
    sizes = dict(db.execute(_SIZES_SQL, (digests,)).fetchall())
    for part in parts:
        digest = part.digest or ""
        yield Platform(str(part.platform or ""), digest, digest in sizes, sizes.get(digest))


def _indexes(db: Connection, digest: str) -> Iterator[str]:
    """Yield the digests of the indexes that reference a manifest."""
    for index, manifest, _ in islice(images_referencing(db, hex_digits(digest) or ""), MOST_IMAGES):
        if ("manifest", digest) in decode_manifest(manifest).references():
            yield index


def _holders(db: Connection, digest: str) -> list[int]:
    """Return the ids of images that reference a layer, the newest first."""
    digits = hex_digits(digest)
    if digits is None:
        return []
    rows = db.execute(_REFERENCING_SQL, (f'"{digits}"', MOST_IMAGES)).fetchall()
    return [number for (number,) in rows]


def _image_rows(db: Connection, common: Counter[int]) -> Iterable[ImageRow]:
    """Return the images with the most layers in common."""
    layers = dict(common.most_common(ROWS))
    rows = decode(
        db.execute(_BY_ID_SQL, (json.dumps(list(layers)),)).fetchall(),
        list[tuple[int, str, int | None, Timestamp]],
        "an image",
    )
    found = [ImageRow(digest, size, at, layers[number]) for number, digest, size, at in rows]
    return sorted(found, key=lambda row: (-row.layers, row.digest))
