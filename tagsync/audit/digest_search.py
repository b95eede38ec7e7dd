"""Find every tag that points, or pointed, to a digest.

The digest may be that of a manifest, of a configuration or of a layer. A tag leads to it if its
image is the manifest or references the digest, directly or through an index.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.database.digest_index import images_referencing
from tagsync.errors import UnclearQuestion
from tagsync.manifests import Role, decode

LEAST_DIGITS: Final = 6
"""Fewest hexadecimal digits of a digest that a query may have."""

_ENOUGH: Final = 10
"""Digests with the same beginning to look at before calling it ambiguous."""

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
"""Every tag of some images. The parameter is a JSON list of pairs: an image's digest, and the
digest through which it leads to the query, if it is an index."""

Row = dict[str, Any]


def find(db: Connection, text: str) -> Iterator[Row]:
    """Yield every tag that leads to a digest, or did, with the interval in which it does.

    The tag came to point to ``digest`` after ``not_before`` and no later than ``valid_from``. At
    ``still_at`` it still did, and it ceased to no later than ``valid_to``, which is None if the
    last complete listing had it. ``role`` is what the query is, and ``platform`` the platform of
    the index through which it was found.

    Args:
        db: A connection that `tagsync.database.migrations.check_current` accepts.
        text: A digest or a unique prefix of one, with or without ``sha256:``.

    Raises:
        UnclearQuestion: If the text is not a digest, or the prefix of more than one.
    """
    found = _meaning(db, text)
    if found is None:
        return
    digest, meaning = found
    paths = sorted(_paths(db, [digest, *meaning.images]), key=str)
    for row in db.query(TAGS_OF_DIGEST_SQL, (json.dumps(paths),)):
        yield {
            "repository": row["repository"],
            "tag": row["tag"],
            "role": meaning.role,
            "digest": row["digest"],
            "platform": _platform(row["index_manifest"], row["via"]),
            **{name: row[name] for name in ("not_before", "valid_from", "still_at", "valid_to")},
        }


class _Meaning(NamedTuple):
    """The role of a digest, and the images that reference it as configuration or layer."""

    role: Role
    images: list[str]


def _meaning(db: Connection, text: str) -> tuple[str, _Meaning] | None:
    """Return the one digest that a query means, and what it is; None if there is none.

    Raises:
        UnclearQuestion: If the text is not a digest, or the prefix of more than one.
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
        # The manifest of one image may be a layer of another, which then leads to it, too.
        known[digest] = _Meaning("manifest", known[digest].images if digest in known else [])
    if len(known) > 1:
        count = f"at least {_ENOUGH}" if len(known) >= _ENOUGH else str(len(known))
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
            (beginning, f"{beginning}g", _ENOUGH),
        )
        found += [digest for (digest,) in rows]
    return found


def _referenced(db: Connection, digits: str, beginnings: tuple[str, ...]) -> dict[str, _Meaning]:
    """Return the digests with one of these beginnings that images reference."""
    found: dict[str, _Meaning] = {}
    for image, manifest, image_id in images_referencing(db, digits):
        for digest, role in dict(_references(manifest, image_id)).items():
            if not digest.startswith(beginnings):
                continue
            meaning = found.setdefault(digest, _Meaning(role, []))
            if role != "manifest":
                meaning.images.append(image)
        if len(found) >= _ENOUGH:
            break
    return found


def _references(manifest: str | None, image_id: str | None) -> Iterator[tuple[str, Role]]:
    for role, digest in decode(manifest).references():
        yield digest, role
    if image_id:
        yield image_id if ":" in image_id else f"sha256:{image_id}", "config"


def _paths(db: Connection, digests: Iterable[str]) -> set[tuple[str, str | None]]:
    """Return every image that is one of the digests or an index of them.

    Each comes with the digest through which an index leads there, once for each such digest.
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
    """Return the platform of the manifest through which an index led to the query."""
    descriptors = decode(index).manifests or ()
    return next((str(d.platform) for d in descriptors if d.platform and d.digest == via), None)
