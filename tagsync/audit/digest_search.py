"""Find every tag that leads, or led, to a digest.

The digest may be that of a manifest, a configuration or a layer. A tag leads to a digest if the
image that the tag points to has this digest or references it. An index also references the digests
that its manifests reference.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from tagsync.audit.rows import FindRow, column_names
from tagsync.database.connection import Connection
from tagsync.database.decoding import check_values
from tagsync.database.digest_index import (
    images_referencing,
    images_referencing_any,
    referenced_digits,
)
from tagsync.errors import UnclearQuestion
from tagsync.manifests import Role, decode

LEAST_DIGITS: Final = 6
"""Minimum number of hexadecimal digits in a query."""

_MAX_COUNTED: Final = 10
"""Number of digests at which a search by a prefix stops, because the prefix is ambiguous anyway."""

_DIGEST: Final = re.compile(
    r"(?!sha256:[0-9a-f]{65}|[0-9a-f]{65,127}\Z)"
    rf"(?:([a-z0-9+._-]+):)?([0-9a-f]{{{LEAST_DIGITS},128}})"
)
"""A digest or a prefix of one. A text with too many digits is a mistake, not an unknown digest.

Without an algorithm, more than 64 digits are a whole sha512, or a sha256 with digits too many.
"""

_WHOLE: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}|(?:sha512:)?[0-9a-f]{128}", re.IGNORECASE)
_SHA256_DIGITS: Final = 64

_ALGORITHMS: Final = ("sha256", "sha512")
"""Algorithms to search if a query names none.

They are those of the OCI image specification (descriptor.md, "Registered Algorithms").
"""

TAGS_OF_DIGEST_SQL: Final = """
    SELECT h.repository, h.tag, h.digest, h.not_before, h.valid_from, h.still_at, h.valid_to,
           iif(json_extract(path.value, '$[1]') IS NULL, NULL, i.manifest) AS index_manifest,
           json_extract(path.value, '$[1]') AS via
    FROM json_each(?) AS path
    CROSS JOIN tag_history AS h ON h.digest = json_extract(path.value, '$[0]')
    LEFT JOIN images AS i ON i.digest = h.digest
    ORDER BY h.repository, h.tag, h.valid_from
"""
"""A query for every interval in which a tag pointed to one of several images.

The parameter is a JSON list with a pair for each image. The first element of a pair is the image's
digest. If the image is an index that leads to the searched digest through one of its manifests, the
second element is the digest of this manifest. Otherwise, the second element is JSON's null.
"""

_SOME_TAGS_OF_DIGEST_SQL: Final = TAGS_OF_DIGEST_SQL.replace(
    "ORDER BY h.repository, h.tag, h.valid_from", "LIMIT ?"
)
"""Like `TAGS_OF_DIGEST_SQL`, but only some of the intervals are read, in any order."""

Row = dict[str, Any]


def find(db: Connection, texts: Iterable[str], *, current: bool = False) -> Iterator[Row]:
    """Yield a row for each interval in which a tag led to one of several digests.

    ``query`` is the searched digest, in full if it is recorded. ``digest`` is the digest of the
    image that the tag pointed to. The tag began to point to this image after ``not_before`` and no
    later than ``valid_from``. ``still_at`` is the last time at which the tag is known to have
    pointed to the image. ``valid_to`` is the end of the first listing in which the tag no longer
    pointed to the image. It is None if the tag still points to the image.

    ``role`` is the role of the searched digest. If the image is an index that leads to the searched
    digest through one of its manifests, ``platform`` is the platform that the index states for this
    manifest. Otherwise ``platform`` is None. For a digest to which no tag ever led there is one row
    with the role ``unknown``, in which everything but ``query`` is None.

    Args:
        db: A connection to a database that `tagsync.database.migrations.check_current` accepts.
        texts: Digests or unique prefixes of digests, with or without ``sha256:``. Duplicates are
            ignored.
        current: Whether to yield only intervals that have not ended.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
        UnclearQuestion: If a text is not a digest, or is the prefix of several digests.
    """
    # Resolve all of them first, so that an unclear one is reported before any row.
    queries = {_completed(text): text for text in texts}
    for query, usage in dict(_resolve(db, query) for query in queries).items():
        rows = list(_intervals(db, query, usage)) if usage else []
        if not rows:
            yield _unknown(query)
        yield from (row for row in rows if not (current and row["valid_to"]))


def find_some(db: Connection, text: str, most: int) -> tuple[list[Row], bool]:
    """Return rows of `find` at a bounded cost, and whether they are all.

    A base layer may belong to each image, and an image may have any number of tags. If there are
    too many, the rows are of the newest images, and are some of their intervals.

    Args:
        db: As in `find`.
        text: As in `find`. Only a whole digest has a bounded cost.
        most: Maximum number of intervals, and of images with the digest, that are read.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
        UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
    """
    query, usage = _resolve(db, _completed(text), most if is_whole(text.strip()) else None)
    rows = list(_intervals(db, query, usage, most)) if usage else []
    complete = len(rows) < most and (usage is None or len(usage.images) < most)
    return rows or [_unknown(query)], complete


def digests_beginning(db: Connection, text: str, limit: int = _MAX_COUNTED) -> list[str]:
    """Return the recorded or referenced digests that begin with a text, sorted.

    Args:
        db: As in `find`.
        text: A digest or the beginning of one, with or without its algorithm.
        limit: Maximum number of digests.

    Raises:
        UnclearQuestion: If the text is not a digest.
    """
    digits, beginnings = _beginnings(text)
    referenced = (
        f"{'sha256' if len(term) == _SHA256_DIGITS else 'sha512'}:{term}"
        for term in referenced_digits(db, digits, limit)
    )
    found = {*_recorded(db, beginnings), *(d for d in referenced if d.startswith(beginnings))}
    return sorted(found)[:limit]


def summarize(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a row for each digest: its role, and how many tags lead to it now and ever did.

    Args:
        rows: The rows of `find`, without ``current``.
    """
    for query, group in groupby(rows, key=itemgetter("query")):
        found = list(group)
        ever = {(row["repository"], row["tag"]) for row in found if row["tag"] is not None}
        now = {(row["repository"], row["tag"]) for row in found if leads_there_now(row)}
        yield {
            "query": query,
            "role": found[0]["role"],
            "tags_now": len(now),
            "tags_ever": len(ever),
            "repositories": len({repository for repository, _ in ever}),
        }


def leads_there_now(row: Mapping[str, Any]) -> bool:
    """Return whether the tag of a row led to the digest in the last listing."""
    return row["tag"] is not None and row["valid_to"] is None


def leads_there_at(row: Mapping[str, Any], moment: str) -> Literal["yes", "maybe", "no"]:
    """Return whether the tag of a row led to the digest at a moment, as far as the row says.

    The tag may have led there while the interval began or ended. Gaps in coverage are not
    considered.

    Args:
        row: A row of `find`, without ``current``.
        moment: The time, as `tagsync.clock.timestamp` writes it.
    """
    if row["tag"] is None or (row["valid_to"] is not None and row["valid_to"] <= moment):
        return "no"
    if row["valid_from"] > moment:
        return "maybe" if (row["not_before"] or moment) < moment else "no"
    return "yes" if moment <= (row["still_at"] or moment) else "maybe"


def is_whole(text: str) -> bool:
    """Return whether a text is a whole digest, with or without its algorithm."""
    return _WHOLE.fullmatch(text) is not None


def _completed(text: str) -> str:
    """Return a text in lower case, with the algorithm before a whole digest that lacks it."""
    text = text.strip().lower()
    if re.fullmatch("[0-9a-f]+", text) and is_whole(text):
        return f"sha256:{text}" if len(text) == _SHA256_DIGITS else f"sha512:{text}"
    return text


def _unknown(query: str) -> Row:
    """Return the row of a digest to which no tag ever led."""
    return {**dict.fromkeys(column_names(FindRow)), "query": query, "role": "unknown"}


def _resolve(db: Connection, text: str, most: int | None = None) -> tuple[str, "_Usage | None"]:
    """Return the digest that begins with a text, and its usage.

    Raises:
        UnclearQuestion: As in `find`.
    """
    return _digest_for(db, text, most) or (text, None)


def _intervals(
    db: Connection, digest: str, usage: "_Usage", most: int | None = None
) -> Iterator[Row]:
    """Yield the rows of a digest, in order. If ``most`` is not None, read at most so many."""
    paths = sorted(paths_to(db, [digest, *usage.images]), key=str)
    text = json.dumps(paths)
    if most is None:
        rows = db.query(TAGS_OF_DIGEST_SQL, (text,))
    else:
        some = db.query(_SOME_TAGS_OF_DIGEST_SQL, (text, most))
        rows = iter(sorted(some, key=itemgetter("repository", "tag", "valid_from")))
    for row in rows:
        check_values(row, "a tag of the digest")
        yield {
            "query": digest,
            "repository": row["repository"],
            "tag": row["tag"],
            "role": usage.role,
            "digest": row["digest"],
            "platform": _platform(row["index_manifest"], row["via"]),
            **{name: row[name] for name in ("not_before", "valid_from", "still_at", "valid_to")},
        }


class _Usage(NamedTuple):
    """A digest's role, and the images whose configuration or layer has this digest."""

    role: Role
    images: list[str]


def _digest_for(db: Connection, text: str, most: int | None) -> tuple[str, _Usage] | None:
    """Return the only digest that begins with a text, and the usage of this digest.

    Args:
        db: The connection.
        text: The text.
        most: Maximum number of images that are read, the newest first. None means all.

    Returns:
        None if no recorded digest begins with the text.

    Raises:
        UnclearQuestion: If the text is not a digest, or is the prefix of several digests.
    """
    digits, beginnings = _beginnings(text)
    known = _referenced(db, digits, beginnings, most)
    for digest in _recorded(db, beginnings):
        # The same digest may be the manifest of one image and a layer of another image.
        known[digest] = _Usage("manifest", known[digest].images if digest in known else [])
    if len(known) > 1:
        count = f"at least {_MAX_COUNTED}" if len(known) >= _MAX_COUNTED else str(len(known))
        first, second, *_ = sorted(known)
        raise UnclearQuestion(
            f"{text!r} is the beginning of {count} digests, {first} and {second} among them: write"
            " more digits"
        )
    return next(iter(known.items()), None)


def _beginnings(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the digits of a text, and the beginnings of the digests that it may mean.

    Raises:
        UnclearQuestion: If the text is not a digest.
    """
    match = _DIGEST.fullmatch(text.strip().lower())
    if not match:
        raise UnclearQuestion(
            f"invalid digest {text!r}: write at least {LEAST_DIGITS} of its hexadecimal digits"
            f" ({_SHA256_DIGITS} at most for sha256), with or without sha256: before them"
        )
    return match[2], tuple(
        f"{name}:{match[2]}" for name in ((match[1],) if match[1] else _ALGORITHMS)
    )


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


def _referenced(
    db: Connection, digits: str, beginnings: tuple[str, ...], most: int | None
) -> dict[str, _Usage]:
    """Return the referenced digests that begin with one of the given texts.

    Args:
        db: The connection.
        digits: The hexadecimal digits with which the digests begin, without an algorithm.
        beginnings: The texts: an algorithm, a colon and the digits.
        most: As in `_digest_for`.

    Returns:
        The usage of each digest, by digest.
    """
    found: dict[str, _Usage] = {}
    for image, manifest, image_id in images_referencing(db, digits, most):
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
    """Yield each digest that an image references, and the digest's role."""
    for role, digest in decode(manifest).references():
        yield digest, role
    if image_id:
        yield image_id if ":" in image_id else f"sha256:{image_id}", "config"


def paths_to(db: Connection, digests: Iterable[str]) -> set[tuple[str, str | None]]:
    """Return the images with these digests, and every index that leads to one of them.

    Returns:
        A pair for each image. For an image with one of the digests, the pair is its digest and
        None. For an index, the pair is its digest and the digest of a manifest through which it
        leads to one of these images.
    """
    paths: set[tuple[str, str | None]] = {(digest, None) for digest in digests}
    children = {digest for digest, _ in paths}
    while children:
        digits = sorted({child.rpartition(":")[2] for child in children})
        found = {
            (index, child)
            for index, manifest in images_referencing_any(db, digits)
            for role, child in decode(manifest).references()
            if role == "manifest" and child in children
        }
        children = {index for index, _ in found - paths}
        paths |= found
    return paths


def _platform(index: str | None, via: str | None) -> str | None:
    """Return the platform that an index states for one of its manifests.

    Args:
        index: The text of the index. None if the image is not an index.
        via: The digest of the manifest.
    """
    descriptors = decode(index).manifests or ()
    return next((str(d.platform) for d in descriptors if d.platform and d.digest == via), None)
