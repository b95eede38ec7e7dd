"""Where a digest is, and ever was: which tags lead to a manifest, a configuration or a layer."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlite_utils import Database

from tagsync.errors import UnclearQuestion
from tagsync.parts import Role, digits_of, key, key_range, parts

LEAST_DIGITS: Final = 6
"""How many hexadecimal digits of a digest have to be given."""

_ENOUGH: Final = 10
"""How many digests of one beginning are looked at, to tell that it is ambiguous."""

_DIGEST: Final = re.compile(rf"(?:([a-z0-9+._-]+):)?([0-9a-f]{{{LEAST_DIGITS},128}})")

_ALGORITHMS: Final = ("sha256", "sha512")
"""What the OCI image specification registers (descriptor.md, "Registered Algorithms")."""


def _of_key(digest: str, algorithm: str, number: str) -> str:
    """The condition of images of a key, by the index on digests: g comes after all their digits."""
    beginning = f"{algorithm} || ':' || printf('%015x', {number})"
    return f"{digest} >= {beginning} AND {digest} < {beginning} || 'g'"


HOLDERS: Final = f"""
    WITH RECURSIVE holder (image, via) AS (
        SELECT :key, NULL
        UNION
        SELECT p.image, h.image FROM holder AS h CROSS JOIN image_parts AS p ON p.part = h.image
    ),
    algorithm (name) AS (VALUES ('sha256'), ('sha512'))
    SELECT h.repository, h.tag, h.digest, h.not_before, h.valid_from, h.still_at, h.valid_to,
           iif(instr(i.manifest, '"manifests"'), i.manifest, NULL) AS index_manifest, holder.via
    FROM holder CROSS JOIN algorithm
    CROSS JOIN images AS i ON {_of_key("i.digest", "algorithm.name", "holder.image")}
    CROSS JOIN tag_history AS h ON h.digest = i.digest
    WHERE holder.via IS NULL
          OR instr(i.manifest, iif(holder.via = :key, :digits, printf('%015x', holder.via)))
          OR instr(i.image_id, :digits)
    ORDER BY h.repository, h.tag, h.valid_from
"""  # noqa: S608  constants
"""Every tag that points, or pointed, to what has this key or names it, by however many steps."""

UNEXPLAINED: Final = f"""
    WITH algorithm (name) AS (VALUES ('sha256'), ('sha512'))
    SELECT i.manifest, i.image_id FROM image_parts AS p CROSS JOIN algorithm
    CROSS JOIN images AS i ON {_of_key("i.digest", "algorithm.name", "p.image")}
    WHERE p.part = ? AND NOT EXISTS (
        SELECT 1 FROM json_each(?) AS name
        WHERE instr(i.manifest, name.value) OR instr(i.image_id, name.value)
    ) LIMIT 1
"""  # noqa: S608  constants
"""An image that names something of this key, but none of what is known already."""

Row = dict[str, Any]


def find(db: Database, text: str) -> Iterator[Row]:
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
    role, digest = found
    for row in db.query(HOLDERS, {"key": key(digest), "digits": digits_of(digest)}):
        yield {
            "repository": row["repository"],
            "tag": row["tag"],
            "role": role,
            "digest": row["digest"],
            "platform": _platform(row["index_manifest"], row["via"]),
            **{name: row[name] for name in ("not_before", "valid_from", "still_at", "valid_to")},
        }


def _meaning(db: Database, text: str) -> tuple[Role, str] | None:
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
    algorithms = (match[1],) if match[1] else _ALGORITHMS
    known = {**_named(db, algorithms, match[2]), **_images(db, algorithms, match[2])}
    if len(known) > 1:
        count = f"at least {_ENOUGH}" if len(known) >= _ENOUGH else str(len(known))
        first, second, *_ = sorted(known)
        raise UnclearQuestion(
            f"{text!r} begins {count} digests, {first} and {second} among them: write more of the"
            " one that is meant"
        )
    return next(((role, digest) for digest, role in known.items()), None)


def _images(db: Database, algorithms: Sequence[str], digits: str) -> dict[str, Role]:
    found: dict[str, Role] = {}
    for algorithm in algorithms:
        rows = db.execute(
            "SELECT digest FROM images WHERE digest >= ? AND digest < ? LIMIT ?",
            (f"{algorithm}:{digits}", f"{algorithm}:{digits}g", _ENOUGH),
        )
        found |= {digest: "manifest" for (digest,) in rows}
    return found


def _named(db: Database, algorithms: Sequence[str], digits: str) -> dict[str, Role]:
    """What images name that begins so."""
    rows = db.execute(
        "SELECT DISTINCT part FROM image_parts WHERE part BETWEEN ? AND ? LIMIT ?",
        (*key_range(digits), _ENOUGH),
    ).fetchall()
    return {
        digest: role
        for (part,) in rows
        for digest, role in _names(db, part).items()
        if any(digest.startswith(f"{algorithm}:{digits}") for algorithm in algorithms)
    }


def _names(db: Database, part: int) -> dict[str, Role]:
    """The digests of a key, which is one unless somebody made another up to look like it."""
    found: dict[str, Role] = {}
    while len(found) < _ENOUGH:
        row = db.execute(UNEXPLAINED, (part, json.dumps([digits_of(name) for name in found])))
        manifest, image_id = row.fetchone() or (None, None)
        fresh: dict[str, Role] = {name: role for role, name in parts(manifest).named()}
        if image_id:
            fresh[f"sha256:{digits_of(image_id)}"] = "config"
        fresh = {name: role for name, role in fresh.items() if key(name) == part}
        if fresh.keys() <= found.keys():
            break
        found |= fresh
    return found


def _platform(index: str | None, via: int | None) -> str | None:
    """The platform of the manifest through which an index led to what was looked for."""
    if index is None or via is None:
        return None
    descriptors = parts(index).manifests or ()
    return next(
        (str(d.platform) for d in descriptors if d.platform and key(d.digest or "") == via), None
    )
