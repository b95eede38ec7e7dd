"""Find every tag that points, or pointed, to a digest.

The digest may belong to a manifest, a configuration or a layer. A tag leads to the digest if the
tag points to an image that has this digest or that references it, directly or through an index.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.database.decoding import check_values
from tagsync.database.digest_index import images_referencing
from tagsync.errors import UnclearQuestion
from tagsync.manifests import Role, decode

LEAST_DIGITS: Final = 6
"""Minimum number of hexadecimal digits in a query."""

_MAX_COUNTED: Final = 10
"""The search stops at this number of digests with the same beginning: the query is ambiguous."""

_DIGEST: Final = re.compile(rf"(?:([a-z0-9+._-]+):)?([0-9a-f]{{{LEAST_DIGITS},128}})")

_ALGORITHMS: Final = ("sha256", "sha512")
"""The algorithms of the OCI image specification (descriptor.md, "Registered Algorithms")."""

TAGS_OF_DIGEST_SQL: Final = """
    SELECT h.repository, h.tag, h.digest, h.not_before, h.valid_from, h.still_at, h.valid_to,
           iif(json_extract(path.value, '$[1]') IS NULL, NULL, i.manifest) AS index_manifest,
           json_extract(path.value, '$[1]') AS via
    FROM json_each(?) AS path
    CROSS JOIN tag_history AS h ON h.digest = json_extract(path.value, '$[0]')
    LEFT JOIN images AS i ON i.digest = h.digest
    ORDER BY h.repository, h.tag, h.valid_from
"""
"""Every interval in which a tag pointed to one of some images.

The parameter is a JSON list of pairs: the image's digest, and the digest of the manifest through
which an index leads to the query, which is null (in JSON) if the image is not an index."""

Row = dict[str, Any]


def find(db: Connection, text: str) -> Iterator[Row]:
    """Yield every tag that leads to a digest, or led to it earlier, with the interval.

    The interval in which the tag pointed to the image ``digest`` began after ``not_before`` and no
    later than ``valid_from``. ``still_at`` is the last time at which the tag is known to have
    pointed to the image. ``valid_to`` is the end of the first listing in which it did not, or None
    if the interval has not ended.

    ``role`` is the role of the queried digest. If the image is an index, ``platform`` is the
    platform through which the index leads to the queried digest.

    Args:
        db: A connection that `tagsync.database.migrations.check_current` accepts.
        text: A digest or a unique prefix of a digest, with or without ``sha256:``.

    Raises:
        UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
    """
    found = _digest_for(db, text)
    if found is None:
        return
    digest, usage = found
    paths = sorted(_paths(db, [digest, *usage.images]), key=str)
    for row in db.query(TAGS_OF_DIGEST_SQL, (json.dumps(paths),)):
        check_values(row, "a tag of the digest")
        yield {
            "repository": row["repository"],
            "tag": row["tag"],
            "role": usage.role,
            "digest": row["digest"],
            "platform": _platform(row["index_manifest"], row["via"]),
            **{name: row[name] for name in ("not_before", "valid_from", "still_at", "valid_to")},
        }


class _Usage(NamedTuple):
    """A digest's role, and the images that have it as configuration or layer."""

    role: Role
    images: list[str]


def _digest_for(db: Connection, text: str) -> tuple[str, _Usage] | None:
    """Return the digest that begins with a text, and its usage, or None.

    The result is None if the digest is not recorded.

    Raises:
        UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
    """
    match = _DIGEST.fullmatch(text.strip().lower())
    if not match:
        raise UnclearQuestion(
            f"invalid digest {text!r}: write at least {LEAST_DIGITS} of its hexadecimal digits,"
            " with or without sha256: before them"
        )
    beginnings = [f"{name}:{match[2]}" for name in ((match[1],) if match[1] else _ALGORITHMS)]
    known = _referenced(db, match[2], tuple(beginnings))
    for digest in _recorded(db, beginnings):
        # The manifest of one image may also be a layer of another image.
        known[digest] = _Usage("manifest", known[digest].images if digest in known else [])
    if len(known) > 1:
        count = f"at least {_MAX_COUNTED}" if len(known) >= _MAX_COUNTED else str(len(known))
        first, second, *_ = sorted(known)
        raise UnclearQuestion(
            f"{text!r} is the beginning of {count} digests, {first} and {second} among them: write"
            " more digits"
        )
    return next(iter(known.items()), None)


def _recorded(db: Connection, beginnings: Iterable[str]) -> list[str]:
    """Return the digests of recorded images with one of these beginnings."""
    found: list[str] = []
    for beginning in beginnings:
        rows = db.execute(
            "SELECT digest FROM images WHERE digest >= ? AND digest < ? LIMIT ?",
            (beginning, f"{beginning}g", _MAX_COUNTED),
        )
        found += [digest for (digest,) in rows]
    return found


def _referenced(db: Connection, digits: str, beginnings: tuple[str, ...]) -> dict[str, _Usage]:
    """Return the referenced digests with one of these beginnings, and their usage."""
    found: dict[str, _Usage] = {}
    for image, manifest, image_id in images_referencing(db, digits):
        for digest, role in dict(_references(manifest, image_id)).items():
            if not digest.startswith(beginnings):
                continue
            usage = found.setdefault(digest, _Usage(role, []))
            if role != "manifest":
                usage.images.append(image)
        if len(found) >= _MAX_COUNTED:
            break
    return found


def _references(manifest: str | None, image_id: str | None) -> Iterator[tuple[str, Role]]:
    for role, digest in decode(manifest).references():
        yield digest, role
    if image_id:
        yield image_id if ":" in image_id else f"sha256:{image_id}", "config"


def _paths(db: Connection, digests: Iterable[str]) -> set[tuple[str, str | None]]:
    """Return the images with these digests, and every index that leads to one of them.

    Returns:
        Pairs of an image's digest and None, or of an index's digest and the digest of a manifest
        that the index references and that leads to one of the images.
    """
    paths: set[tuple[str, str | None]] = {(digest, None) for digest in digests}
    queue = [digest for digest, _ in paths]
    while queue:
        child = queue.pop()
        for index, manifest, _ in images_referencing(db, child.rpartition(":")[2]):
            is_index = ("manifest", child) in decode(manifest).references()
            if is_index and (index, child) not in paths:
                paths.add((index, child))
                queue.append(index)
    return paths


def _platform(index: str | None, via: str | None) -> str | None:
    """Return the platform that an index states for one of its manifests.

    Args:
        index: The text of the index. None if the image is not an index.
        via: The digest of the manifest.
    """
    descriptors = decode(index).manifests or ()
    return next((str(d.platform) for d in descriptors if d.platform and d.digest == via), None)
