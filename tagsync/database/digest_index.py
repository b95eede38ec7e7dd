"""Search images by the digests that they reference, with SQLite's FTS5.

In the table ``image_search``, the row id is ``images.id``. The text is the hexadecimal digits of
each digest that the image references: its configuration, its layers, and the manifests of an index.
The table is contentless: FTS5 keeps only the index, not the text. The references of a manifest are
indexed only if it is verified. Until then, only the configuration that a registry lists is indexed.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tagsync.manifests import decode, hex_digits

_DIGITS: Final = re.compile(r"[0-9a-f]{6,}", re.ASCII)
"""Fewest digits that are searched: fewer would match much of the index."""

_TERMS: Final = 500
"""Maximum number of digests in one query of the index."""

_REFERENCING_SQL: Final = (
    "SELECT i.digest, iif(i.verified, i.manifest, NULL), i.image_id FROM image_search AS s"
    " CROSS JOIN images AS i ON i.id = s.rowid WHERE image_search MATCH ?"
)

ImageRow = tuple[int, str | None, str | None, int | None]
"""The columns of ``images`` that the index needs: id, manifest, image_id and verified."""


def search_terms(manifest: str | None, image_id: str | None, verified: int | None) -> set[str]:
    """Return the terms of an image: the hexadecimal digits of each digest.

    Args:
        manifest: The text of the manifest. It is used only if it is verified.
        image_id: The digest of the configuration, which a registry may state without a manifest.
        verified: The value of the column ``verified``: 1 if the manifest is verified.
    """
    references = decode(manifest).references() if verified else ()
    digests = [digest for _, digest in references]
    return {digits for each in (image_id, *digests) if each and (digits := hex_digits(each))}


def index_images(db: sqlite3.Connection, images: Iterable[ImageRow]) -> None:
    """Add images to the index.

    An image that receives its manifest later is added again, after `unindex_images`.
    """
    rows = (
        (number, search_terms(manifest, image_id, verified))
        for number, manifest, image_id, verified in images
    )
    db.executemany(
        "INSERT INTO image_search (rowid, digests) VALUES (?, ?)",
        ((number, " ".join(terms)) for number, terms in rows if terms),
    )


def unindex_images(db: sqlite3.Connection, images: Iterable[tuple[int, str | None]]) -> None:
    """Remove images without a verified manifest from the index.

    Args:
        db: Within a write transaction.
        images: The id and the image_id with which each image was indexed. FTS5 needs the exact text
            to remove an entry.
    """
    rows = ((number, search_terms(None, image_id, None)) for number, image_id in images)
    db.executemany(
        "INSERT INTO image_search (image_search, rowid, digests) VALUES ('delete', ?, ?)",
        ((number, " ".join(terms)) for number, terms in rows if terms),
    )


def images_referencing(
    db: sqlite3.Connection, digits: str, newest: int | None = None
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the digest, manifest and image_id of each image that references a digest.

    The manifest is None if it is not verified.

    Args:
        db: A connection that may read.
        digits: The digest's hexadecimal digits, or the first ones of them.
        newest: Maximum number of images, of which the newest are yielded first. None means all.
    """
    # Anything else would be FTS5's query syntax: a registry may send any text as a digest.
    if not _DIGITS.fullmatch(digits):
        return
    term = f'"{digits}"*'
    if newest is None:
        yield from db.execute(_REFERENCING_SQL, (term,))
    else:
        yield from db.execute(f"{_REFERENCING_SQL} ORDER BY s.rowid DESC LIMIT ?", (term, newest))


def referenced_digits(db: sqlite3.Connection, digits: str, limit: int) -> list[str]:
    """Return the digits of the referenced digests that begin with the given ones.

    Args:
        db: A connection that may read.
        digits: The first hexadecimal digits.
        limit: Maximum number of digests.
    """
    with _vocabulary(db, "row"):
        rows = db.execute(
            "SELECT term FROM temp.image_search_terms WHERE term >= ? AND term < ? LIMIT ?",
            (digits, f"{digits}g", limit),
        ).fetchall()
    return [term for (term,) in rows]


def images_referencing_any(
    db: sqlite3.Connection, digits: Iterable[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the digest and manifest of each image that references one of several digests.

    An image may be yielded more than once.

    Args:
        db: A connection that may read.
        digits: All hexadecimal digits of each digest.
    """
    terms = [f'"{each}"' for each in digits if _DIGITS.fullmatch(each)]
    for start in range(0, len(terms), _TERMS):
        yield from db.execute(
            "SELECT i.digest, i.manifest FROM image_search AS s"
            " CROSS JOIN images AS i ON i.id = s.rowid WHERE image_search MATCH ?",
            (" OR ".join(terms[start : start + _TERMS]),),
        )


@contextmanager
def indexed_terms(db: sqlite3.Connection) -> Iterator[Iterator[tuple[str, int]]]:
    """Open an iterator over the index: pairs of a term and an image's id."""
    with _vocabulary(db, "instance"):
        yield iter(db.execute("SELECT term, doc FROM temp.image_search_terms"))


def lost_term(db: sqlite3.Connection) -> str | None:
    """Return a term of the index that a search does not find, or None if it finds each of them.

    A search begins at the page that ``image_search_idx`` gives for a term. If that table was
    altered, the term is on another page. FTS5's own check does not notice if a row is missing.
    """
    with _vocabulary(db, "row"):
        row = db.execute(
            "SELECT v.term FROM temp.image_search_terms AS v WHERE NOT EXISTS ("
            " SELECT 1 FROM image_search WHERE image_search MATCH '\"' || v.term || '\"') LIMIT 1"
        ).fetchone()
    return None if row is None else row[0]


@contextmanager
def _vocabulary(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Open the index as ``temp.image_search_terms``, a table of the type fts5vocab.

    It needs no permission to write the database file.

    Args:
        db: A connection that may read.
        kind: The rows of the table: ``instance`` for each term of each image, ``row`` for each
            term.
    """
    db.execute(
        f"CREATE VIRTUAL TABLE temp.image_search_terms USING fts5vocab(main, image_search, {kind})"
    )
    try:
        yield
    finally:
        db.execute("DROP TABLE temp.image_search_terms")


def has_fts5(db: sqlite3.Connection) -> bool:
    """Return whether FTS5 is available to this connection."""
    row = db.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone()
    return row is not None
