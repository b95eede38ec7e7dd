"""Where a digest is, and ever was: which tags lead to a manifest, a configuration or a layer."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.database.parts import BATCH, Role, key_digits, key_range, parts
from tagsync.errors import UnclearQuestion

LEAST_DIGITS: Final = 6
"""How many hexadecimal digits of a digest have to be given."""

_ENOUGH: Final = 10
"""How many digests of one beginning are looked at, to tell that it is ambiguous."""

_DIGEST: Final = re.compile(rf"(?:([a-z0-9+._-]+):)?([0-9a-f]{{{LEAST_DIGITS},128}})")

_ALGORITHMS: Final = ("sha256", "sha512")
"""What the OCI image specification registers (descriptor.md, "Registered Algorithms")."""


BATCHES: Final = """
    WITH RECURSIVE batch (number) AS (
        SELECT min(batch) FROM image_parts UNION ALL
        SELECT (SELECT min(batch) FROM image_parts WHERE batch > number) FROM batch
        WHERE number IS NOT NULL
    )
"""
"""Every batch of which ``image_parts`` tells, each by one step there, and a null after the last."""

PARTS: Final = f"""
    {BATCHES} SELECT DISTINCT p.part FROM batch AS b
    CROSS JOIN image_parts AS p ON p.batch = b.number AND p.part BETWEEN ? AND ?
"""  # noqa: S608  constants
"""The keys in a range of the configurations and layers that any image names."""

NAMING: Final = f"""
    {BATCHES} SELECT i.digest, i.manifest, i.image_id FROM batch AS b
    CROSS JOIN image_parts AS p ON p.batch = b.number AND p.part = :part
    CROSS JOIN images AS i
        ON i.number BETWEEN b.number * {BATCH} + 1 AND (b.number + 1) * {BATCH}
    WHERE instr(i.manifest, :digits) OR instr(i.image_id, :digits) OR instr(i.manifest, '\\u00')
"""  # noqa: S608  constants
"""The images that may name a configuration or a layer of this key, whose digits these are.

JSON may write any of the digits as an escape (RFC 8259, section 7).
"""

LEADING: Final = """
    WITH RECURSIVE holder (digest, via) AS (
        SELECT :digest, NULL
        UNION SELECT value, NULL FROM json_each(:naming)
        UNION SELECT m.index_digest, h.digest
        FROM holder AS h CROSS JOIN index_manifests AS m ON m.manifest_digest = h.digest
    )
    SELECT h.repository, h.tag, h.digest, h.not_before, h.valid_from, h.still_at, h.valid_to,
           iif(holder.via IS NULL, NULL, i.manifest) AS index_manifest, holder.via
    FROM holder CROSS JOIN images AS i ON i.digest = holder.digest
    CROSS JOIN tag_history AS h ON h.digest = i.digest
    ORDER BY h.repository, h.tag, h.valid_from
"""
"""Every tag that points, or pointed, to a digest, an image naming it, or an index of those."""

Row = dict[str, Any]


def find(db: Connection, text: str) -> Iterator[Row]:
    """Every tag that leads to what a digest names, or ever did, and from when until when.

    A row's tag pointed to ``digest`` from some moment after ``not_before`` and no later than
    ``valid_from``; at ``still_at`` it still did; and it ceased to no later than ``valid_to``, which
    is null if the last complete listing had it. ``role`` is what was looked for, and ``platform``
    the platform of the index through which it was found.

    Args:
        db: one that `schema.check_current` accepts.
        text: with or without ``sha256:``; the beginning will do, if it is unique.

    Raises:
        UnclearQuestion: it is no digest, or begins more than one.
    """
    found = _meaning(db, text)
    if found is None:
        return
    digest, meant = found
    names = {"digest": digest, "naming": json.dumps(meant.images)}
    for row in db.query(LEADING, names):
        yield {
            "repository": row["repository"],
            "tag": row["tag"],
            "role": meant.role,
            "digest": row["digest"],
            "platform": _platform(row["index_manifest"], row["via"]),
            **{name: row[name] for name in ("not_before", "valid_from", "still_at", "valid_to")},
        }


class _Named(NamedTuple):
    """What a digest is, and the images that name it as their configuration or a layer."""

    role: Role
    images: list[str]


def _meaning(db: Connection, text: str) -> tuple[str, _Named] | None:
    """The one digest that is meant, and what it is; null if there is none.

    Raises:
        UnclearQuestion: it is no digest, or begins more than one.
    """
    match = _DIGEST.fullmatch(text.strip().lower())
    if not match:
        raise UnclearQuestion(
            f"{text!r} is no digest: write at least {LEAST_DIGITS} of its hexadecimal digits, with"
            " or without sha256: before them"
        )
    beginnings = [f"{name}:{match[2]}" for name in ((match[1],) if match[1] else _ALGORITHMS)]
    known = _parts(db, match[2], beginnings)
    for digest in chain.from_iterable(_manifests(db, beginning) for beginning in beginnings):
        # What an index calls a manifest may be a layer elsewhere, and leads to those images too.
        known[digest] = _Named("manifest", known[digest].images if digest in known else [])
    if len(known) > 1:
        count = f"at least {_ENOUGH}" if len(known) >= _ENOUGH else str(len(known))
        first, second, *_ = sorted(known)
        raise UnclearQuestion(
            f"{text!r} begins {count} digests, {first} and {second} among them: write more of the"
            " one that is meant"
        )
    return next(iter(known.items()), None)


def _manifests(db: Connection, beginning: str) -> list[str]:
    """Images, and manifests that an index names, whether or not they were fetched."""
    rows = db.execute(
        "SELECT * FROM (SELECT digest FROM images WHERE digest >= :from AND digest < :to LIMIT"
        " :enough) UNION SELECT * FROM (SELECT DISTINCT manifest_digest FROM index_manifests"
        " WHERE manifest_digest >= :from AND manifest_digest < :to LIMIT :enough)",
        {"from": beginning, "to": f"{beginning}g", "enough": _ENOUGH},
    )
    return [digest for (digest,) in rows]


def _parts(db: Connection, digits: str, beginnings: Sequence[str]) -> dict[str, _Named]:
    """The configurations and layers that begin so."""
    found: dict[str, _Named] = {}
    for (part,) in db.execute(PARTS, key_range(digits)):
        if len(found) >= _ENOUGH:
            break
        naming = db.execute(NAMING, {"part": part, "digits": key_digits(part)})
        for digest, manifest, image_id in naming:
            for name, role in dict(_names(manifest, image_id)).items():
                if name.startswith(tuple(beginnings)):
                    found.setdefault(name, _Named(role, [])).images.append(digest)
    return found


def _names(manifest: str | None, image_id: str | None) -> Iterator[tuple[str, Role]]:
    for role, name in parts(manifest).named():
        if role != "manifest":
            yield name, role
    if image_id:
        yield image_id if ":" in image_id else f"sha256:{image_id}", "config"


def _platform(index: str | None, via: str | None) -> str | None:
    """The platform of the manifest through which an index led to what was looked for."""
    descriptors = parts(index).manifests or ()
    return next((str(d.platform) for d in descriptors if d.platform and d.digest == via), None)
